"""Masks, lists and image-level labels of MS COCO 2014 from its instance annotations, or labels from ready-made masks.

    python coco14/prepare.py --coco_root COCO --annotations COCO/annotations --out COCO/prepared
    python coco14/prepare.py --coco_root COCO --coco_masks MASKS --out COCO/prepared

The first reads instances_train2014.json and instances_val2014.json and writes

    OUT/SegmentationClass/train2014/NAME.png   class-index palette PNG in VOC style; NAME: image file name without .jpg
    OUT/ImageSets/train2014.txt                the images with at least one object
    OUT/labels_train2014.npz                   image-level labels (coco14.coco.write_labels)
    OUT/class_counts_train2014.json            images that show each class
    OUT/source_train2014.txt                   what these were made from

and the same for val2014. It may be interrupted: masks that are there are kept. The second takes the masks
MASKS/{train2014,val2014}/NAME.png (indices 0 to 80, 255 ignored) as they are and writes all but the masks.

Rules of the masks, those of the usual COCO-to-VOC conversion in weakly supervised segmentation:
- The class index is the rank of the category id among the categories of the JSON: 1 to 80 for COCO's 1 to 90 with gaps.
- Where objects overlap, the one of smaller `area` is on top; of equal areas, the one that the JSON lists first.
- Crowd regions (iscrowd, RLE) are objects of their class like any other.
- Every other pixel is background, 0. No pixel is 255, neither outlines nor crowds.
- A polygon without area (fewer than three points, or all on one line) and an annotation of an image that the JSON does
  not list are skipped and counted. All annotations that share an id are painted.
- A class is a label of an image if an annotation says so, even where smaller objects cover all of it.
"""

import argparse
import json
import os
import sys
import zlib
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))    # the repository, when run as a script

from coco14.annotations import (
    AnnotatedImage,
    Categories,
    labels_of_regions,
    paint_mask,
    read_annotations,
    read_categories,
    read_images,
)
from coco14.coco import CLASS_NAMES, FOLDERS, labels_path, require_folder, write_labels
from data.sample import IGNORE, InputError, read_mask, write_mask, write_text
from runtime.command import default_workers, exit_with_message, positive_int
from runtime.parallel import map_images

CATEGORY_IDS = tuple(sorted(set(range(1, 91)) - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}))    # of CLASS_NAMES


def write_image_mask(folder: Path, image: AnnotatedImage) -> None:
    write_mask(folder / f"{image.name}.png", paint_mask(image))


def labels_of_mask(folder: Path, num_classes: int, name: str) -> np.ndarray:
    """(C,) uint8, 1 where a pixel of the mask has the class."""
    present = np.bincount(read_mask(folder / f"{name}.png", num_classes).ravel(), minlength=IGNORE + 1) > 0
    return present[1:num_classes + 1].astype(np.uint8)


# --- one split ------------------------------------------------------------------------------------------------------

def prepare_from_annotations(coco_root: Path, annotations: Path, out: Path, split: str, num_workers: int) -> None:
    """Write everything of one split. Raises InputError for bad input and for an `out` with masks of another source."""
    path = annotations / f"instances_{split}.json"
    categories = read_categories(path)
    images = read_images(path)
    counts = read_annotations(path, images, categories)
    print(f"{split}: " + ", ".join(f"{number} {what.replace('_', ' ')}" for what, number in vars(counts).items()
                                   if number or what == "annotations"))
    with_objects = sorted((image for image in images.values() if image.regions), key=lambda image: image.name)
    print(f"{split}: {len(with_objects)} images with objects of {len(images)}")
    names = [image.name for image in with_objects]
    require_images(coco_root, split, names)

    folder = claim(out, split, f"{path.name}, {path.stat().st_size} bytes, checksum {checksum(path):08x}")
    there = set(os.listdir(folder))
    missing = [image for image in with_objects if f"{image.name}.png" not in there]
    for _ in map_images(partial(write_image_mask, folder), missing, num_workers, split):
        pass
    write_index(out, split, names, labels_of_regions(with_objects, len(categories.ids)), categories, "annotations")


