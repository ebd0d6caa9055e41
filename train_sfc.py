"""Stage 1: train the classifier with PCM, prototype CAM, image bank and MSDW loss.

    python train_sfc.py --voc12_root VOCdevkit/VOC2012 --work_dir runs/sfc
    python train_sfc.py --voc12_root ... --no-ibr --dw_p_weight 0 --dw_w_weight 0     # "Base" of Table 4
    python train_sfc.py --voc12_root ... --keep_best          # as the release; chooses with pixel labels
"""

import sys
from functools import partial

import numpy as np
import torch

from data.image_bank import ImageBank
from data.loader import Order, TrainCrops, train_loader, upload
from frame import engine, lists, network
from frame.flags import Flags
from frame.seed_health import SeedWatch, seed_health
from frame.selection import BestCheckpoint, final_cam_miou
from frame.settings.cams import Calibration, Network, Selection, SfcTraining
from frame.settings.common import BackboneChoice, Data, Hardware, Memory, Run, TrainList, Weights
from frame.stage import run_alone
from net.msdw import MSDWLoss, bank_samples, distribution_coefficient
from net.sfc import SFCNet, valid_mask
from report.pictures import cam_sheet
from runtime import device, distributed
from runtime.work_dir import log

NAME = "train_sfc"
OUTPUTS = ("sfc.pth", "sfc_best.pth")
OPTIONS = (Run, Hardware, Memory, Data, TrainList, BackboneChoice, Weights, Network, SfcTraining, Selection,
           Calibration)
select_ids = lists.train_ids


def run(flags: Flags, work_dir, data_set, ids: list[str]) -> dict:
    """Train and write sfc.pth. Returns losses, speed, class counts n_c and DC_c."""
    settings, calibration, passes, seed = flags[SfcTraining], flags[Calibration], flags[Memory].passes, flags[Run].seed
    compute = device.prepare(flags[Run].device, flags[Hardware].amp)
    steps_per_epoch = lists.steps_per_epoch(ids, settings.batch_size, "--sfc_batch_size")
    step_images = settings.batch_size + calibration.bank_images

    # Before all labels are read, so that a wrong file of weights is refused in seconds.
    model, frozen = build_model(flags, data_set.num_classes, compute.device)
    labels = data_set.image_labels(ids)
    counts = count_classes(labels, data_set.class_names)
    dc = coefficients(calibration, counts, labels, steps_per_epoch)
    bank = ImageBank(data_set.num_classes, settings.crop_size, compute.device, calibration.ibr_allow_empty)
    order = Order(len(ids), settings.batch_size, total_steps=steps_per_epoch * settings.epochs, seed=seed,
                  share=distributed.share(settings.batch_size, 1 if calibration.ibr else passes))
    optimizer, scheduler = engine.poly_sgd(
        model.parameter_groups(settings.lr, settings.lr * settings.lr_new_factor), order.total_steps,
        settings.momentum, settings.weight_decay)
    crops = TrainCrops(ids, labels, data_set.image_path, crop=settings.crop_size, resize_long=settings.resize_long,
                       flip=settings.flip, seed=seed)
    save = partial(engine.save_model, model=model, backbone=flags[BackboneChoice].backbone,
                   num_classes=data_set.num_classes, class_names=list(data_set.class_names))
    best = BestCheckpoint(partial(score_now, model, frozen, compute, data_set, ids, flags[Run].num_workers),
                          partial(save, work_dir / "sfc_best.pth"), flags[Selection].best_every, order.total_steps)
    computed = torch.from_numpy(distributed.share(step_images, passes)).to(compute.device)
    training = engine.Training(
        model, optimizer, scheduler, partial(losses, model, build_loss(calibration, dc).to(compute.device), compute),
        loader=lambda first: train_loader(crops, order, first, flags[Run].num_workers, compute.device.type == "cuda"),
        total_steps=order.total_steps, batch_size=step_images, clip_norm=settings.clip_norm,
        memory={"bank": bank, "best": best}, after_step=best.after_step if flags[Selection].keep_best else None,
        prepare=partial(images_of_step, bank if calibration.ibr else None, calibration.ibr_images, order, computed),
        on_log=partial(log_cams, model, frozen, some_crops(crops, order), compute.device),
        on_look=SeedWatch(flags[Network].seed_background).look, accumulate=passes, epoch_steps=steps_per_epoch,
        scaler=compute.scaler)
    result = engine.fit(training, work_dir, NAME)
    save(work_dir / "sfc.pth")
    if flags[Selection].keep_best:
        result |= {"best_step": best.step, "best_miou": best.miou}
    return result | {"class_counts": counts.tolist(), "distribution_coefficient": dc.tolist()}


