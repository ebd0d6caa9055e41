"""Stage 8: train a segmentation network on the pseudo masks.

    python train_deeplab.py --voc12_root VOCdevkit/VOC2012 --work_dir runs/sfc
    python train_deeplab.py --voc12_root ... --seg_init deeplabv1_resnet101-coco.pth --amp bf16
    python train_deeplab.py --voc12_root ... --seg_net deeplabv1_resnet38 --seg_init resnet38_imagenet.pth
    python train_deeplab.py --voc12_root ... --work_dir runs/full --label_dir VOCdevkit/VOC2012/SegmentationClassAug
"""

import argparse
from functools import partial
from pathlib import Path

import torch

from data.loader import DeepLabCrops, LabelledCrops, train_loader
from data.sample import InputError
from data.transforms import zero_outside
from frame import engine, network, options, segmentation_network
from frame.segmentation_network import SEG_NETS, Design, add_own_option
from net.deeplabv2 import RESNET101_BLOCKS, MultiScale, multi_scale_loss
from runtime import distributed
from runtime.command import flag, non_negative, number_list, positive_int
from runtime.work_dir import log

NAME = "train_deeplab"
OUTPUTS = ("deeplab.pth",)
select_ids = options.infer_ids

# What the flags left at None mean: deeplab-pytorch's settings for VOC, and those of SEAM's second stage.
DEFAULTS = {
    "deeplabv2_resnet101": {
        "seg_batch_size": 5, "seg_accumulate": 2, "seg_crop_size": 321, "seg_scales": [0.5, 0.75, 1.0, 1.25, 1.5],
        "seg_scale_draw": "list", "seg_colour_jitter": 0.0, "seg_lr": 2.5e-4, "seg_lr_every": 10},
    "deeplabv1_resnet38": {
        "seg_batch_size": 10, "seg_accumulate": 1, "seg_crop_size": 448, "seg_scales": [0.5, 1.5],
        "seg_scale_draw": "uniform", "seg_colour_jitter": 10.0, "seg_lr": 1e-3, "seg_lr_every": 1},
}


def block_counts(text: str) -> list[int]:
    blocks = [positive_int(part) for part in text.split(",")]
    if len(blocks) != 4:
        raise argparse.ArgumentTypeError(f"{text}: needs four numbers, one a layer")
    return blocks


def _network_options(group) -> None:
    group.add_argument("--seg_net", choices=SEG_NETS, default=SEG_NETS[0], help="segmentation network")
    group.add_argument("--seg_init", default="imagenet",
                       help="initial weights: imagenet (torchvision's ResNet-101), none, or a file (ours, names of "
                            "torchvision or deeplab-pytorch, SEAM's ResNet38 as a state dict); the order of colours "
                            "and the mean of the images follow from it")
    group.add_argument("--seg_width", type=positive_int, default=64, help="channels of the first convolution")
    group.add_argument("--seg_blocks", type=block_counts, default=list(RESNET101_BLOCKS),
                       help="bottlenecks of the four layers of deeplabv2_resnet101")


def _training_options(group) -> None:
    own = partial(add_own_option, group, DEFAULTS)
    group.add_argument("--label_dir", help="folder of masks ID.png to train on, such as SegmentationClassAug; "
                                           "default sem_seg of the work directory")
    group.add_argument("--seg_iterations", type=positive_int, default=20000, help="optimiser steps (coco14: 100000)")
    own("seg_batch_size", "images of one forward pass", type=positive_int)
    own("seg_accumulate", "forward passes of a step, their gradients averaged", type=positive_int)
    own("seg_crop_size", "side of the training crops in pixels", type=positive_int)
    own("seg_scales", "random scales of the images", type=number_list)
    own("seg_scale_draw", "one of --seg_scales, or any scale between the smallest and the largest",
        choices=("list", "uniform"))
    own("seg_colour_jitter", "largest random shift of hue (of 180), saturation and value (of 255)", type=non_negative)
    flag(group, "seg_flip", True, "random horizontal flip")
    group.add_argument("--seg_loss_scales", type=number_list, default=[0.5, 0.75],
                       help="deeplabv2_resnet101: scales with a loss of their own, besides 1 and the maximum of all")
    flag(group, "balanced_ce", False, "mean of the cross-entropies of background and foreground pixels")
    own("seg_lr", "learning rate of the backbone", type=non_negative)
    group.add_argument("--seg_lr_head_factor", type=non_negative, default=10.0,
                       help="times --seg_lr: rate of the classifier's weights; its biases learn at twice that")
    group.add_argument("--seg_lr_power", type=non_negative, default=0.9, help="exponent of the poly schedule")
    own("seg_lr_every", "steps from one update of the learning rate to the next", type=positive_int)
    group.add_argument("--seg_momentum", type=non_negative, default=0.9, help="of SGD")
    group.add_argument("--seg_weight_decay", type=non_negative, default=5e-4, help="of SGD, except for biases")


