"""What a data set must offer, and the kinds that --dataset names."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from coco14.coco import Coco14
from data.sample import InputError
from frame.settings.common import Data
from voc12.voc import Voc12


class DataSet(Protocol):
    """Images with image-level labels and, for scores, masks.

    class_names    foreground classes, in the order of their indices from 1
    benchmark      whose published numbers may stand beside scores on it ("voc12", "coco14"), or None for own data
    test_server    whether an evaluation server takes masks of a split "test"
    """
    root: Path
    class_names: tuple[str, ...]
    test_server: bool

    @property
    def num_classes(self) -> int: ...

    @property
    def benchmark(self) -> str | None: ...

    def image_path(self, name: str) -> Path: ...

    def mask_path(self, name: str) -> Path: ...

    def read_mask(self, name: str, size: tuple[int, int] | None = None) -> np.ndarray:
        """(H, W) uint8 class indices of the ground truth, 255 ignored."""

    def part_path(self, name: str) -> Path | None:
        """Mask of the parts of objects that classes share; None for data sets that do not know them."""

    def split(self, split: str) -> tuple[list[str], str]:
        """Ids of "train", "val" or "train_aug", and a text that says where they come from."""

    def image_labels(self, ids: list[str]) -> np.ndarray:
        """(len(ids), C) uint8, 1 where the image shows the class."""


class Kind(NamedTuple):
    """A kind of data set.

    open         the data set that the flags name; raises InputError when it cannot be used
    root_flags   flags that say where it lies
    defaults     settings whose default differs on it
    hours        of each stage on one GPU, and gigabytes of a run, before any run has finished: training at the
                 release's 20 images/s, the other stages by their operations relative to it. Rough, not measured
    """
    open: Callable[[Data], DataSet]
    root_flags: tuple[str, ...]
    defaults: Mapping[str, Any]
    hours: Mapping[str, float]
    gigabytes: float


def open_voc12(data: Data) -> Voc12:
    if not data.voc12_root:
        raise InputError("no data set given; --voc12_root must be the folder that holds JPEGImages, such as "
                         "VOCdevkit/VOC2012 (make sample runs the bundled one)")
    return Voc12(data.voc12_root, data.labels)


def open_coco14(data: Data) -> Coco14:
    if not data.coco_root or not data.coco_prepared:
        raise InputError("--dataset coco14 needs --coco_root (the folder that holds train2014) and --coco_prepared "
                         "(the --out of coco14/prepare.py)")
    return Coco14(data.coco_root, data.coco_prepared, data.coco_masks)


KINDS = {
    "voc12": Kind(
        open_voc12, ("voc12_root",), {},
        {"train_sfc": 1.1, "make_cam": 0.5, "eval_cam": 0.05, "cam_to_ir_label": 0.2, "train_irn": 0.5,
         "make_sem_seg_labels": 0.3, "eval_sem_seg": 0.01, "train_deeplab": 4.0, "eval_deeplab": 0.2}, 0.9),
    # The release leaves IRN out on COCO, and its COCO loader resizes and flips; deeplab-pytorch trains five times as
    # long on COCO-Stuff, which is a guess for this one.
    "coco14": Kind(
        open_coco14, ("coco_root", "coco_prepared"),
        {"with_irn": False, "sfc_resize_long": (320, 640), "sfc_flip": True, "seg_iterations": 100_000},
        {"train_sfc": 8.5, "make_cam": 4.0, "eval_cam": 0.4, "cam_to_ir_label": 1.5, "train_irn": 4.0,
         "make_sem_seg_labels": 2.0, "eval_sem_seg": 0.1, "train_deeplab": 20.0, "eval_deeplab": 5.0}, 3.0),
}


def open_data_set(data: Data) -> DataSet:
    """The data set the flags name. Raises InputError when none is named, or it cannot be used."""
    return KINDS[data.dataset].open(data)
