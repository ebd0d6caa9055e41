"""Stage 1: train the classifier with PCM, prototype CAM, image bank and MSDW loss.

    python train_sfc.py --voc12_root VOCdevkit/VOC2012 --work_dir runs/sfc
    python train_sfc.py --voc12_root ... --no-ibr --dw_p_weight 0 --dw_w_weight 0     # "Base" of Table 4
"""

import torch

from data.image_bank import ImageBank
from data.loader import TrainCrops, train_loader
from data.sample import InputError
from data.transforms import normalise, zero_outside
from frame import engine, network, options
from net.msdw import MSDWLoss, bank_samples, distribution_coefficient
from report import pictures as visualize
from runtime import distributed
from runtime.command import flag, non_negative, positive_int
from runtime.work_dir import log

NAME = "train_sfc"
OUTPUTS = ("sfc.pth",)
select_ids = options.train_ids


def _training_options(group) -> None:
    group.add_argument("--crop_size", type=positive_int, default=512, help="side of the training crops in pixels")
    group.add_argument("--resize_long", default="320,640",
                       help="low,high: random long side in pixels before cropping; none: keep the size")
    flag(group, "train_stem", False, "train the first two stages of the backbone too (release: never)")
    flag(group, "flip", True, "random horizontal flip")
    group.add_argument("--batch_size", type=positive_int, default=16, help="images of a step, without those of the bank")
    group.add_argument("--epochs", type=positive_int, default=6, help="passes over the training list")
    group.add_argument("--lr", type=non_negative, default=0.1, help="learning rate of the backbone")
    group.add_argument("--lr_new_factor", type=non_negative, default=10.0, help="times --lr: rate of the new layers")
    group.add_argument("--momentum", type=non_negative, default=1e-4,
                       help="of SGD (the released optimiser takes its weight decay for the momentum)")
    group.add_argument("--weight_decay", type=non_negative, default=1e-4, help="of SGD")
    group.add_argument("--clip_norm", type=non_negative, default=1.0, help="largest gradient norm over all parameters")


def _method_options(group) -> None:
    flag(group, "ibr", True, "image bank re-sampling")
    group.add_argument("--ibr_images", type=positive_int, default=4, help="N_IBR, images drawn from the bank each step")
    flag(group, "ibr_allow_empty", False, "draw from slots still empty too: black images without label (release)")
    group.add_argument("--ibr_classes", type=non_negative, default=3.0,
                       help="C_IBR of Eq. 6, classes an image shows on average (release 3); 0: measure it")
    flag(group, "dc_p", True, "distribution coefficient in L_DW^P (Table 5)")
    flag(group, "dc_w", True, "distribution coefficient in L_DW^W (Table 5)")
    group.add_argument("--dc_scale", choices=("mean", "total_demand"), default="mean",
                       help="DC divided by its mean over classes (release) or scaled as Eq. 6 says")
    group.add_argument("--dw_p_weight", type=non_negative, default=1.6, help="weight of L_DW^P (Eq. 5), 0: without it")
    group.add_argument("--dw_w_weight", type=non_negative, default=0.8, help="weight of L_DW^W (Eq. 7), 0: without it")
    group.add_argument("--dw_reduction", choices=("mean", "l1"), default="mean",
                       help="mean over images, classes and pixels (release), or L1 norms summed over classes (Eq. 5, 7)")
    flag(group, "normalise_prototype", True, "divide M_P by its maximum before L_DW^P (release)")
    flag(group, "cls_half", True, "average L_cls over scale 1 and 0.5 (release), not scale 1 alone (Eq. 1)")


OPTIONS = (options.RUN, options.HARDWARE, options.GRAD_ACCUM, options.DATA, options.TRAIN_LIST, options.BACKBONE,
           options.WEIGHTS, options.NETWORK,
           options.Group("training of the classifier", _training_options),
           options.Group("shared feature calibration", _method_options))


