"""The archive that the PASCAL VOC evaluation server takes for the segmentation task, written and checked."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from data.sample import InputError, image_size, write_atomically

# comp5: trained on VOC data alone; comp6: on anything but the test set, so also from ImageNet weights.
COMPETITIONS = ("comp5", "comp6")


def entry_name(competition: str, name: str) -> str:
    """Path of an image's mask in the archive."""
    return f"results/VOC2012/Segmentation/{competition}_test_cls/{name}.png"


def write_archive(path: str | Path, masks: str | Path, ids: list[str], competition: str) -> None:
    """Write the masks MASKS/ID.png (palette PNG) of all ids into a zip file. Raises InputError if that fails."""
    def write(file) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:           # PNG is compressed already
            for name in ids:
                archive.write(Path(masks) / f"{name}.png", entry_name(competition, name))

    try:
        write_atomically(path, write)
    except OSError as error:
        raise InputError(f"{path}: archive cannot be written ({error}); check --zip") from None


def check_archive(path: str | Path, ids: list[str], competition: str, num_classes: int, image_path: Callable) -> None:
    """Raise InputError unless the archive holds exactly one indexed PNG for every id, at the size of its image.

    num_classes  C; indices 0..C are allowed
    image_path   id -> path of the image
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            wanted = {entry_name(competition, name): name for name in ids}
            if sorted(names) != sorted(wanted):
                odd = sorted(set(names) ^ set(wanted)) or sorted(names)
                raise InputError(f"{path}: {len(names)} entries for {len(ids)} images, the first that is missing, "
                                 f"foreign or double: {odd[0]}; write the archive again")
            for entry, name in wanted.items():
                with archive.open(entry) as file, Image.open(file) as mask:
                    check_mask(f"{path}: {entry}", mask, image_size(image_path(name)), num_classes)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: damaged archive ({error}); write it again") from None


def check_mask(what: str, mask: Image.Image, size: tuple[int, int], num_classes: int) -> None:
    """Raise InputError unless the mask is an indexed PNG of `size` (H, W) with indices up to num_classes."""
    height, width = size
    if mask.format != "PNG" or mask.mode != "P":
        raise InputError(f"{what}: {mask.format} of mode {mask.mode}, not an indexed PNG; write the archive again")
    if mask.size != (width, height):
        raise InputError(f"{what}: {mask.width}x{mask.height} pixels for an image of {width}x{height}; predict again")
    highest = np.asarray(mask).max()
    if highest > num_classes:
        raise InputError(f"{what}: class index {highest}, but there are only {num_classes} classes; predict again")