def prepare_from_masks(coco_root: Path, masks: Path, out: Path, split: str, num_workers: int) -> None:
    """Write list, labels and counts of one split from its ready-made masks. Raises InputError for bad input."""
    folder = masks / split
    names = sorted(path.stem for path in folder.glob("*.png"))
    if not names:
        raise InputError(f"{folder}: no masks; --coco_masks must be the folder that holds train2014/NAME.png and "
                         "val2014/NAME.png, or name fewer --splits")
    claim(out, split, f"masks of {folder.resolve()}")
    rows = map_images(partial(labels_of_mask, folder, len(CLASS_NAMES)), names, num_workers, split)
    labels = np.stack(list(rows))
    shown = labels.any(axis=1)
    print(f"{split}: {shown.sum()} masks with objects of {len(names)}")
    names = np.array(names)[shown].tolist()
    require_images(coco_root, split, names)
    write_index(out, split, names, labels[shown], Categories(list(CATEGORY_IDS), list(CLASS_NAMES)), "masks")


def require_images(coco_root: Path, split: str, names: list[str]) -> None:
    """InputError unless COCO/SPLIT/NAME.jpg is there for every name; the files are not opened."""
    if not names:
        raise InputError(f"{split}: no image with objects; check the annotations or masks")
    folder = require_folder(coco_root, split)
    there = set(os.listdir(folder))
    missing = [name for name in names if f"{name}.jpg" not in there]
    if missing:
        raise InputError(f"{folder / missing[0]}.jpg: image file is missing, one of {len(missing)}; complete "
                         "the images, or take them out of the annotations")


def claim(out: Path, split: str, source: str) -> Path:
    """Make the folder of masks, note their source, give the folder. InputError if `out` holds another one's."""
    folder, path = out / "SegmentationClass" / split, out / f"source_{split}.txt"
    folder.mkdir(parents=True, exist_ok=True)
    found = path.read_text(encoding="utf-8").strip() if path.exists() else None
    if found != source and (found or any(folder.iterdir())):
        raise InputError(f"{out}: holds {split} of another source ({found or 'unknown'}; now {source}); "
                         "choose another --out, or delete what is there")
    write_text(path, f"{source}\n")
    return folder


def checksum(path: Path) -> int:
    """CRC-32 of a file."""
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc


def write_index(out: Path, split: str, names: list[str], labels: np.ndarray, categories: Categories,
                source: str) -> None:
    """Write list, labels and class counts of one split."""
    lists = out / "ImageSets"
    lists.mkdir(exist_ok=True)
    counts = dict(zip(categories.names, labels.sum(axis=0, dtype=int).tolist()))
    write_text(lists / f"{split}.txt", "\n".join(names) + "\n")
    write_text(out / f"class_counts_{split}.json", json.dumps(counts, indent=2, ensure_ascii=False) + "\n")
    write_labels(labels_path(out, split), names, labels, categories.names, categories.ids, source)


def split_list(text: str) -> list[str]:
    splits = text.split(",")
    if not set(splits) <= set(FOLDERS):
        raise argparse.ArgumentTypeError(f"{text}: needs {' or '.join(FOLDERS)}, or both with a comma")
    return splits


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--coco_root", type=Path, required=True, default=argparse.SUPPRESS,
                        help="folder that holds the images in train2014 and val2014")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--annotations", type=Path, default=argparse.SUPPRESS,
                        help="folder that holds instances_train2014.json and instances_val2014.json")
    source.add_argument("--coco_masks", type=Path, default=argparse.SUPPRESS,
                        help="folder that holds ready-made masks of 81 classes in train2014 and val2014")
    parser.add_argument("--out", type=Path, required=True, default=argparse.SUPPRESS, help="folder to write")
    parser.add_argument("--splits", type=split_list, default=",".join(FOLDERS), help="which of the two")
    parser.add_argument("--num_workers", type=positive_int, default=default_workers(), help="processes")
    args = parser.parse_args(argv)

    def prepare() -> None:
        for split in args.splits:
            if "annotations" in args:
                prepare_from_annotations(args.coco_root, args.annotations, args.out, split, args.num_workers)
            else:
                prepare_from_masks(args.coco_root, args.coco_masks, args.out, split, args.num_workers)

    exit_with_message(prepare, "--out")


if __name__ == "__main__":
    main()
