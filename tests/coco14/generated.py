"""A small COCO with every kind of annotation, and its preparation."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from coco14 import prepare
from coco14.coco import Coco14

H, W = 40, 56
CATEGORIES = [(90, "kite"), (5, "dog"), (2, "cat"), (7, "never used")]            # class indices 4, 2, 1, 3
OVERLAP, HOLE, CROWD, EMPTY, UTF8, FLAT = NAMES = (
    "COCO_train2014_000000000009", "COCO_train2014_000000000025", "COCO_train2014_000000000030",
    "COCO_train2014_000000000034", "straße_日本_01", "COCO_train2014_000000000049")
VAL = "COCO_val2014_000000000042"


def box(x0, y0, x1, y1):
    return [x0, y0, x1, y0, x1, y1, x0, y1]


def runs_of(mask):
    """Uncompressed RLE of a (H, W) mask, as COCO stores crowds."""
    pixels = np.concatenate([[0], mask.ravel(order="F"), [0]])
    changes = np.flatnonzero(np.diff(pixels))
    counts = np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()
    return {"size": list(mask.shape), "counts": counts if changes[-1] < mask.size else counts[:-1]}


def ring():
    mask = np.zeros((H, W), np.uint8)
    mask[5:35, 8:48] = 1
    mask[12:25, 15:30] = 0
    return mask


def compressed(mask):
    rle = coco_mask.encode(np.asfortranarray(mask))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def random_polygon(rng):
    """A star of 3 to 30 vertices with two decimals, which may leave the image and cross itself."""
    num = int(rng.integers(3, 31))
    angle = np.sort(rng.uniform(0, 2 * np.pi, num)) if rng.random() < 0.7 else rng.uniform(0, 2 * np.pi, num)
    radius = rng.uniform(2, 25) * rng.uniform(0.3, 1, num)
    points = np.stack([rng.uniform(0, W) + radius * np.cos(angle), rng.uniform(0, H) + radius * np.sin(angle)], axis=1)
    return points.ravel().round(2).tolist()


def content(names, annotations):
    """The JSON of COCO; annotations: (image id, category id, area, segmentation, iscrowd, annotation id)."""
    keys = "image_id", "category_id", "area", "segmentation", "iscrowd", "id"
    return {"info": {}, "images": [{"id": k, "file_name": f"{name}.jpg", "height": H, "width": W, "license": 1}
                                   for k, name in names.items()],
            "annotations": [dict(zip(keys, annotation)) for annotation in annotations],
            "categories": [{"id": k, "name": name, "supercategory": ""} for k, name in CATEGORIES]}


def train_content():
    everything, half = np.ones((H, W), np.uint8), np.zeros((H, W), np.uint8)
    half[:, :20] = 1
    rng = np.random.default_rng(0)
    annotations = [
        (9, 2, 100.0, [box(20, 10, 30, 20)], 0, 1),                                # under a smaller one listed later
        (9, 5, 48.5, [box(18, 12, 24, 16), box(40, 30, 47.5, 33.3)], 0, 2),        # two parts
        (9, 90, 100.0, [box(25, 5, 35, 15)], 0, 3),                                # as large as the first: under it
        (9, 2, 0.0, [[3, 3, 9, 3]], 0, 4),                                         # a line, skipped
        (25, 5, float(ring().sum()), runs_of(ring()), 0, 5),
        (25, 90, 30.0, [box(17, 14, 22, 20)], 0, 6),                               # inside the hole
        (30, 2, 2240.0, runs_of(everything), 1, 7),
        (30, 5, 800.0, compressed(half), 1, 8),
        (30, 90, 300.5, [box(10, 10, 30, 25), [1, 1, 2, 2, 3, 3]], 0, 9),          # a part without area
        (61, 2, 200.0, [box(1, 1, 20, 11)], 0, 10), (61, 5, 99.0, [box(5, 5, 16, 14)], 0, 10),      # one id for two
        (77, 2, 10.0, [box(1, 1, 5, 5)], 0, 11),                                   # no such image
        (49, 2, 0.0, [[5, 5, 5, 5, 5, 5]], 0, 12)]
    annotations += [(image, int(rng.choice([2, 5, 90])), float(rng.integers(1, 40)), [random_polygon(rng)
                    for _ in range(int(rng.integers(1, 4)))], 0, 10 * image + k)
                    for image in range(200, 212) for k in range(6)]
    names = dict(zip((9, 25, 30, 34, 61, 49), NAMES)) | {k: f"COCO_train2014_{k:012d}" for k in range(200, 212)}
    return content(names, annotations)


def val_content():
    return content({42: VAL}, [(42, 5, 30.0, [box(2, 2, 8, 7)], 0, 1)])


def write_coco(root, train, val):
    """Images (empty files: prepare.py must not open them) and annotations."""
    (root / "annotations").mkdir()
    for folder, what in (("train2014", train), ("val2014", val)):
        (root / folder).mkdir()
        for image in what["images"]:
            (root / folder / image["file_name"]).touch()
        path = root / "annotations" / f"instances_{folder}.json"
        path.write_text(json.dumps(what, ensure_ascii=False), encoding="utf-8")
    return root


def run_prepare(root, out, *flags):
    prepare.main(["--coco_root", str(root), "--annotations", str(root / "annotations"), "--out", str(out),
                  "--num_workers", "1", *flags])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("coco"), train_content(), val_content())


@pytest.fixture(scope="module")
def out(root):
    run_prepare(root, root / "prepared")
    return root / "prepared"


@pytest.fixture(scope="module")
def data_set(root, out):
    return Coco14(root, out)
