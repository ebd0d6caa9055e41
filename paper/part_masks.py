"""Which pixels of an object look like other classes' objects: known of data sets with part masks (data.mini_voc)."""

from pathlib import Path

import numpy as np

from data.mini_voc import DISCRIMINATIVE
from data.sample import read_mask
from frame.data_sets import DataSet
from runtime.work_dir import read_json


def has_parts(data_set: DataSet) -> bool:
    """Whether the data set says which pixels of an object are shared with other classes."""
    return data_set.part_path("") is not None


def read_parts(data_set: DataSet, name: str, size: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8 part mask of an image, 0 everywhere in a data set without; errors as data.sample.read_mask."""
    path = data_set.part_path(name)
    return np.zeros(size, np.uint8) if path is None else read_mask(path, DISCRIMINATIVE, size)


def shared_parts(data_set: DataSet) -> dict[str, list[str]]:
    """Shared part -> the classes that have it; {} for data sets without part masks."""
    if not has_parts(data_set):
        return {}
    return read_json(Path(data_set.root) / "mini_voc.json").get("shared_body") or {"shared": list(data_set.class_names)}
