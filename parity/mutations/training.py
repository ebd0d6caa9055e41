"""Wrongs of samples, image bank, optimiser and segmentation networks."""

import math
from dataclasses import replace

import numpy as np
import torch

import net.deeplabv2
from data.image_bank import ImageBank
from data.loader import DeepLabCrops, LabelledCrops, TrainCrops
from data.transforms import cut, cut_size, rescale, resize, resize_float, wrapped_bgr
from frame import engine
from net.deeplabv2 import DeepLabV2, MultiScale, class_probabilities, multi_scale_loss
from net.inputs import CAFFE_BGR_MEAN, ImageInput
from net.labels import downsample_label
from parity.mutations.patch import changed, corners, replaced, then
from parity.mutations.pseudo_labels import interpolated, plus, times, with_crf
from parity.mutations.run import Check, Wrong
from parity.optimizer import check_optimizer
from parity.samples import check_augment, check_image_bank, check_irn_crops, check_port_crops
from parity.segmentation import check_crf, check_steps
from parity.sfc import check_sfc_trace

CROPS = Check("augment", check_augment)
IRN_CROPS = Check("irn_labels", check_irn_crops)
PORT_CROPS = Check("deeplab_steps", check_port_crops)
BANK = Check("image_bank", check_image_bank)
OPTIMIZER = Check("optimizer", check_optimizer)
TRACE = Check("sfc_train", check_sfc_trace)
STEPS = Check("deeplab_steps", check_steps)
PORT_CRF = Check("deeplab_steps", check_crf)
BILINEAR = 2  # of Pillow


def other_side(placement: tuple[int, ...], crop: int) -> tuple[int, ...]:
    """The same patch, on the other side of the crop's padding."""
    y0, x0, top, left, h, w = placement
    return y0, x0, crop - h - top, crop - w - left, h, w


def padded_on_the_other_side(original):
    return lambda image, placement, crop, fill=0: original(image, other_side(placement, crop), crop, fill)


def flipped_first(original):
    """DeepLabCrops.augment that flips the whole image, and crops after that."""

    def augment(self, image, label, rng):
        if rng.random() < 0.5:
            image, label = image[:, ::-1], label[:, ::-1]
        self.flip = False
        return original(self, image, label, rng)

    return augment


def flipped_last(original):
    """TrainCrops.augment that flips the crop."""

    def augment(self, image, rng):
        self.flip = False
        pixels, box = original(self, image, rng)
        mirrored = torch.stack([box[0], box[1], self.crop - box[3], self.crop - box[2]])
        return (pixels.flip(2), mirrored) if rng.random() < 0.5 else (pixels, box)

    return augment


def rounded_size(_):
    return lambda size, scale: tuple(max(1, round(scale * side)) for side in size)


def rounded_half_up(_):
    def rescale(image, scale):
        return resize(image, tuple(int(side * scale + 0.5) for side in image.shape[:2]))

    return rescale


def bytes_first(original):
    return lambda image, size: np.rint(original(image, size)).astype(np.uint8).astype(np.float32)


def first_of_batch(original):
    """ImageBank.update that keeps the first image of a batch."""
    return lambda self, *batch: original(self, *(part.flip(0) for part in batch))


def one_slot_an_image(labels: torch.Tensor) -> torch.Tensor:
    first = torch.cummax(labels.long(), dim=1).values.diff(
        dim=1, prepend=torch.zeros(len(labels), 1, dtype=torch.int64)
    )
    return first.to(labels.dtype)


def exchanged_rates(groups: list[dict]) -> list[dict]:
    rates = [group["lr"] for group in groups]
    return [group | {"lr": rate} for group, rate in zip(groups, rates[::-1])]


def one_step_ahead(made):
    """poly_sgd whose schedule is a step ahead."""
    optimizer, scheduler = made
    optimizer.step()
    scheduler.step()
    return optimizer, scheduler


def unclipped(training: engine.Training) -> engine.Training:
    return replace(training, clip_norm=math.inf)


def summed(original):
    """engine's backward pass that adds the passes of a step up instead of averaging them."""

    def backward(training, *rest):
        losses = original(training, *rest)
        for p in training.model.parameters():
            if p.grad is not None:
                p.grad *= training.accumulate
        return losses

    return backward


def decayed_biases(groups: list[dict]) -> list[dict]:
    return [group | {"weight_decay": groups[0]["weight_decay"]} for group in groups]


def same_rate_biases(groups: list[dict]) -> list[dict]:
    return [*groups[:2], groups[2] | {"lr": groups[1]["lr"]}]


def clipped_bgr(_):
    return lambda image, mean: (image[..., ::-1] - np.array(mean)).clip(0, 255).astype(np.uint8)