OPTIONS = (options.RUN, options.HARDWARE, options.DATA, options.INFER_LIST,
           options.Group("segmentation network", _network_options),
           options.Group("training of the segmentation network", _training_options))


def run(args, work_dir, data_set, ids) -> dict:
    """Train on the masks and write deeplab.pth. Returns losses and speed."""
    args = segmentation_network.with_defaults(args, DEFAULTS[args.seg_net])
    log.info("%s: %s", args.seg_net, {name: getattr(args, name) for name in DEFAULTS[args.seg_net]})
    device = network.prepare_device(args.device)
    folder = mask_folder(args, work_dir, ids)
    step_images = args.seg_batch_size * args.seg_accumulate
    if len(ids) < step_images:
        raise InputError(f"{len(ids)} images make no step of {args.seg_accumulate} x {args.seg_batch_size}; lower "
                         "--seg_batch_size or --seg_accumulate")

    design = Design(args.seg_net, data_set.num_classes, args.seg_width, tuple(args.seg_blocks))
    model, design = segmentation_network.build_initialised(design, args.seg_init)
    optimizer, scheduler = engine.poly_sgd(
        model.parameter_groups(args.seg_lr, args.seg_weight_decay, args.seg_lr_head_factor), args.seg_iterations,
        args.seg_momentum, args.seg_weight_decay, args.seg_lr_power, args.seg_lr_every)
    crops = DeepLabCrops if args.seg_net == "deeplabv2_resnet101" else LabelledCrops
    dataset = crops(
        ids, data_set.image_path, lambda name: folder / f"{name}.png", data_set.num_classes, args.seg_crop_size,
        scale_range(args), args.seg_flip, args.seed, args.seg_scale_draw == "list", args.seg_colour_jitter)

    def batches(first_step):
        return train_loader(dataset, len(ids), step_images, args.seg_iterations, first_step, args.seed,
                            args.num_workers, distributed.share(step_images, args.seg_accumulate))

    trained = MultiScale(model, tuple(args.seg_loss_scales)) if args.seg_net == "deeplabv2_resnet101" else model
    trained.to(device).train()
    network.lay_out(trained, args)
    training = engine.Training(trained, optimizer, scheduler, build_loss(args, trained, design, device), batches,
                               args.seg_iterations, step_images, accumulate=args.seg_accumulate,
                               scaler=network.loss_scaler(args, device))
    result = engine.fit(training, work_dir, NAME)
    engine.save_model(work_dir / "deeplab.pth", model, **design._asdict(), class_names=list(data_set.class_names))
    return {"seg_net": args.seg_net} | result


def mask_folder(args, work_dir, ids) -> Path:
    """The folder of masks to train on. Raises InputError unless it has one for every image."""
    folder = Path(args.label_dir) if args.label_dir else work_dir.require("sem_seg", "make_sem_seg_labels")
    missing = [name for name in ids if not (folder / f"{name}.png").exists()]
    if missing:
        raise InputError(f"{folder / missing[0]}.png: mask is missing ({len(missing)} of {len(ids)}); run "
                         "make_sem_seg_labels.py with the same --infer_list, or check --label_dir")
    return folder


def scale_range(args) -> tuple[float, ...]:
    """The scales that the crops draw from."""
    return tuple(args.seg_scales) if args.seg_scale_draw == "list" else (min(args.seg_scales), max(args.seg_scales))


def build_loss(args, model, design: Design, device):
    """The loss function of engine.Training: the sum of the cross-entropies of every map that the network gives."""
    names = [f"scale {scale:g}" for scale in (1, *args.seg_loss_scales)] + ["maximum"]
    precision = network.autocast(args, device)
    cross_entropies = partial(multi_scale_loss, balanced=args.balanced_ce, count=distributed.count)

    def loss(batch, number):
        # Dropout: the same after an interruption, another one on every process.
        torch.manual_seed((args.seed * 1_000_003 + number) * distributed.world() + distributed.rank())
        images, boxes, labels = (part.to(device, non_blocking=True) for part in batch)
        images = zero_outside(segmentation_network.normalised(images, design), boxes)
        with precision:
            logits = model(images)
        if torch.is_tensor(logits):                                     # DeepLabV1
            return {"total": cross_entropies([logits.float()], labels)[0]}
        losses = cross_entropies([x.float() for x in logits], labels)
        return {"total": losses.sum(), **dict(zip(names, losses))}

    return loss


if __name__ == "__main__":
    from run_sample import run_alone
    run_alone(NAME)
