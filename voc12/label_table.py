"""Image-level labels from a CSV table of image,labels; docs/LABELS.md describes the format."""

import csv
from collections.abc import Sequence
from pathlib import Path

from data.sample import InputError, image_id

COLUMNS = ("image", "labels")
SEPARATOR = ";"                  # between the labels of a row: class names may hold spaces, cells end at commas


def read_label_table(path: str | Path, class_names: Sequence[str]) -> dict[str, list[int]]:
    """CSV file -> {image id: its classes as indices from 0, in the order of the row}; [] for a row without labels.

    Raises InputError when the file cannot be read, a column is missing, an image has two rows or a row two equal
    labels, or a class is unknown.
    """
    index = {name: k for k, name in enumerate(class_names)}
    table: dict[str, list[int]] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            rows.fieldnames = _columns(path, rows.fieldnames or [])
            for row in rows:
                name, labels = _read_row(f"{path}, line {rows.line_num}", row, index)
                if name in table:
                    raise InputError(f"{path}, line {rows.line_num}: image {name!r} stands there twice; put all its "
                                     f"labels into one row, separated by '{SEPARATOR}'")
                table[name] = labels
    except FileNotFoundError:
        raise InputError(f"{path}: label table is missing; --labels needs xml, masks or a CSV file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: no CSV file that can be read ({error}); save it as CSV in UTF-8") from None
    if not table:
        raise InputError(f"{path}: label table without rows; it needs a row of image,labels for each image")
    return table


def _columns(path: str | Path, names: Sequence[str]) -> list[str]:
    """The names of the first line, without spaces around them."""
    names = [name.strip() for name in names]
    for column in COLUMNS:
        if names.count(column) != 1:
            raise InputError(f"{path}: {names.count(column) or 'no'} column {column!r} in its first line "
                             f"({','.join(names)}); it needs the columns image and labels, separated by a comma")
    return names


def _read_row(where: str, row: dict, index: dict[str, int]) -> tuple[str, list[int]]:
    """Image id and class indices of a row."""
    if None in row:                                              # DictReader keeps further cells there
        raise InputError(f"{where}: more cells than the first line; separate the labels of an image by '{SEPARATOR}'")
    name = image_id((row["image"] or "").strip())
    if not name:
        raise InputError(f"{where}: no image; it needs the id or file name of one")
    labels = [label for label in map(str.strip, (row["labels"] or "").split(SEPARATOR)) if label]
    for label in labels:
        if label not in index:
            raise InputError(f"{where}: unknown class {label!r}; correct it, or list the class names of the data set "
                             "in its classes.txt")
        if labels.count(label) > 1:
            raise InputError(f"{where}: label {label!r} stands there twice; write each label of an image once")
    return name, [index[label] for label in labels]
