"""Settings of stages 8 and 9: segmentation network, its training, prediction and scores.

A setting of default None stands for the network's own value: OWN_TRAINING and OWN_TEST hold the recipes of
deeplab-pytorch and of SEAM's second stage.
"""

import argparse
from dataclasses import dataclass, replace

from frame.flags import Group, option
from net.deeplabv2 import RESNET101_BLOCKS
from refine.crf import CRF
from runtime.command import non_negative, number_list, path, positive, positive_int
from voc12.submission import COMPETITIONS

SEG_NETS = ("deeplabv2_resnet101", "deeplabv1_resnet38")

OWN_TRAINING = {
    "deeplabv2_resnet101": {
        "batch_size": 10, "crop_size": 321, "scales": (0.5, 0.75, 1.0, 1.25, 1.5),
        "scale_draw": "list", "colour_jitter": 0.0, "lr": 2.5e-4, "lr_every": 10},
    "deeplabv1_resnet38": {
        "batch_size": 10, "crop_size": 448, "scales": (0.5, 1.5),
        "scale_draw": "uniform", "colour_jitter": 10.0, "lr": 1e-3, "lr_every": 1},
}
OWN_PASSES = {"deeplabv2_resnet101": 2, "deeplabv1_resnet38": 1}            # of --grad_accum
OWN_TEST = {
    "deeplabv2_resnet101": {
        "test_scales": (1.0, 0.5, 0.75), "test_flip": False, "crf_iterations": 10,
        "crf_gaussian_sxy": 1.0, "crf_gaussian_compat": 3.0,
        "crf_bilateral_sxy": 67.0, "crf_bilateral_srgb": 3.0, "crf_bilateral_compat": 4.0, "crf_image": "wrapped"},
    "deeplabv1_resnet38": {
        "test_scales": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75), "test_flip": True, "crf_iterations": 1,
        "crf_gaussian_sxy": 3.0, "crf_gaussian_compat": 3.0,
        "crf_bilateral_sxy": 32.0, "crf_bilateral_srgb": 13.0, "crf_bilateral_compat": 10.0, "crf_image": "true"},
}


def block_counts(text: str) -> tuple[int, ...]:
    blocks = tuple(positive_int(part) for part in text.split(","))
    if len(blocks) != 4:
        raise argparse.ArgumentTypeError(f"{text}: needs four numbers, one a layer")
    return blocks


def own(values: dict[str, dict], name: str, help: str, type=None, **kind):
    """An option of default None, which stands for the network's own value in `values`."""
    said = " / ".join(str(values[net][name]) for net in SEG_NETS)
    return option(None, f"{help}; None means {said} for {' / '.join(SEG_NETS)}", type, **kind)


def with_own_values(group, values: dict):
    """The group, what is None replaced by the network's own value."""
    return replace(group, **{name: value for name, value in values.items() if getattr(group, name) is None})


@dataclass(frozen=True)
class SegNetwork(Group, title="segmentation network", prefix="seg_"):
    net: str = option(SEG_NETS[0], "segmentation network", choices=SEG_NETS)
    init: str = option("imagenet", "initial weights: imagenet (torchvision's ResNet-101), none, or a file (ours, names "
                       "of torchvision or deeplab-pytorch, SEAM's ResNet38 as a state dict); the order of colours and "
                       "the mean of the images follow from it", path)
    width: int = option(64, "channels of the first convolution", positive_int)
    blocks: tuple[int, ...] = option(RESNET101_BLOCKS, "bottlenecks of the four layers of deeplabv2_resnet101",
                                     block_counts)


@dataclass(frozen=True)
class SegLabels(Group, title="masks to train on"):
    label_dir: str | None = option(None, "folder of masks ID.png to train on, such as SegmentationClassAug; default "
                                   "sem_seg of the work directory", path)
    balanced_ce: bool = option(False, "mean of the cross-entropies of background and foreground pixels")


