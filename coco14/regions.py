"""Masks as annotations in COCO's format: each connected region of a class is one, as compressed RLE.

    {"images":      [{"id", "file_name", "height", "width"}, ..],
     "categories":  [{"id": class index from 1, "name"}, ..],
     "annotations": [{"id", "image_id", "category_id", "segmentation", "area", "bbox", "iscrowd": 0}, ..]}

A mask of classes does not say where one object ends and the next of its class begins: objects that touch are one
region, one that is cut in two by another makes two. Background and ignored pixels are in no region.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from data.sample import read_mask, write_text
from runtime.parallel import map_images


def write_coco_json(path: Path, class_names: Sequence[str], ids: Sequence[str], file_name: Callable[[str], str],
                    mask_path: Callable[[str], Path], num_workers: int) -> int:
    """Write the masks of all ids as one JSON file -> number of regions. Raises InputError for unusable masks.

    file_name  id -> what "file_name" says of its image
    mask_path  id -> file of its mask
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    results = map_images(partial(read_regions, mask_path, len(class_names)), ids, num_workers, "regions")
    for image_id, (name, (size, regions)) in enumerate(zip(ids, results), start=1):
        images.append({"id": image_id, "file_name": file_name(name), "height": size[0], "width": size[1]})
        annotations += [{"id": number, "image_id": image_id} | region
                        for number, region in enumerate(regions, start=len(annotations) + 1)]
    categories = [{"id": index, "name": name} for index, name in enumerate(class_names, start=1)]
    write_text(path, json.dumps({"images": images, "categories": categories, "annotations": annotations}) + "\n")
    return len(annotations)


def read_regions(mask_path: Callable[[str], Path], num_classes: int,
                 name: str) -> tuple[tuple[int, int], list[dict[str, Any]]]:
    """(H, W) of the mask of an image, and its regions as annotations without ids."""
    mask = read_mask(mask_path(name), num_classes)
    classes = np.intersect1d(mask, np.arange(1, num_classes + 1))
    return mask.shape, [region for index in classes for region in regions_of_class(mask == index, int(index))]


def regions_of_class(shown: np.ndarray, class_index: int) -> list[dict[str, Any]]:
    """(H, W) bool -> its regions connected by sides or corners; bbox is x, y, width, height in pixels."""
    count, labels = cv2.connectedComponents(shown.astype(np.uint8), connectivity=8)
    annotations = []
    for label in range(1, count):
        rle = coco_mask.encode(np.asfortranarray(labels == label, np.uint8))
        annotations.append({
            "category_id": class_index, "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
            "area": int(coco_mask.area(rle)), "bbox": coco_mask.toBbox(rle).tolist(), "iscrowd": 0})
    return annotations
