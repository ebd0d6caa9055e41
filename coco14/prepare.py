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
import operator
import os
import sys
import zlib
from array import array
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Iterator, NamedTuple

import ijson
import numpy as np
from pycocotools import mask as coco_mask

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))    # the repository, when run as a script

from coco14.coco import CLASS_NAMES, FOLDERS, labels_path, require_folder, write_labels
from data.sample import IGNORE, InputError, read_mask, write_atomically, write_mask
from runtime.command import default_workers, exit_with_message, positive_int
from runtime.parallel import map_images

CATEGORY_IDS = tuple(sorted(set(range(1, 91)) - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}))    # of CLASS_NAMES
MAX_COORDINATE = 1e5    # pixels; pycocotools walks along every edge, so a damaged number would take all memory
MIN_CROSS = 1e-6        # square pixels; cross products below it are rounding errors of points on one line


class Region(NamedTuple):
    """One annotation: class index 1 to C, area in square pixels, polygons [x y x y ..] or compressed RLE."""
    class_index: int
    area: float
    shape: list[array] | dict


@dataclass(slots=True)
class AnnotatedImage:
    """File name without ending, (H, W), and the annotations in the order of the JSON."""
    name: str
    size: tuple[int, int]
    regions: list[Region] = field(default_factory=list)


class Categories(NamedTuple):
    """Ids and names in the order of the class index, which is position + 1."""
    ids: list[int]
    names: list[str]


@dataclass
class Counts:
    """What the JSON holds that is no plain annotation of a listed image."""
    annotations: int = 0
    polygons_without_area: int = 0
    annotations_without_area: int = 0
    annotations_of_unknown_images: int = 0
    repeated_annotation_ids: int = 0


# --- reading the JSON ---------------------------------------------------------------------------------------------