SAMPLES = [
    Wrong("crop padded on the other side", replaced(cut, padded_on_the_other_side), (CROPS,)),
    Wrong("crop: resized bilinearly", changed(resize, resample=BILINEAR), (CROPS,)),
    Wrong("crop: flip left out", changed(TrainCrops.__init__, flip=False), (CROPS,)),
    Wrong("crop: flipped after cutting", replaced(TrainCrops.augment, flipped_last), (CROPS,)),
    Wrong("crop: sizes rounded half up", replaced(rescale, rounded_half_up), (CROPS,)),
    Wrong("crop: padding normalised", changed(ImageInput.forward, box=None), (CROPS,)),
    Wrong(
        "crop: normalised as Caffe's weights need it",
        changed(ImageInput.__init__, mean=CAFFE_BGR_MEAN, std=None),
        (CROPS,),
    ),
    Wrong("IRN crop: image and label resized bilinearly", changed(resize, resample=BILINEAR), (IRN_CROPS,)),
    Wrong("IRN crop: flip left out", changed(LabelledCrops.__init__, flip=False), (IRN_CROPS,)),
    Wrong("IRN crop: padding is background", changed(cut, fill=0), (IRN_CROPS,)),
    Wrong("DeepLab crop: rounded to bytes", replaced(resize_float, bytes_first), (PORT_CROPS,)),
    Wrong("DeepLab crop: resized by Pillow", replaced(resize_float, lambda _: resize), (PORT_CROPS,)),
    Wrong("DeepLab crop: sizes rounded", replaced(cut_size, rounded_size), (PORT_CROPS,)),
    Wrong("DeepLab crop: padded at the top and the left", replaced(cut, padded_on_the_other_side), (PORT_CROPS,)),
    Wrong("DeepLab crop: flipped before cutting", replaced(DeepLabCrops.augment, flipped_first), (PORT_CROPS,)),
    Wrong("bank keeps the first image of a batch", replaced(ImageBank.update, first_of_batch), (BANK,)),
    Wrong("bank: one slot an image", changed(ImageBank.update, labels=one_slot_an_image), (BANK,)),
    Wrong("bank: boxes of other images", changed(ImageBank.update, boxes=lambda boxes: boxes.roll(1, 0)), (BANK,)),
]

OPTIMISER = [
    *(
        Wrong(f"SGD: momentum {value:g}", changed(engine.poly_sgd, momentum=value), (OPTIMIZER,))
        for value in (0.0, 0.9)
    ),
    *(
        Wrong(f"SGD: weight decay x {factor}", changed(engine.poly_sgd, weight_decay=times(factor)), (OPTIMIZER,))
        for factor in (0, 5)
    ),
    Wrong("SGD: linear schedule", changed(engine.poly_sgd, power=1.0), (OPTIMIZER,)),
    Wrong("SGD: no schedule", changed(engine.poly_sgd, power=0.0), (OPTIMIZER,)),
    Wrong("SGD: rates of the groups exchanged", changed(engine.poly_sgd, groups=exchanged_rates), (OPTIMIZER,)),
    Wrong("SGD: schedule a step ahead", then(engine.poly_sgd, one_step_ahead), (OPTIMIZER,)),
    Wrong("gradients not clipped", changed(engine.train_step, training=unclipped), (TRACE,)),
]

SEGMENTATION = [
    Wrong(
        "DeepLabV2: weight decay 0",
        changed(engine.poly_sgd, groups=lambda groups: [group | {"weight_decay": 0.0} for group in groups]),
        (STEPS,),
    ),
    Wrong("DeepLabV2: biases decay", then(DeepLabV2.parameter_groups, decayed_biases), (STEPS,)),
    Wrong("DeepLabV2: biases at 10 x", then(DeepLabV2.parameter_groups, same_rate_biases), (STEPS,)),
    Wrong("DeepLabV2: momentum 0", changed(engine.poly_sgd, momentum=0.0), (STEPS,)),
    Wrong("DeepLabV2: rates every step", changed(engine.poly_sgd, every=1), (STEPS,)),
    Wrong("DeepLabV2: passes summed", replaced(engine._backward, summed), (STEPS,)),
    Wrong("DeepLabV2: BatchNorm trained", changed(DeepLabV2.__init__, frozen_batchnorm=False), (STEPS,)),
    Wrong("DeepLabV2: scale 0.75 left out", changed(MultiScale.__init__, scales=(0.5,)), (STEPS,)),
    Wrong(
        "DeepLabV2: images resized with corners aligned",
        corners(net.deeplabv2, lambda o: "scale_factor" in o),
        (STEPS,),
    ),
    Wrong("DeepLabV2: labels sampled at the corner of a cell", replaced(downsample_label, interpolated), (STEPS,)),
    Wrong("DeepLabV2: balanced cross-entropy", changed(multi_scale_loss, balanced=True), (STEPS,)),
    Wrong("DeepLabV2's CRF: true image", replaced(wrapped_bgr, lambda _: lambda image, mean: image), (PORT_CRF,)),
    Wrong("DeepLabV2's CRF: image clipped", replaced(wrapped_bgr, clipped_bgr), (PORT_CRF,)),
    Wrong(
        "DeepLabV2's CRF: logits with corners aligned", changed(class_probabilities, align_corners=True), (PORT_CRF,)
    ),
    Wrong("DeepLabV2's CRF: an iteration less", with_crf(iterations=plus(-1)), (PORT_CRF,)),
    *(
        Wrong(f"DeepLabV2's CRF: {name} x {factor:.2g}", with_crf(**{name: times(factor)}), (PORT_CRF,))
        for name, factor in (
            ("gaussian_compat", 1.7),
            ("bilateral_sxy", 1.2),
            ("bilateral_srgb", 4 / 3),
            ("bilateral_compat", 1.5),
        )
    ),
]

WRONGS = SAMPLES + OPTIMISER + SEGMENTATION
