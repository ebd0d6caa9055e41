"""Stage 8: train a segmentation network on the pseudo masks.

    python train_deeplab.py --voc12_root VOCdevkit/VOC2012 --work_dir runs/sfc
    python train_deeplab.py --voc12_root ... --seg_init deeplabv1_resnet101-coco.pth --amp bf16
    python train_deeplab.py --voc12_root ... --seg_net deeplabv1_resnet38 --seg_init resnet38_imagenet.pth
    python train_deeplab.py --voc12_root ... --work_dir runs/full --label_dir VOCdevkit/VOC2012/SegmentationClassAug
"""

import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
import torch.nn as nn

from data.loader import DeepLabCrops, LabelledCrops, Order, train_loader
from data.sample import InputError, label_path
from frame import engine, lists
from frame.flags import Flags
from frame.settings.common import Data, Hardware, InferList, Memory, Run
from frame.settings.segmentation import OWN_PASSES, OWN_TRAINING, SegLabels, SegNetwork, SegTraining, with_own_values
from frame.stage import run_alone
from net.deeplabv2 import MultiScale, multi_scale_loss
from net.inputs import ImageInput
from runtime import device, distributed
from runtime.work_dir import log
from segmentation.network import Design, build_initialised, image_input

NAME = "train_deeplab"
OUTPUTS = ("deeplab.pth",)
OPTIONS = (Run, Hardware, Memory, Data, InferList, SegNetwork, SegLabels, SegTraining)
select_ids = lists.infer_ids


def run(flags: Flags, work_dir, data_set, ids: list[str]) -> dict:
    """Train on the masks and write deeplab.pth. Returns losses and speed."""
    chosen, labels, hardware, seed = flags[SegNetwork], flags[SegLabels], flags[Hardware], flags[Run].seed
    settings = with_own_values(flags[SegTraining], OWN_TRAINING[chosen.net])
    passes = flags[Memory].grad_accum or OWN_PASSES[chosen.net]
    own = {name: asdict(settings)[name] for name in OWN_TRAINING[chosen.net]}
    log.info("%s: %s, %d passes", chosen.net, own, passes)
    compute = device.prepare(flags[Run].device, hardware.amp)
    folder = mask_folder(labels.label_dir, work_dir, ids)
    if len(ids) < settings.batch_size:
        raise InputError(f"{len(ids)} images make no step of {settings.batch_size}; lower --seg_batch_size")

    wanted = Design(chosen.net, data_set.num_classes, chosen.width, chosen.blocks)
    model, design = build_initialised(wanted, chosen.init)
    is_v2 = chosen.net == "deeplabv2_resnet101"
    crops = (DeepLabCrops if is_v2 else LabelledCrops)(
        ids, data_set.image_path, partial(label_path, folder), num_classes=data_set.num_classes,
        crop=settings.crop_size, scale=settings.scale_range, flip=settings.flip, seed=seed,
        one_of_scales=settings.scale_draw == "list", colour_jitter=settings.colour_jitter)
    order = Order(len(ids), settings.batch_size, settings.iterations, seed,
                  distributed.share(settings.batch_size, passes))

    trained = MultiScale(model, settings.loss_scales) if is_v2 else model
    device.lay_out(trained, hardware.channels_last, hardware.compile)
    trained.to(compute.device).train()
    optimizer, scheduler = engine.poly_sgd(
        model.parameter_groups(settings.lr, settings.weight_decay, settings.lr_head_factor), settings.iterations,
        settings.momentum, settings.weight_decay, settings.lr_power, settings.lr_every)
    names = [f"scale {scale:g}" for scale in (1, *settings.loss_scales)] + ["maximum"] if is_v2 else []
    training = engine.Training(
        trained, optimizer, scheduler,
        partial(losses, trained, image_input(design).to(compute.device), names, labels.balanced_ce, seed, compute),
        loader=partial(train_loader, crops, order, num_workers=flags[Run].num_workers,
                       pin_memory=compute.device.type == "cuda"),
        total_steps=order.total_steps, batch_size=order.batch_size, accumulate=passes, scaler=compute.scaler)
    result = engine.fit(training, work_dir, NAME)
    engine.save_model(work_dir / "deeplab.pth", model, **design._asdict(), class_names=list(data_set.class_names))
    return {"seg_net": chosen.net} | result


def mask_folder(label_dir: str | None, work_dir, ids: list[str]) -> Path:
    """The folder of masks to train on. Raises InputError unless it has one for every image."""
    folder = Path(label_dir) if label_dir else work_dir.require("sem_seg", "make_sem_seg_labels")
    lists.require_files(ids, partial(label_path, folder), "mask", "run make_sem_seg_labels.py with the same "
                        "--infer_list, or check --label_dir")
    return folder


def losses(model: nn.Module, prepare: ImageInput, names: list[str], balanced: bool, seed: int, compute: device.Compute,
           batch, number: int) -> dict[str, torch.Tensor]:
    """The sum of the cross-entropies of every map that the network gives, and each by its name.

    number  of the pass
    """
    # Dropout: the same after an interruption, another one on every process.
    torch.manual_seed((seed * 1_000_003 + number) * distributed.world() + distributed.rank())
    images, boxes, labels = (part.to(compute.device, non_blocking=True) for part in batch)
    pixels = prepare(images, boxes)
    with compute.precision:
        logits = model(pixels)
    maps = [logits] if torch.is_tensor(logits) else logits                     # DeepLabV1 gives one
    terms = multi_scale_loss([x.float() for x in maps], labels, balanced=balanced, count=distributed.count)
    return {"total": terms.sum(), **dict(zip(names, terms))}


if __name__ == "__main__":
    run_alone(sys.modules[__name__])
