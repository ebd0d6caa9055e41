"""Checks of what the loaders give: crops from recorded draws, the image bank, IRN's labels.

The loaders themselves run; only their generator of random numbers is replaced by one that repeats what was drawn.
"""

import numpy as np
import torch

from data.image_bank import ImageBank
from data.loader import DeepLabCrops, LabelledCrops, TrainCrops
from data.transforms import random_resize_long
from net.inputs import ImageInput
from net.irn import PathIndex, affinity_labels, downsample_label
from net.sfc import valid_mask
from parity.irn import check_inference
from parity.networks import seeded_irn
from parity.report import Report
from parity.vectors import Vectors
from segmentation.network import Design, image_input

CROP = 1e-6                             # allowed on normalised crops, absolute and relative
PORT_CROP = 1e-3                        # on crops of deeplab-pytorch, of 255
PLACEMENT = ("y0", "x0", "top", "left")


class Replay:
    """Stands for np.random.Generator and gives recorded draws, in the order in which the loaders ask for them.

    integers  long side, placement; scale: of the image; flip: whether it is mirrored
    """

    def __init__(self, integers=(), scale: float = 1.0, flip: bool = False):
        self._integers = iter(integers)
        self._scale = scale
        self._flip = flip

    def integers(self, low: int, high: int | None = None) -> int:
        """The next recorded number; ValueError if it cannot come from [low, high), or [0, low)."""
        low, high = (0, low) if high is None else (low, high)
        drawn = next(self._integers)
        if not low <= drawn < high:
            raise ValueError(f"recorded draw {drawn} is not in [{low}, {high})")
        return drawn

    def uniform(self, low: float, high: float) -> float:
        return self._scale

    def choice(self, scales) -> float:
        return self._scale

    def random(self) -> float:
        return 0.0 if self._flip else 1.0


def numbers(vectors: Vectors, case: str, names: tuple[str, ...]) -> list:
    return [vectors.number(case + name) for name in names]


def check_augment(vectors: Vectors, report: Report) -> None:
    """Crops for the classifier."""
    cases = vectors.cases("valid_mask")
    report.equal("cases", len(cases), vectors["cases"])
    for case in cases:
        with report.attempt(f"{case}crop"):
            check_crop(case, vectors, report)
        vectors.ignore(f"{case}source", "says which loader drew; with the long side of the image and no flip, one "
                                        "checks both")


def check_crop(case: str, vectors: Vectors, report: Report) -> None:
    image, size = vectors[f"{case}image"], vectors.number(f"{case}crop_size")
    long_side, flip = numbers(vectors, case, ("resize_long", "flip"))
    resized = random_resize_long(image, long_side, long_side, Replay([long_side]))
    report.equal(f"{case}resized_size", resized.shape[:2], vectors[f"{case}resized_size"])

    loader = TrainCrops([], np.empty(0), None, crop=size, resize_long=(long_side, long_side), flip=True, seed=0)
    pixels, box = loader.augment(image, Replay([long_side, *numbers(vectors, case, PLACEMENT)], flip=flip))
    report.equal(f"{case}box", box, vectors[f"{case}box"])
    close_crop(f"{case}crop", pixels, box, vectors, report)
    shown = valid_mask(box[None], torch.zeros(1, 0), (size, size), stride=1)[0, 0]
    report.equal(f"{case}valid_mask", shown, vectors[f"{case}valid_mask"])


def close_crop(name: str, pixels: torch.Tensor, box: torch.Tensor, vectors: Vectors, report: Report) -> None:
    """Compare a crop as the network sees it, normalised and 0 outside of its box."""
    crop = ImageInput()(pixels[None], box[None])[0]
    report.close(name, crop, vectors[name], absolute=CROP, relative=CROP)


