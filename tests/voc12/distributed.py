"""VOC 2012 and SBD as they are distributed, in small: the same folders and files, images of 12x10 pixels."""

import io
import tarfile

import numpy as np
from PIL import Image
from scipy.io import savemat

from data.sample import palette

SIZE = H, W = 10, 12
TRAIN, VAL = ["2007_b", "2007_a"], ["2007_c"]
SBD_TRAIN, SBD_VAL = ["2008_e", "2007_c", "2007_a"], ["2008_d"]
TRAIN_AUG = ["2007_a", "2007_b", "2008_d", "2008_e"]                 # without 2007_c of val
IMAGES = [*TRAIN, *VAL, "2008_d", "2008_e", "2009_x"]                # the last is in no list
VOC_ROOT, SBD_ROOT = "VOCdevkit/VOC2012", "benchmark_RELEASE/dataset"


def official_mask(name):
    """A mask with void, as VOC draws it."""
    mask = np.zeros(SIZE, np.uint8)
    mask[2:8, 3:9] = 255
    mask[3:7, 4:8] = 1 + IMAGES.index(name)
    return mask


def sbd_mask(name):
    """Another mask of the same image."""
    mask = np.zeros(SIZE, np.uint8)
    mask[1:6, 2:11] = 20 - IMAGES.index(name)
    mask[9, 11] = 255
    return mask


def mat(segmentation, key="GTcls"):
    file = io.BytesIO()
    savemat(file, {key: {"Segmentation": segmentation, "CategoriesPresent": np.unique(segmentation)}},
            do_compression=True)
    return file.getvalue()


def encoded(array, kind):
    file, image = io.BytesIO(), Image.fromarray(array)
    if kind == "PNG":
        image.putpalette(palette())
    image.save(file, kind)
    return file.getvalue()


def lines(ids):
    return "".join(f"{name}\n" for name in ids).encode()


def voc_files():
    """Path in the archive -> content."""
    files = {f"Annotations/{name}.xml": b"<annotation><object><name>cat</name></object></annotation>"
             for name in IMAGES}
    files |= {"ImageSets/Segmentation/train.txt": lines(TRAIN), "ImageSets/Segmentation/val.txt": lines(VAL),
              "ImageSets/Main/cat_train.txt": b"2007_a  1\n"}
    files |= {f"JPEGImages/{name}.jpg": encoded(np.full((H, W, 3), 9 * k, np.uint8), "JPEG")
              for k, name in enumerate(IMAGES)}
    files |= {f"{folder}/{name}.png": encoded(official_mask(name), "PNG")
              for folder in ("SegmentationClass", "SegmentationObject") for name in (*TRAIN, *VAL)}
    return {f"{VOC_ROOT}/{name}": content for name, content in files.items()}


def sbd_files():
    ids = [*SBD_TRAIN, *SBD_VAL]
    files = {f"cls/{name}.mat": mat(sbd_mask(name)) for name in ids} | {f"img/{name}.jpg": b"unused" for name in ids}
    files |= {"train.txt": lines(SBD_TRAIN), "val.txt": lines(SBD_VAL)}
    return {f"{SBD_ROOT}/{name}": content for name, content in files.items()}


def voc_test_files():
    files = {"ImageSets/Segmentation/test.txt": b"2008_t\n", "JPEGImages/2008_t.jpg": b"t",
             "JPEGImages/2008_u.jpg": b"u"}
    return {f"{VOC_ROOT}/{name}": content for name, content in files.items()}


def write_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_folder(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path
