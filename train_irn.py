"""Stage 5: train the inter-pixel relation network on the IR labels.

    python train_irn.py --voc12_root VOCdevkit/VOC2012 --work_dir runs/sfc
"""

import sys
from functools import partial

import torch

from data.loader import LabelledCrops, Order, train_loader, upload
from data.sample import InputError, label_path
from frame import engine, lists, network
from frame.flags import Flags
from frame.settings.common import BackboneChoice, Data, Hardware, InferList, Memory, Run, Weights
from frame.settings.irn import IrnCrop, IrnTraining
from frame.stage import run_alone
from net.backbone import build_backbone
from net.irn import IRN, PathIndex, irn_loss
from runtime import device, distributed
from runtime.progress import progress
from runtime.work_dir import log

NAME = "train_irn"
OUTPUTS = ("irn.pth",)
OPTIONS = (Run, Hardware, Memory, Data, InferList, BackboneChoice, Weights, IrnCrop, IrnTraining)
select_ids = lists.infer_ids


def run(flags: Flags, work_dir, data_set, ids: list[str]) -> dict:
    """Train on ir_label/*.png and write irn.pth. Returns losses and speed."""
    settings, crop, hardware = flags[IrnTraining], flags[IrnCrop].irn_crop_size, flags[Hardware]
    passes = flags[Memory].passes
    compute = device.prepare(flags[Run].device, hardware.amp)
    labels = work_dir.require("ir_label", "cam_to_ir_label")
    label_of = partial(label_path, labels)
    lists.require_files(ids, label_of, "IR label", "run cam_to_ir_label.py with the same --infer_list")
    steps_per_epoch = lists.steps_per_epoch(ids, settings.batch_size, "--irn_batch_size")
    order = Order(len(ids), settings.batch_size, total_steps=steps_per_epoch * settings.epochs, seed=flags[Run].seed,
                  share=distributed.share(settings.batch_size, passes))

    backbone = flags[BackboneChoice].backbone
    model = IRN(build_backbone(backbone))
    require_radius(settings.radius, crop, model.stride)
    if not network.initialise_backbone(model.backbone, backbone, flags[Weights].weights):
        log.warning("--weights none: IRN does not train its backbone, so it learns edges from random features")
    device.lay_out(model, hardware.channels_last, hardware.compile)
    model.to(compute.device).train()
    optimizer, scheduler = engine.poly_sgd(
        model.parameter_groups(settings.lr, settings.lr * settings.lr_displacement_factor), order.total_steps,
        settings.momentum, settings.weight_decay)
    crops = LabelledCrops(ids, data_set.image_path, label_of, num_classes=data_set.num_classes, crop=crop,
                          scale=(settings.scale_low, settings.scale_high), flip=settings.flip, seed=order.seed)
    loader = partial(train_loader, crops, num_workers=flags[Run].num_workers, pin_memory=compute.device.type == "cuda")
    training = engine.Training(
        model, optimizer, scheduler, partial(losses, model, PathIndex(settings.radius), compute),
        loader=partial(loader, order), total_steps=order.total_steps, batch_size=order.batch_size, accumulate=passes,
        epoch_steps=steps_per_epoch, scaler=compute.scaler)
    result = engine.fit(training, work_dir, NAME)
    epoch = progress(loader(order._replace(total_steps=steps_per_epoch)), desc="mean displacement", unit="step")
    set_mean_displacement(model, epoch, steps_per_epoch, order.batch_size, compute)
    engine.save_model(work_dir / "irn.pth", model, backbone=backbone)
    return result


def require_radius(radius: int, crop: int, stride: int) -> None:
    """Raise InputError unless pixel pairs of this reach fit into the crops."""
    cells = crop // stride
    if not 2 <= radius <= (cells + 1) // 2:
        raise InputError(f"--irn_radius {radius}: needs 2 to {(cells + 1) // 2}, as crops of {crop} pixels have "
                         f"{cells} x {cells} cells; change it or --irn_crop_size")


def losses(model: IRN, path_index: PathIndex, compute: device.Compute, batch, _) -> dict[str, torch.Tensor]:
    images, boxes, labels = (part.to(compute.device, non_blocking=True) for part in batch)
    with compute.precision:
        edge, displacement = model(model.backbone.prepare(images, boxes))
    terms = irn_loss(edge.float(), displacement.float(), labels, path_index, distributed.count)
    return {"total": terms.pop("loss_total"), **terms}


@torch.no_grad()
def set_mean_displacement(model: IRN, loader, steps: int, batch_size: int, compute: device.Compute) -> None:
    """Mean displacement over an epoch of training crops; IRN subtracts it at inference.

    steps, batch_size  of the epoch, over all processes
    """
    total = torch.zeros(2, device=compute.device)
    for images, boxes, _ in loader:
        pixels = model.backbone.prepare(upload(images, compute.device), upload(boxes, compute.device))
        with compute.precision:
            displacement = model.displacement(pixels)
        total += displacement.float().mean((0, 2, 3)) * (len(images) / batch_size)
    model.mean_shift.running_mean.copy_(distributed.total(total) / steps)


if __name__ == "__main__":
    run_alone(sys.modules[__name__])
