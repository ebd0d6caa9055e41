"""PASCAL VOC 2012 and data sets in its layout: paths, class names, lists and image-level labels.

    ROOT/JPEGImages/ID.jpg               images
    ROOT/Annotations/ID.xml              image-level labels (the classes of the objects)
    ROOT/SegmentationClass/ID.png        official masks, for scores
    ROOT/SegmentationClassAug/ID.png     masks of the augmented set (SBD)
    ROOT/ImageSets/Segmentation/*.txt    lists
    ROOT/SegmentationPart/ID.png         shared parts of the objects (the bundled data set alone)
    ROOT/classes.txt                     foreground class names, one a line; absent: the 20 of VOC
"""

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.sample import InputError, read_list, read_mask
from voc12.label_table import read_label_table

CLASS_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")


class Voc12:
    """A data set in VOC layout.

    root          the folder that holds JPEGImages
    label_source  "xml": image-level labels from Annotations; "masks": from the class indices of the masks; else the
                  path of a label table (voc12.label_table)
    Raises InputError when the folder is not in VOC layout.
    """

    test_server = True

    def __init__(self, root: str | Path, label_source: str = "xml"):
        self.root = Path(root)
        self.label_source = label_source
        if not (self.root / "JPEGImages").is_dir():
            raise InputError(f"{self.root}: no folder JPEGImages in it; --voc12_root must be the folder that holds "
                             "JPEGImages, such as VOCdevkit/VOC2012")
        self.class_names = self._read_class_names()

    def _read_class_names(self) -> tuple[str, ...]:
        path = self.root / "classes.txt"
        if not path.exists():
            return CLASS_NAMES
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: no class names that can be read ({error}); save it as UTF-8 text, one class a "
                             "line") from None
        names = tuple(filter(None, (line.strip() for line in lines)))
        if not 1 <= len(names) <= 254 or len(set(names)) < len(names) or "background" in map(str.lower, names):
            raise InputError(f"{path}: needs 1 to 254 different class names, one a line, without the background")
        return names

    @property
    def num_classes(self) -> int:
        """C, foreground classes."""
        return len(self.class_names)

    @property
    def benchmark(self) -> str | None:
        """Whose published numbers may stand beside scores on this set: VOC's, or nobody's."""
        return "voc12" if self.class_names == CLASS_NAMES else None

    def image_path(self, name: str) -> Path:
        return self.root / "JPEGImages" / f"{name}.jpg"

    def mask_path(self, name: str) -> Path:
        """The official mask where there is one, else that of the augmented set."""
        official = self.root / "SegmentationClass" / f"{name}.png"
        return official if official.exists() else self.root / "SegmentationClassAug" / f"{name}.png"

    def part_path(self, name: str) -> Path | None:
        """Mask of the parts of objects that classes share; None for data sets that do not know them."""
        folder = self.root / "SegmentationPart"
        return folder / f"{name}.png" if folder.is_dir() else None

    def read_mask(self, name: str, size: tuple[int, int] | None = None) -> np.ndarray:
        """(H, W) uint8 class indices of the ground truth; errors as data.sample.read_mask."""
        return read_mask(self.mask_path(name), self.num_classes, size)

    def list_path(self, split: str) -> Path:
        return self.root / "ImageSets" / "Segmentation" / f"{split}.txt"

    def split(self, split: str) -> tuple[list[str], str]:
        """Ids of "train", "val" or "train_aug", and a text that says where they come from.

        train_aug is train_aug.txt or trainaug.txt, else every mask of SegmentationClassAug but those of val,
        else train.
        """
        if split != "train_aug":
            return read_list(self.list_path(split)), f"{split} ({self.list_path(split)})"
        for file in ("train_aug", "trainaug"):
            if self.list_path(file).exists():
                return read_list(self.list_path(file)), f"train_aug ({self.list_path(file)})"
        masks = sorted(path.stem for path in (self.root / "SegmentationClassAug").glob("*.png"))
        if masks:
            held_out = set(read_list(self.list_path("val"))) if self.list_path("val").exists() else set()
            return [name for name in masks if name not in held_out], "train_aug (SegmentationClassAug without val)"
        ids, origin = self.split("train")
        return ids, f"{origin}, for want of an augmented list"

    def image_labels(self, ids: list[str]) -> np.ndarray:
        """(len(ids), C) uint8, 1 where the image shows the class.

        Raises InputError for files that are missing or damaged, unknown classes and images without any class.
        """
        read = self._label_reader()
        labels = np.zeros((len(ids), self.num_classes), np.uint8)
        for row, name in zip(labels, ids):
            row[read(name)] = 1
        return labels

    def _label_reader(self) -> Callable[[str], list[int]]:
        """What gives the classes of an image, as indices from 0."""
        if self.label_source == "xml":
            return self._labels_from_xml
        if self.label_source == "masks":
            return self._labels_from_mask
        table = read_label_table(self.label_source, self.class_names)
        unknown = [name for name in table if not self.image_path(name).exists()]
        if unknown:
            raise InputError(f"{self.label_source}: image {unknown[0]!r} is unknown, one of {len(unknown)}: there is "
                             f"no {self.image_path(unknown[0])}; correct the row or add the image")

        def look_up(name: str) -> list[int]:
            if not table.get(name):
                raise InputError(f"{self.label_source}: {'no label in the row of' if name in table else 'no row for'} "
                                 f"image {name!r}; an image without any class cannot be used, add its labels or take "
                                 "its id out of the list")
            return table[name]

        return look_up

    def _labels_from_xml(self, name: str) -> list[int]:
        path = self.root / "Annotations" / f"{name}.xml"
        try:
            objects = [element.text or "" for element in ET.parse(path).getroot().findall("object/name")]
        except FileNotFoundError:
            raise InputError(f"{path}: annotation is missing; restore it, or use --labels masks where the data set "
                             "has masks") from None
        except (ET.ParseError, OSError, ValueError) as error:
            raise InputError(f"{path}: damaged annotation ({error}); restore it or take its id out of the "
                             "list") from None
        unknown = sorted({name.strip() for name in objects} - set(self.class_names))
        if unknown:
            raise InputError(f"{path}: unknown class {unknown[0]!r}; correct the file, or list the class names of "
                             f"the data set in {self.root / 'classes.txt'}")
        if not objects:
            raise InputError(f"{path}: no object; an image without any class cannot be used, take its id out of "
                             "the list")
        return [self.class_names.index(name.strip()) for name in objects]

    def _labels_from_mask(self, name: str) -> list[int]:
        present = np.unique(self.read_mask(name))
        present = present[(present > 0) & (present <= self.num_classes)]
        if len(present) == 0:
            raise InputError(f"{self.mask_path(name)}: no foreground class; an image without any class cannot be used, "
                             "take its id out of the list")
        return (present - 1).tolist()
