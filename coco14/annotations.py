"""The instance annotations of MS COCO: read from the JSON piece by piece, checked, painted as class-index masks."""

import operator
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import ijson
import numpy as np
from pycocotools import mask as coco_mask

from data.sample import IGNORE, InputError

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
    names: dict[int, str] = {}
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
            index, area = class_index[annotation["category_id"]], float(annotation["area"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise damaged(path, place, error) from None
        if shape:
            image.regions.append(Region(index, area, shape))
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
        if polygon and not (min(polygon) >= -MAX_COORDINATE and max(polygon) <= MAX_COORDINATE):
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


# --- masks and labels ---------------------------------------------------------------------------------------------

def paint_mask(image: AnnotatedImage) -> np.ndarray:
    """(H, W) uint8 class indices of one image, by the rules above."""
    mask = np.zeros(image.size, np.uint8, order="F")        # column by column, as pycocotools decodes
    for region in reversed(sorted(image.regions, key=lambda region: region.area)):
        rle = region.shape
        if isinstance(rle, list):
            rle = coco_mask.merge(coco_mask.frPyObjects([polygon.tolist() for polygon in rle], *image.size))
        np.copyto(mask, region.class_index, where=coco_mask.decode(rle).view(bool))
    return mask


def labels_of_regions(images: list[AnnotatedImage], num_classes: int) -> np.ndarray:
    """(len(images), C) uint8, 1 where an annotation names the class."""
    labels = np.zeros((len(images), num_classes), np.uint8)
    for row, image in zip(labels, images):
        row[[region.class_index - 1 for region in image.regions]] = 1
    return labels
