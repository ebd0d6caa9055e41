"""Stage 5: train the inter-pixel relation network on the IR labels.

    python train_irn.py --voc12_root VOCdevkit/VOC2012 --work_dir runs/sfc
"""

import torch

from data.loader import LabelledCrops, train_loader
from data.sample import InputError
from data.transforms import normalise, zero_outside
from frame import engine, network, options
from net.backbone import build_backbone
from net.irn import IRN, PathIndex, irn_loss
from runtime import distributed
from runtime.command import flag, non_negative, positive_int
from runtime.progress import progress

NAME = "train_irn"
OUTPUTS = ("irn.pth",)
select_ids = options.infer_ids


def _training_options(group) -> None:
    group.add_argument("--irn_batch_size", type=positive_int, default=32, help="images of a step")
    group.add_argument("--irn_epochs", type=positive_int, default=3, help="passes over the list")
    group.add_argument("--irn_scale_low", type=non_negative, default=0.5, help="random scale: smallest")
    group.add_argument("--irn_scale_high", type=non_negative, default=1.0, help="random scale: largest (IRN 1.5)")
    flag(group, "irn_flip", True, "random horizontal flip")
    group.add_argument("--irn_lr", type=non_negative, default=0.1, help="learning rate of the edge branch")
    group.add_argument("--irn_lr_displacement_factor", type=non_negative, default=10.0,
                       help="times --irn_lr: rate of the displacement branch")
    group.add_argument("--irn_momentum", type=non_negative, default=1e-4,
                       help="of SGD (the released optimiser takes its weight decay for the momentum)")
    group.add_argument("--irn_weight_decay", type=non_negative, default=1e-4, help="of SGD")
    group.add_argument("--irn_radius", type=positive_int, default=10, help="reach of pixel pairs in cells of the edge map")


OPTIONS = (options.RUN, options.HARDWARE, options.GRAD_ACCUM, options.DATA, options.INFER_LIST, options.BACKBONE,
           options.WEIGHTS, options.IRN_CROP, options.Group("training of IRN", _training_options))


def run(args, work_dir, data_set, ids) -> dict:
    """Train on ir_label/*.png and write irn.pth. Returns losses and speed."""
    device = network.prepare_device(args.device)
    precision = network.autocast(args, device)
    label_folder = work_dir.require("ir_label", "cam_to_ir_label")
    missing = [name for name in ids if not (label_folder / f"{name}.png").exists()]
    if missing:
        raise InputError(f"{label_folder / missing[0]}.png: IR label is missing ({len(missing)} of {len(ids)}); run "
                         "cam_to_ir_label.py with the same --infer_list")
    steps_per_epoch = len(ids) // args.irn_batch_size
    if steps_per_epoch == 0:
        raise InputError(f"{len(ids)} images make no batch of {args.irn_batch_size}; lower --irn_batch_size")
    total_steps = steps_per_epoch * args.irn_epochs

    model = IRN(build_backbone(args.backbone))
    cells = args.irn_crop_size // model.stride
    if not 2 <= args.irn_radius <= (cells + 1) // 2:
        raise InputError(f"--irn_radius {args.irn_radius}: needs 2 to {(cells + 1) // 2}, as crops of {args.irn_crop_size} pixels have "
                         f"{cells} x {cells} cells; change it or --irn_crop_size")
    network.initialise_backbone(model.backbone, args)
    model = model.to(device).train()
    network.lay_out(model, args)
    path_index = PathIndex(args.irn_radius)
    optimizer, scheduler = engine.poly_sgd(
        model.parameter_groups(args.irn_lr, args.irn_lr * args.irn_lr_displacement_factor), total_steps,
        args.irn_momentum, args.irn_weight_decay)
    dataset = LabelledCrops(ids, data_set.image_path, lambda name: label_folder / f"{name}.png", data_set.num_classes,
                            args.irn_crop_size, (args.irn_scale_low, args.irn_scale_high), args.irn_flip, args.seed)

    def loss(batch, step):
        images, boxes, labels = (part.to(device, non_blocking=True) for part in batch)
        with precision:
            edge, displacement = model(prepare(images, boxes))
        losses = irn_loss(edge.float(), displacement.float(), labels, path_index, distributed.count)
        return {"total": losses.pop("loss_total"), **losses}

    def prepare(images, boxes):
        return zero_outside(normalise(images, model.backbone.mean, model.backbone.std), boxes)

    def batches(first_step, steps=total_steps):
        return train_loader(dataset, len(ids), args.irn_batch_size, steps, first_step, args.seed, args.num_workers,
                            distributed.share(args.irn_batch_size, args.grad_accum))

    training = engine.Training(model, optimizer, scheduler, loss, batches, total_steps, args.irn_batch_size,
                               accumulate=args.grad_accum, epoch_steps=steps_per_epoch,
                               scaler=network.loss_scaler(args, device))
    result = engine.fit(training, work_dir, NAME)
    epoch = progress(batches(0, steps_per_epoch), desc="mean displacement", unit="step")
    set_mean_displacement(model, epoch, steps_per_epoch, args.irn_batch_size, prepare, device)
    engine.save_model(work_dir / "irn.pth", model, backbone=args.backbone)
    return result


@torch.no_grad()
def set_mean_displacement(model, loader, steps: int, batch_size: int, prepare, device) -> None:
    """Mean displacement over an epoch of training crops; IRN subtracts it at inference.

    steps, batch_size  of the epoch, over all processes
    """
    total = torch.zeros(2, device=device)
    for images, boxes, _ in loader:
        _, displacement = model(prepare(images.to(device), boxes.to(device)))
        total += displacement.mean((0, 2, 3)) * (len(images) / batch_size)
    model.mean_shift.running_mean.copy_(distributed.total(total) / steps)


if __name__ == "__main__":
    from run_sample import run_alone
    run_alone(NAME)