@dataclass(frozen=True)
class SegTraining(Group, title="training of the segmentation network", prefix="seg_"):
    iterations: int = option(20000, "optimiser steps (coco14: 100000)", positive_int)
    batch_size: int | None = own(OWN_TRAINING, "batch_size", "images of a step, computed in --grad_accum passes",
                                 positive_int)
    crop_size: int | None = own(OWN_TRAINING, "crop_size", "side of the training crops in pixels", positive_int)
    scales: tuple[float, ...] | None = own(OWN_TRAINING, "scales", "random scales of the images", number_list)
    scale_draw: str | None = own(OWN_TRAINING, "scale_draw", "one of --seg_scales, or any scale between the smallest "
                                 "and the largest", choices=("list", "uniform"))
    colour_jitter: float | None = own(OWN_TRAINING, "colour_jitter", "largest random shift of hue (of 180), saturation "
                                      "and value (of 255)", non_negative)
    flip: bool = option(True, "random horizontal flip")
    loss_scales: tuple[float, ...] = option((0.5, 0.75), "deeplabv2_resnet101: scales with a loss of their own, "
                                            "besides 1 and the maximum of all", number_list)
    lr: float | None = own(OWN_TRAINING, "lr", "learning rate of the backbone", non_negative)
    lr_head_factor: float = option(10.0, "times --seg_lr: rate of the classifier's weights; its biases learn at twice "
                                   "that", non_negative)
    lr_power: float = option(0.9, "exponent of the poly schedule", non_negative)
    lr_every: int | None = own(OWN_TRAINING, "lr_every", "steps from one update of the learning rate to the next",
                               positive_int)
    momentum: float = option(0.9, "of SGD", non_negative)
    weight_decay: float = option(5e-4, "of SGD, except for biases", non_negative)

    @property
    def scale_range(self) -> tuple[float, ...]:
        """The scales that LabelledCrops draws from."""
        assert self.scales is not None, "the network's own values are filled in first"
        return self.scales if self.scale_draw == "list" else (min(self.scales), max(self.scales))


@dataclass(frozen=True)
class SegEvalList(Group, title="images to predict"):
    seg_eval_list: str | None = option(None, "list of ids to predict and score, with masks; default val of the data "
                                       "set", changes_result=False)


@dataclass(frozen=True)
class SegTest(Group, title="prediction and scores", prefix="seg_"):
    test_scales: tuple[float, ...] | None = own(
        OWN_TEST, "test_scales", "scales of the image; deeplabv2_resnet101 takes the maximum of the logits of these "
        "and 1, deeplabv1_resnet38 the mean of the probabilities", number_list)
    test_flip: bool | None = own(OWN_TEST, "test_flip", "average with the mirrored image")
    crf: bool = option(True, "refine the predictions with a dense CRF too")
    crf_iterations: int | None = own(OWN_TEST, "crf_iterations", "mean-field iterations", positive_int)
    crf_gaussian_sxy: float | None = own(OWN_TEST, "crf_gaussian_sxy", "Gaussian term: pixels", positive)
    crf_gaussian_compat: float | None = own(OWN_TEST, "crf_gaussian_compat", "Gaussian term: weight", non_negative)
    crf_bilateral_sxy: float | None = own(OWN_TEST, "crf_bilateral_sxy", "bilateral term: pixels", positive)
    crf_bilateral_srgb: float | None = own(OWN_TEST, "crf_bilateral_srgb", "bilateral term: grey levels", positive)
    crf_bilateral_compat: float | None = own(OWN_TEST, "crf_bilateral_compat", "bilateral term: weight", non_negative)
    crf_image: str | None = own(OWN_TEST, "crf_image", "what the CRF sees: the true image, or what deeplab-pytorch "
                                "gives it: BGR minus the mean as bytes, which wrap around", choices=("true", "wrapped"))

    @property
    def dense_crf(self) -> CRF | None:
        """The CRF of the predictions, once its values are the network's; None without one."""
        if not self.crf:
            return None
        return CRF(**{name: getattr(self, f"crf_{name}") for name in CRF._fields if name != "gt_prob"})


@dataclass(frozen=True)
class ServerArchive(Group, title="archive for the VOC server"):
    split: str | None = option(None, "predict this split, which has no masks, for the server", choices=("test",))
    zip: str | None = option(None, "archive for the VOC evaluation server, written with --split test")
    competition: str = option("comp6", "comp5: trained on VOC alone; comp6: on other data too, such as ImageNet",
                              choices=COMPETITIONS)
