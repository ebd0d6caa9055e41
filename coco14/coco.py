"""MS COCO 2014: paths, class names, lists and image-level labels.

    COCO/train2014/ID.jpg  COCO/val2014/ID.jpg             images

What the official annotations lack is made once by coco14/prepare.py:

    PREPARED/SegmentationClass/{train2014,val2014}/ID.png  masks, class indices 0 to C
    PREPARED/ImageSets/{train2014,val2014}.txt             lists: the images with at least one object
    PREPARED/labels_{train2014,val2014}.npz                image-level labels, see write_labels
"""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from data.sample import InputError, read_list, read_mask, write_atomically

CLASS_NAMES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush")
FOLDERS = ("train2014", "val2014")
FOLDER_OF_SPLIT = {"train": "train2014", "train_aug": "train2014", "val": "val2014"}


class Coco14:
    """COCO images with the masks, lists and labels that coco14/prepare.py made of them.

    root          the folder that holds train2014 and val2014
    prepared_dir  what prepare.py wrote (its --out)
    masks_dir     ready-made masks, MASKS/{train2014,val2014}/ID.png; default: those of prepared_dir
    The index of images lies in three arrays, and an image is found by binary search, so a worker process that
    gets a copy of this object gets a few megabytes at COCO's size.
    Raises InputError when a folder or a file of labels is missing or damaged.
    """

    test_server = False

    def __init__(self, root: str | Path, prepared_dir: str | Path, masks_dir: str | Path | None = None):
        self.root = Path(root)
        self.prepared_dir = Path(prepared_dir)
        self.masks_dir = Path(masks_dir) if masks_dir else self.prepared_dir / "SegmentationClass"
        folders = [folder for folder in FOLDERS if labels_path(prepared_dir, folder).exists()]
        if not folders:
            raise InputError(f"{self.prepared_dir}: no labels_train2014.npz in it; make it with python "
                             f"coco14/prepare.py --coco_root {self.root} --annotations DIR --out {self.prepared_dir}")
        for folder in folders:
            require_folder(self.root, folder)
        self._read_index(folders)
        if self.label_source == "masks" and not masks_dir:
            raise InputError(f"{self.prepared_dir}: was prepared from ready-made masks; "
                             "give their folder with --coco_masks")

    def _read_index(self, folders: list[str]) -> None:
        """Sorted ids (N,), the folder of each (N,) as an index into FOLDERS, and packed labels (N, ceil(C / 8))."""
        parts = [_read_labels(labels_path(self.prepared_dir, folder)) for folder in folders]
        self.class_names = tuple(parts[0]["class_names"].tolist())
        self.label_source = str(parts[0]["source"])
        for part in parts[1:]:
            if any(not np.array_equal(part[key], parts[0][key]) for key in ("class_names", "category_ids", "source")):
                raise InputError(f"{self.prepared_dir}: train2014 and val2014 differ in their classes or in the source "
                                 "of their labels; prepare both from annotations of one kind")
        ids = np.concatenate([part["ids"] for part in parts])
        order = np.argsort(ids, kind="stable")
        self._ids = ids[order]
        self._folder = np.repeat([FOLDERS.index(folder) for folder in folders],
                                 [len(part["ids"]) for part in parts]).astype(np.uint8)[order]
        self._labels = np.concatenate([part["labels"] for part in parts])[order]
        twice = self._ids[1:] == self._ids[:-1]
        if twice.any():
            raise InputError(f"{self.prepared_dir}: image {self._ids[1:][twice][0]} stands in train2014 and in "
                             "val2014; image names must be unique")

    @property
    def num_classes(self) -> int:
        """C, foreground classes."""
        return len(self.class_names)

    @property
    def benchmark(self) -> str | None:
        """Whose published numbers may stand beside scores on this set."""
        return "coco14" if self.class_names == CLASS_NAMES else None

    def image_path(self, name: str) -> Path:
        return self.root / self._folder_of(name) / f"{name}.jpg"

    def mask_path(self, name: str) -> Path:
        return self.masks_dir / self._folder_of(name) / f"{name}.png"

    def part_path(self, name: str) -> None:
        """COCO does not say which parts of objects classes share."""

    def read_mask(self, name: str, size: tuple[int, int] | None = None) -> np.ndarray:
        """(H, W) uint8 class indices of the ground truth; errors as data.sample.read_mask."""
        return read_mask(self.mask_path(name), self.num_classes, size)

    def list_path(self, split: str) -> Path:
        return self.prepared_dir / "ImageSets" / f"{FOLDER_OF_SPLIT[split]}.txt"

    def split(self, split: str) -> tuple[list[str], str]:
        """Ids of "train", "val" or "train_aug" (here the same as train), and a text that says where they come from."""
        return read_list(self.list_path(split)), f"{FOLDER_OF_SPLIT[split]} ({self.list_path(split)})"

    def image_labels(self, ids: list[str]) -> np.ndarray:
        """(len(ids), C) uint8, 1 where the image shows the class. Raises InputError for an id that was not prepared."""
        return np.unpackbits(self._labels[self._rows(ids)], axis=1, count=self.num_classes)

    def _folder_of(self, name: str) -> str:
        return FOLDERS[self._folder[self._rows([name])[0]]]

    def _rows(self, ids: list[str]) -> np.ndarray:
        wanted = np.array(ids, dtype=str)
        # In the type of the index, or NumPy would copy the index; a longer name is cut and then differs from its match.
        rows = np.searchsorted(self._ids, wanted.astype(self._ids.dtype)).clip(max=len(self._ids) - 1)
        unknown = self._ids[rows] != wanted
        if unknown.any():
            raise InputError(f"{self.prepared_dir}: {unknown.sum()} ids of the list are no prepared images with "
                             f"objects, the first {wanted[unknown][0]}; take them out, or prepare their annotations")
        return rows


def require_folder(root: Path, folder: str) -> Path:
    """COCO/train2014 or COCO/val2014; InputError when it is not there."""
    if not (root / folder).is_dir():
        raise InputError(f"{root}: no folder {folder} in it; --coco_root must be the folder that holds the images in "
                         "train2014 and val2014")
    return root / folder


def labels_path(prepared_dir: str | Path, folder: str) -> Path:
    return Path(prepared_dir) / f"labels_{folder}.npz"


def write_labels(path: Path, ids: list[str], labels: np.ndarray, class_names: list[str], category_ids: list[int],
                 source: str) -> None:
    """Write the image-level labels of one folder of images; no array is pickled.

    ids           sorted; stored as strings of fixed width
    labels        (N, C) uint8 of 0 and 1; stored as bits, (N, ceil(C / 8))
    category_ids  COCO's id of each class, in the order of class_names
    source        "annotations" or "masks"
    """
    arrays: dict[str, Any] = {
        "ids": np.array(ids, dtype=str), "labels": np.packbits(labels, axis=1), "source": np.array(source),
        "class_names": np.array(class_names, dtype=str), "category_ids": np.array(category_ids, dtype=np.int64)}
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))


def _read_labels(path: Path) -> dict[str, np.ndarray]:
    """The arrays of write_labels."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in ("ids", "labels", "source", "class_names", "category_ids")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: damaged labels ({error}); delete the file and run coco14/prepare.py again") from None
    shape = len(arrays["ids"]), -(-len(arrays["class_names"]) // 8)
    if arrays["labels"].shape != shape or 0 in shape:
        raise InputError(f"{path}: damaged labels (array of shape {arrays['labels'].shape}, {shape} expected); "
                         "delete the file and run coco14/prepare.py again")
    return arrays