def records(path: Path, key: str) -> Iterator[tuple[str, dict]]:
    """("annotations[0]", its object), .. of the array `key`, read from the file as it is needed, never as a whole."""
    try:
        with open(path, "rb") as file:
            for position, record in enumerate(ijson.items(file, f"{key}.item", use_float=True)):
                yield f"{key}[{position}]", record
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path}: missing; --annotations must be the folder that holds instances_train2014.json and "
                         "instances_val2014.json, or name fewer --splits") from None
    except (ijson.JSONError, UnicodeDecodeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: damaged or truncated JSON ({reason}); download it again") from None


def damaged(path: Path, place: str, error: Exception) -> InputError:
    reason = f"no {error}" if isinstance(error, KeyError) else str(error)
    return InputError(f"{path}: damaged {place} ({reason}); correct it or download the file again")


def read_categories(path: Path) -> Categories:
    """Categories sorted by id. Raises InputError when there are none, more than 254, or two of one id or name."""
    names = {}
    for place, category in records(path, "categories"):
        try:
            category_id, name = operator.index(category["id"]), category["name"].strip()
        except (KeyError, TypeError, AttributeError) as error:
            raise damaged(path, place, error) from None
        if category_id in names or name in names.values():
            raise InputError(f"{path}: category {category_id} ({name}) stands there twice; ids and names must differ")
        names[category_id] = name
    if not 1 <= len(names) < IGNORE:
        raise InputError(f"{path}: {len(names)} categories; needs 1 to {IGNORE - 1}, as instances_*.json of COCO has "
                         "(captions and image info have none)")
    ids = sorted(names)
    return Categories(ids, [names[category_id] for category_id in ids])


def read_images(path: Path) -> dict[int, AnnotatedImage]:
    """Images by id, without annotations yet. Raises InputError for names that cannot be ids of a list."""
    images, names = {}, set()
    for place, record in records(path, "images"):
        try:
            image_id, file_name = operator.index(record["id"]), record["file_name"]
            size = operator.index(record["height"]), operator.index(record["width"])
            name, ending = os.path.splitext(file_name)
            if ending != ".jpg" or "/" in name or name.split() != [name]:
                raise ValueError(f"file_name {file_name!r}; needs NAME.jpg without folders and spaces")
            if min(size) < 1:
                raise ValueError(f"size {size[1]}x{size[0]}")
            if image_id in images or name in names:
                raise ValueError(f"image {image_id}, {file_name}, stands there twice")
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(path, place, error) from None
        images[image_id] = AnnotatedImage(name, size)
        names.add(name)
    return images


def read_annotations(path: Path, images: dict[int, AnnotatedImage], categories: Categories) -> Counts:
    """Add all annotations to their images.

    Raises InputError for an unknown category, and for damaged annotations: polygons with an odd number of coordinates
    or absurd ones, RLE of another size than the image.
    """
    class_index = {category_id: k for k, category_id in enumerate(categories.ids, start=1)}
    counts, annotation_ids = Counts(), array("q")
    for place, annotation in records(path, "annotations"):
        try:
            annotation_ids.append(annotation["id"])
            image = images.get(annotation["image_id"])
            if image is None:
                counts.annotations_of_unknown_images += 1
                continue
            if annotation["category_id"] not in class_index:
                raise ValueError(f"category {annotation['category_id']} is not among the categories")
            shape = read_shape(annotation["segmentation"], image.size, counts)
            region = Region(class_index[annotation["category_id"]], float(annotation["area"]), shape)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise damaged(path, place, error) from None
        if shape:
            image.regions.append(region)
        else:
            counts.annotations_without_area += 1
    counts.annotations = len(annotation_ids)
    counts.repeated_annotation_ids = len(annotation_ids) - len(np.unique(annotation_ids))
    return counts


def read_shape(segmentation: list | dict, size: tuple[int, int], counts: Counts) -> list[array] | dict | None:
    """Polygons with an area, or compressed RLE; nothing when it covers no area."""
    if isinstance(segmentation, dict):
        return _read_rle(segmentation, size)
    polygons = [array("d", polygon) for polygon in segmentation]
    for polygon in polygons:
        if len(polygon) % 2:
            raise ValueError("polygon with an odd number of coordinates")
        if polygon and not (-MAX_COORDINATE <= min(polygon) and max(polygon) <= MAX_COORDINATE):
            raise ValueError(f"polygon with coordinates from {min(polygon)} to {max(polygon)}")
    kept = [polygon for polygon in polygons if has_area(polygon)]
    counts.polygons_without_area += len(polygons) - len(kept)
    return kept


def has_area(polygon: array) -> bool:
    """Whether a triangle of the fan from its first point has an area.

    pycocotools would take a polygon of two points for a box, so those must not reach it.
    """
    if len(polygon) < 6:
        return False
    x, y = polygon[:2]
    corners = zip(polygon[2::2], polygon[3::2], polygon[4::2], polygon[5::2])
    return any(abs((x1 - x) * (y2 - y) - (y1 - y) * (x2 - x)) > MIN_CROSS for x1, y1, x2, y2 in corners)


def _read_rle(rle: dict, size: tuple[int, int]) -> dict | None:
    if list(rle["size"]) != list(size):
        raise ValueError(f"RLE of size {rle['size']} in an image of {list(size)}")
    if isinstance(rle["counts"], str):
        rle = {"size": list(size), "counts": rle["counts"].encode("ascii")}
    else:
        runs = list(map(operator.index, rle["counts"]))
        if min(runs, default=0) < 0 or sum(runs) != size[0] * size[1]:
            raise ValueError("RLE whose counts do not add up to the pixels of the image")
        rle = coco_mask.frPyObjects({"size": list(size), "counts": runs}, *size)
    return rle if coco_mask.decode(rle).any() else None


# --- masks and labels -----------------------------------------------------------------------------------------------

def paint_mask(image: AnnotatedImage) -> np.ndarray:
    """(H, W) uint8 class indices of one image, by the rules above."""
    mask = np.zeros(image.size, np.uint8, order="F")        # column by column, as pycocotools decodes
    for region in reversed(sorted(image.regions, key=lambda region: region.area)):
        rle = region.shape
        if isinstance(rle, list):
            rle = coco_mask.merge(coco_mask.frPyObjects([polygon.tolist() for polygon in rle], *image.size))
        np.copyto(mask, region.class_index, where=coco_mask.decode(rle).view(bool))
    return mask


def write_image_mask(folder: Path, image: AnnotatedImage) -> None:
    write_mask(folder / f"{image.name}.png", paint_mask(image))


def labels_of_regions(images: list[AnnotatedImage], num_classes: int) -> np.ndarray:
    """(len(images), C) uint8, 1 where an annotation names the class."""
    labels = np.zeros((len(images), num_classes), np.uint8)
    for row, image in zip(labels, images):
        row[[region.class_index - 1 for region in image.regions]] = 1
    return labels


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = path.read_text(encoding="utf-8").strip() if path.exists() else None
        if found != source and (found or any(folder.iterdir())):
            raise InputError(f"{out}: holds {split} of another source ({found or 'unknown'}; now {source}); "
                             "choose another --out, or delete what is there")
        write_atomically(path, lambda file: file.write(f"{source}\n".encode()))
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); choose another --out") from None
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
    text = json.dumps(counts, indent=2, ensure_ascii=False)
    write_atomically(lists / f"{split}.txt", lambda file: file.write(("\n".join(names) + "\n").encode()))
    write_atomically(out / f"class_counts_{split}.json", lambda file: file.write(f"{text}\n".encode()))
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

    exit_with_message(prepare)


if __name__ == "__main__":
    main()
