"""Cut a small data set from VOC: some classes, some images, a smaller size; experiments take minutes instead of days.

    python -m voc12.subset --voc12_root VOCdevkit/VOC2012 --out voc5 --classes cat,cow,dog,horse,sheep --long_side 320
    python run_sample.py --voc12_root voc5 --preset lite

    OUT/subset.json                      how it is made
    OUT/JPEGImages/ID.jpg                images of the lists that show one of the classes
    OUT/Annotations/ID.xml               which of them, without boxes
    OUT/SegmentationClass/ID.png         masks of the images that are scored; other classes are 255 there, ignored
    OUT/ImageSets/Segmentation/*.txt     train_aug to train on and to label, train to score, val for the networks
    OUT/classes.txt                      the classes

It may be interrupted: files that are there are kept.
"""

import argparse
import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))    # the repository, when run as a script

from data.sample import IGNORE, InputError, read_image, read_list, write_atomically, write_mask, write_text
from runtime.command import default_workers, exit_with_message, flag, name_list, positive_int
from runtime.parallel import map_images
from voc12.voc import Voc12

FOLDERS = ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation")
QUALITY = 90                               # of JPEG: some 25 KB for an image of 320 pixels


class Subset(NamedTuple):
    """What is cut, and where to.

    class_names  those that are kept, in their new order
    long_side    pixels that the longer side of an image has at most; None: any number
    """
    source: Voc12
    out: Path
    class_names: list[str]
    long_side: int | None

    def classes_shown(self, ids: list[str]) -> dict[str, list[str]]:
        """Id -> kept classes in the image, for the images with any. Raises InputError as Voc12.image_labels."""
        columns = [self.source.class_names.index(label) for label in self.class_names]
        return {name: [self.class_names[k] for k in row.nonzero()[0]]
                for name, row in zip(ids, self.source.image_labels(ids)[:, columns]) if row.any()}

    def write_image(self, image: tuple[str, list[str]]) -> None:
        """(id, classes) -> JPEGImages/ID.jpg, the file itself where it fits, and Annotations/ID.xml.

        Raises InputError for an image that cannot be read.
        """
        name, classes = image
        path, copy = self.source.image_path(name), self.out / "JPEGImages" / f"{name}.jpg"
        if not copy.exists():
            pixels = Image.fromarray(read_image(path))
            small = pixels.resize(self._size(pixels.size), Image.Resampling.LANCZOS)
            write_atomically(copy, lambda file: file.write(path.read_bytes()) if small.size == pixels.size
                             else small.save(file, "JPEG", quality=QUALITY))
        annotation = ET.Element("annotation")
        for label in classes:
            ET.SubElement(ET.SubElement(annotation, "object"), "name").text = label
        write_text(self.out / "Annotations" / f"{name}.xml", ET.tostring(annotation, encoding="unicode"))

    def write_mask(self, name: str) -> None:
        """SegmentationClass/ID.png, with the new indices. Raises InputError for a mask that cannot be read."""
        copy = self.out / "SegmentationClass" / f"{name}.png"
        if copy.exists():
            return
        new_index = np.full(256, IGNORE, np.uint8)
        new_index[0] = 0
        for index, label in enumerate(self.class_names, start=1):
            new_index[1 + self.source.class_names.index(label)] = index
        mask = Image.fromarray(new_index[self.source.read_mask(name)])
        write_mask(copy, np.asarray(mask.resize(self._size(mask.size), Image.Resampling.NEAREST)))

    def _size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(W, H) -> (W, H)."""
        factor = min(1, (self.long_side or max(size)) / max(size))
        return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def cut(subset: Subset, lists: dict[str, list[str]], num_workers: int) -> None:
    """Write the data set.

    lists  split -> ids of the source; all but those of train_aug need masks
    Raises InputError for bad input, before anything is written if it can.
    """
    shown = {split: subset.classes_shown(ids) for split, ids in lists.items()}
    for split, images in shown.items():
        if not images:
            raise InputError(f"no image of {split} shows {' or '.join(subset.class_names)}; choose other --classes, or "
                             "other lists")
    claim(subset, lists)
    images = {name: classes for part in shown.values() for name, classes in part.items()}
    masks = list(dict.fromkeys(name for split, part in shown.items() if split != "train_aug" for name in part))
    for function, jobs, what in ((subset.write_image, list(images.items()), "images"),
                                 (subset.write_mask, masks, "masks")):
        for _ in map_images(function, jobs, num_workers, what):
            pass
    write_text(subset.out / "classes.txt", "".join(f"{label}\n" for label in subset.class_names))
    for split, part in shown.items():
        write_text(subset.out / "ImageSets" / "Segmentation" / f"{split}.txt", "".join(f"{name}\n" for name in part))
    say_counts(subset, shown)


def claim(subset: Subset, lists: dict[str, list[str]]) -> None:
    """Make the folders. Raises InputError for a folder that holds anything but this very data set, or part of it."""
    record = subset.out / "subset.json"
    recipe = json.dumps({"classes": subset.class_names, "long_side": subset.long_side, "lists": lists}, indent=1)
    mine = record.exists() and record.read_text(encoding="utf-8", errors="replace") == recipe
    if not mine and any((subset.out / folder).exists() for folder in FOLDERS):
        raise InputError(f"{subset.out}: holds other images, or a subset made with other settings; choose another "
                         "--out, or delete it")
    for folder in FOLDERS:
        (subset.out / folder).mkdir(parents=True, exist_ok=True)
    write_text(record, recipe)


def say_counts(subset: Subset, shown: dict[str, dict[str, list[str]]]) -> None:
    """Print how many images each list has, and how many of them show each class."""
    print(f"{'':16}" + "".join(f"{split:>10}" for split in shown))
    print(f"{'images':16}" + "".join(f"{len(images):10,}" for images in shown.values()))
    for label in subset.class_names:
        print(f"{label:16}" + "".join(f"{sum(label in classes for classes in images.values()):10,}"
                                      for images in shown.values()))
    print(f"ready: --voc12_root {subset.out}")


def chosen_lists(source: Voc12, given: dict[str, Path | None]) -> dict[str, list[str]]:
    """Split -> ids of the list that is given for it, else of the source. Raises InputError when a list is missing."""
    return {split: read_list(path) if path else source.split(split)[0] for split, path in given.items()}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--voc12_root", type=Path, required=True, default=argparse.SUPPRESS, metavar="DIR",
                        help="VOC, as voc12.prepare makes it")
    parser.add_argument("--out", type=Path, required=True, default=argparse.SUPPRESS, metavar="DIR",
                        help="folder to write")
    parser.add_argument("--classes", type=name_list, help="comma-separated names, in their new order; default: all")
    parser.add_argument("--long_side", type=positive_int, help="pixels that the longer side of an image may have; "
                        "larger ones are shrunk; default: as they are")
    parser.add_argument("--train_list", type=Path, metavar="FILE", help="ids to train on; default: train_aug")
    parser.add_argument("--score_list", type=Path, metavar="FILE", help="ids to score; default: train")
    flag(parser, "val", False, "the images of val too, for the segmentation network")
    parser.add_argument("--num_workers", type=positive_int, default=default_workers(), help="processes")
    args = parser.parse_args(argv)

    def write() -> None:
        source = Voc12(args.voc12_root)
        names = args.classes or list(source.class_names)
        if len(set(names)) < len(names) or not set(names) <= set(source.class_names):
            raise InputError(f"--classes {','.join(names)}: needs names out of {', '.join(source.class_names)}, each "
                             "once")
        given = {"train_aug": args.train_list, "train": args.score_list} | ({"val": None} if args.val else {})
        cut(Subset(source, args.out, names, args.long_side), chosen_lists(source, given), args.num_workers)

    exit_with_message(write, "--out")


if __name__ == "__main__":
    main()