def run(args, work_dir, data_set, ids) -> dict:
    """Train and write sfc.pth. Returns losses, speed, class counts n_c and DC_c."""
    device = network.prepare_device(args.device)
    precision = network.autocast(args, device)
    labels = data_set.image_labels(ids)
    counts = count_classes(labels, data_set)
    steps_per_epoch = len(ids) // args.batch_size
    if steps_per_epoch == 0:
        raise InputError(f"{len(ids)} training images make no batch of {args.batch_size}; lower --batch_size")
    total_steps = steps_per_epoch * args.epochs
    step_images = args.batch_size + args.ibr * args.ibr_images
    loaded = distributed.share(args.batch_size, 1 if args.ibr else args.grad_accum)
    computed = torch.from_numpy(distributed.share(step_images, args.grad_accum)).to(device)

    model = network.build_sfc(args, data_set.num_classes)
    frozen = network.initialise(model, args)
    network.set_training_mode(model.to(device), frozen)
    network.lay_out(model.backbone, args)
    dc = coefficients(args, counts, labels, steps_per_epoch)
    criterion = build_loss(args, dc).to(device)
    bank = ImageBank(data_set.num_classes, args.crop_size, device, args.ibr_allow_empty)
    optimizer, scheduler = engine.poly_sgd(model.parameter_groups(args.lr, args.lr * args.lr_new_factor), total_steps,
                                           args.momentum, args.weight_decay)
    dataset = TrainCrops(ids, labels, data_set.image_path, args.crop_size, parse_range(args.resize_long), args.flip, args.seed)

    def with_bank(batch, step):
        """The images that this process computes; for the bank, all processes see the whole batch, and they draw the same."""
        *pixels, present = batch
        images, boxes = (part.to(device, non_blocking=True) for part in pixels)
        if not args.ibr:
            return images, boxes, present.to(device, non_blocking=True)
        images, boxes, present = (distributed.gather_batch(part, args.batch_size) for part in (images, boxes, present))
        bank.update(images, boxes, present)
        draw = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        added = bank.draw(args.ibr_images, draw)
        return [torch.cat(pair)[computed] for pair in zip((images, boxes, present.to(device, non_blocking=True)), added)]

    def loss(part, _):
        images, boxes, present = part
        images = zero_outside(normalise(images, model.backbone.mean, model.backbone.std), boxes)
        with precision:
            outputs = model.forward_scales(images, boxes, present)
        return criterion(*outputs, present)._asdict()

    fixed = [part[:4] for part in next(iter(train_loader(dataset, len(ids), args.batch_size, 1, 0, args.seed, 0)))]
    training = engine.Training(
        model, optimizer, scheduler, loss,
        lambda first: train_loader(dataset, len(ids), args.batch_size, total_steps, first, args.seed, args.num_workers,
                                   loaded),
        total_steps, step_images, args.clip_norm, {"bank": bank},
        lambda writer, step: log_cams(writer, step, model, fixed, device, frozen),
        accumulate=args.grad_accum, epoch_steps=steps_per_epoch, prepare=with_bank,
        scaler=network.loss_scaler(args, device))
    result = engine.fit(training, work_dir, NAME)
    engine.save_model(work_dir / "sfc.pth", model, backbone=args.backbone, num_classes=data_set.num_classes,
                      class_names=list(data_set.class_names))
    return result | {"class_counts": counts.tolist(), "distribution_coefficient": dc.tolist()}


def count_classes(labels, data_set) -> torch.Tensor:
    """n_c of Eq. 6 from the training labels. Raises InputError for a class that no image shows."""
    counts = torch.from_numpy(labels).long().sum(0)
    log.info("images per class: %s", dict(zip(data_set.class_names, counts.tolist())))
    missing = [name for name, count in zip(data_set.class_names, counts) if count == 0]
    if missing:
        log.info("warning: no training image shows %s; nothing can be learnt of it", ", ".join(missing))
    return counts


def coefficients(args, counts, labels, steps_per_epoch) -> torch.Tensor:
    """DC_c (Eq. 6) of the training list, (C,)."""
    classes_per_image = args.ibr_classes or float(labels.sum(1).mean())
    added = bank_samples(args.ibr_images if args.ibr else 0, classes_per_image, steps_per_epoch, len(counts))
    return distribution_coefficient(counts, added, args.dc_scale)


def build_loss(args, dc: torch.Tensor) -> MSDWLoss:
    ones = torch.ones_like(dc)
    return MSDWLoss(dc if args.dc_p else ones, dc if args.dc_w else ones, args.dw_p_weight, args.dw_w_weight,
                    args.dw_reduction, args.normalise_prototype, args.cls_half)


def parse_range(text: str) -> tuple[int, int] | None:
    """"low,high" -> (low, high); "none" -> None."""
    if text == "none":
        return None
    try:
        low, high = (int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--resize_long {text}: needs two whole numbers low,high, or none") from None
    if not 1 <= low <= high:
        raise InputError(f"--resize_long {text}: needs 1 <= low <= high")
    return low, high


@torch.no_grad()
def log_cams(writer, step, model, batch, device, frozen) -> None:
    """CAM pictures of a few fixed crops for TensorBoard."""
    images, boxes, labels = (part.to(device) for part in batch)
    model.eval()
    output = model(zero_outside(normalise(images, model.backbone.mean, model.backbone.std), boxes), boxes, labels)
    network.set_training_mode(model, frozen)
    for name, cam in (("weight_cam", output.weight_cam), ("prototype_cam", output.prototype_cam)):
        writer.add_image(name, visualize.cam_sheet(images.cpu(), cam.cpu(), labels.cpu()), step)


if __name__ == "__main__":
    from run_sample import run_alone
    run_alone(NAME)