def check_image_bank(vectors: Vectors, report: Report) -> None:
    """Slots after each batch, and what is drawn from them; image -1 is a slot never filled."""
    bank = ImageBank(vectors["labels"].shape[2], vectors.number("crop"), torch.device("cpu"), allow_empty=True)
    batches = (vectors.tensor(name) for name in ("image_index", "boxes", "labels", "draws"))
    found = {name: [] for name in ("slot_image", "slot_box", "slot_label", "drawn_image", "drawn_box", "drawn_label")}
    for index, boxes, labels, draws in zip(*batches):
        bank.update(numbered_images(index, bank.images.shape[2]), boxes, labels)
        for kind, content in (("slot", bank.take(torch.arange(len(bank.filled)))), ("drawn", bank.take(draws))):
            found[f"{kind}_image"].append(image_numbers(content[0]))
            found[f"{kind}_box"].append(content[1].numpy())
            found[f"{kind}_label"].append(content[2].numpy())
    for name, values in found.items():
        report.equal(name, values, vectors[name])


def numbered_images(index: torch.Tensor, crop: int) -> torch.Tensor:
    """Images (N, 3, crop, crop) uint8 whose colours count their index + 1, so that an empty slot is number -1."""
    digits = torch.stack([(index + 1) // 256 ** i % 256 for i in range(3)], dim=1)
    return digits.to(torch.uint8)[:, :, None, None].expand(-1, -1, crop, crop)


def image_numbers(images: torch.Tensor) -> np.ndarray:
    digits = images[:, :, 0, 0].long()
    return (digits * torch.tensor([1, 256, 256 ** 2])).sum(1).numpy() - 1


def check_irn_labels(vectors: Vectors, report: Report) -> None:
    """Crops and pixel pairs that IRN trains on, and the edges of a large image."""
    check_irn_crops(vectors, report)
    check_inference(seeded_irn().eval(), vectors, report)


def check_irn_crops(vectors: Vectors, report: Report) -> None:
    path_index = PathIndex(vectors.number("radius"))
    report.equal("search_dst", path_index.destinations, vectors["search_dst"])
    for case in vectors.cases("ir_label"):
        with report.attempt(f"{case}label"):
            check_irn_crop(case, path_index, vectors, report)


def check_irn_crop(case: str, path_index: PathIndex, vectors: Vectors, report: Report) -> None:
    size, scale, flip = vectors.number("crop_size"), *numbers(vectors, case, ("scale", "flip"))
    loader = LabelledCrops([], None, None, num_classes=0, crop=size, scale=(scale, scale), flip=True, seed=0)
    draws = Replay(numbers(vectors, case, PLACEMENT), scale, flip)
    pixels, box, label = loader.augment(vectors[f"{case}image"], vectors[f"{case}ir_label"], draws)
    report.equal(f"{case}box", box, vectors[f"{case}box"])
    report.equal(f"{case}label", label, vectors[f"{case}label"])
    if f"{case}crop" in vectors:
        close_crop(f"{case}crop", pixels, box, vectors, report)
    small = downsample_label(label[None], vectors[f"{case}label_small"].shape)
    report.equal(f"{case}label_small", small[0], vectors[f"{case}label_small"])
    report.equal(f"{case}grid", path_index.source(small).shape[1:], vectors["grid"])
    for name, mask in zip(("bg_pos", "fg_pos", "neg"), affinity_labels(small, path_index)):
        report.equal(case + name, mask[0].flatten(1), vectors[case + name])


def check_port_crops(vectors: Vectors, report: Report) -> None:
    """Crops of deeplab-pytorch, cases `aug{i}` of deeplab_steps."""
    cases = vectors.cases("_crop_label")
    prepare = image_input(Design("deeplabv2_resnet101", num_classes=0, normalisation="bgr"))
    report.equal("augs", len(cases), vectors["augs"])
    for case in cases:
        with report.attempt(f"{case}_crop"):
            scale, flip, size = numbers(vectors, case, ("_scale", "_flip", "_crop_size"))
            loader = DeepLabCrops([], None, None, num_classes=0, crop=size, scale=(scale,), flip=True, seed=0,
                                  one_of_scales=True)
            draws = Replay(vectors[f"{case}_start"].tolist(), scale, flip)
            pixels, box, label = loader.augment(vectors[f"{case}_image"], vectors[f"{case}_label"], draws)
            crop = prepare(pixels[None], box[None])[0]
            report.close(f"{case}_crop", crop, vectors[f"{case}_crop"], absolute=PORT_CROP, relative=0)
            report.equal(f"{case}_crop_label", label, vectors[f"{case}_crop_label"])