def build_model(flags: Flags, num_classes: int, place: torch.device) -> tuple[SFCNet, bool]:
    """The network with its initial weights in training mode, and whether its BatchNorm is frozen."""
    backbone, hardware = flags[BackboneChoice].backbone, flags[Hardware]
    model = network.build_sfc(flags[Network], backbone, num_classes, flags[SfcTraining].train_stem)
    frozen = network.initialise(model, backbone, flags[Weights].weights)
    device.lay_out(model, hardware.channels_last, hardware.compile)
    network.set_training_mode(model.to(place), frozen)
    return model, frozen


def count_classes(labels: np.ndarray, class_names) -> torch.Tensor:
    """n_c of Eq. 6, (C,), from the training labels (N, C); warns of classes that no image shows."""
    counts = torch.from_numpy(labels).long().sum(0)
    log.info("images per class: %s", dict(zip(class_names, counts.tolist())))
    missing = [name for name, count in zip(class_names, counts) if count == 0]
    if missing:
        log.warning("no training image shows %s; nothing can be learnt of it", ", ".join(missing))
    return counts


def coefficients(calibration: Calibration, counts: torch.Tensor, labels: np.ndarray,
                 steps_per_epoch: int) -> torch.Tensor:
    """DC_c (Eq. 6) of the training list, (C,)."""
    classes_per_image = calibration.ibr_classes or float(labels.sum(1).mean())
    added = bank_samples(calibration.bank_images, classes_per_image, steps_per_epoch, len(counts))
    return distribution_coefficient(counts, added, calibration.dc_scale)


def build_loss(calibration: Calibration, dc: torch.Tensor) -> MSDWLoss:
    ones = torch.ones_like(dc)
    return MSDWLoss(dc if calibration.dc_p else ones, dc if calibration.dc_w else ones,
                    weight_p=calibration.dw_p_weight, weight_w=calibration.dw_w_weight,
                    reduction=calibration.dw_reduction, normalise_prototype=calibration.normalise_prototype,
                    cls_half=calibration.cls_half)


def images_of_step(bank: ImageBank | None, drawn: int, order: Order, computed: torch.Tensor, batch, step: int):
    """Images, boxes and labels that this process computes in a step, on the device.

    bank      every process sees the whole batch, so that all banks are the same and draw the same; None: no bank
    drawn     images that it adds
    computed  positions of this process in the batch and the images that were drawn
    """
    *pixels, present = batch
    place = computed.device
    images, boxes = (upload(part, place) for part in pixels)
    if bank is None:
        return images, boxes, upload(present, place)
    images, boxes, present = (distributed.gather_batch(part, order.batch_size) for part in (images, boxes, present))
    bank.update(images, boxes, present)
    added = bank.draw(drawn, torch.Generator().manual_seed(order.seed * 1_000_003 + step))
    return [torch.cat(pair)[computed] for pair in zip((images, boxes, upload(present, place)), added)]


def losses(model: SFCNet, criterion: MSDWLoss, compute: device.Compute, part, _) -> dict[str, torch.Tensor]:
    """Eq. 1, 5, 7 and 8 of some images, and how their seeds are."""
    images, boxes, present = part
    images = model.backbone.prepare(images, boxes)
    with compute.precision:
        outputs = model.forward_scales(images, boxes, present)
    weight_cam = outputs[0].weight_cam
    valid = valid_mask(boxes, present, weight_cam.shape[2:], model.backbone.stride)
    return criterion(*outputs, present)._asdict() | seed_health(weight_cam, model.seeds(weight_cam, valid), valid)


def score_now(model: SFCNet, frozen: bool, compute: device.Compute, data_set, ids: list[str],
              num_workers: int) -> float:
    """mIoU of the network's M_W + M_P with pixel labels; it is in training mode before and after."""
    model.eval()
    miou = final_cam_miou(model, compute, data_set, ids, num_workers)
    network.set_training_mode(model, frozen)
    return miou


def some_crops(crops: TrainCrops, order: Order) -> list[torch.Tensor]:
    """A few fixed crops for pictures: images, boxes, labels."""
    first = order._replace(total_steps=1, share=None)
    return [part[:4] for part in next(iter(train_loader(crops, first)))]


@torch.no_grad()
def log_cams(model: SFCNet, frozen: bool, crops: list[torch.Tensor], place: torch.device, writer, step: int) -> None:
    """CAM pictures of a few fixed crops for TensorBoard."""
    images, boxes, labels = (part.to(place) for part in crops)
    model.eval()
    output = model.forward(model.backbone.prepare(images, boxes), boxes, labels)      # --compile: no graph for 4 crops
    network.set_training_mode(model, frozen)
    for name, cam in (("weight_cam", output.weight_cam), ("prototype_cam", output.prototype_cam)):
        writer.add_image(name, cam_sheet(images.cpu(), cam.cpu(), labels.cpu()), step)


if __name__ == "__main__":
    run_alone(sys.modules[__name__])
