"""Preparation of COCO: masks against pycocotools' own decoding, resuming, ready-made masks, and bad input."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from coco14 import prepare
from coco14.coco import CLASS_NAMES, Coco14, labels_path
from data.sample import InputError, write_mask
from tests.coco14.generated import (
    CATEGORIES,
    CROWD,
    HOLE,
    OVERLAP,
    UTF8,
    H,
    W,
    coco_mask,
    run_prepare,
    train_content,
    val_content,
    write_coco,
)


def expected_mask(what, image_id):
    """Each pixel by itself: the class of the smallest region that pycocotools decodes there, the first of equals."""
    smallest, mask = np.full((H, W), np.inf), np.zeros((H, W), np.uint8)
    rank = {category: k for k, category in enumerate(sorted(category for category, _ in CATEGORIES), start=1)}
    for annotation in what["annotations"]:
        segmentation = annotation["segmentation"]
        if annotation["image_id"] != image_id or segmentation == [[3, 3, 9, 3]]:      # pycocotools takes it for a box
            continue
        rle = coco_mask.frPyObjects(segmentation, H, W) if isinstance(
            segmentation, list) or isinstance(segmentation["counts"], list) else segmentation
        region = coco_mask.decode(coco_mask.merge(rle) if isinstance(rle, list) else rle) > 0
        region &= annotation["area"] < smallest
        smallest[region], mask[region] = annotation["area"], rank[annotation["category_id"]]
    return mask


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- masks, lists, labels -------------------------------------------------------------------------------------------

def test_masks_pixel_by_pixel(data_set):
    ids, _ = data_set.split("train")
    what = train_content()
    by_name = {image["file_name"][:-4]: image["id"] for image in what["images"]}
    for name in ids:
        np.testing.assert_array_equal(data_set.read_mask(name, (H, W)), expected_mask(what, by_name[name]), name)


def test_masks_by_hand(data_set):
    overlap, hole, crowd = (data_set.read_mask(name) for name in (OVERLAP, HOLE, CROWD))
    assert overlap[14, 21] == 2 and overlap[18, 21] == 1         # the smaller area lies on top
    assert overlap[12, 27] == 1 and overlap[7, 27] == 4          # of equal areas, the one listed first
    assert overlap[31, 44] == 2 and overlap[3, 5] == 0           # the second part; the skipped line
    assert hole[8, 10] == 2 and hole[23, 28] == 0 and hole[16, 19] == 4
    assert crowd[0, 55] == 1 and crowd[0, 0] == 2 and crowd[15, 15] == 4 and not (crowd == 255).any()


def test_skips_are_counted(root, tmp_path, capsys):
    run_prepare(root, tmp_path / "out", "--splits", "train2014")
    printed = capsys.readouterr().out
    assert ("85 annotations, 3 polygons without area, 2 annotations without area, 1 annotations of unknown images, "
            "1 repeated annotation ids") in printed
    assert "16 images with objects of 18" in printed
    assert not (tmp_path / "out" / "labels_val2014.npz").exists()
    assert Coco14(root, tmp_path / "out").image_labels([UTF8]).tolist() == [[1, 1, 0, 0]]


# --- resuming, workers, the command ---------------------------------------------------------------------------------

def test_interrupted_run_continues(root, out, tmp_path):
    run_prepare(root, tmp_path)
    whole = files_of(tmp_path)
    masks = tmp_path / "SegmentationClass" / "train2014"
    kept = (masks / f"{HOLE}.png").stat().st_mtime_ns
    (masks / f"{OVERLAP}.png").unlink()
    labels_path(tmp_path, "train2014").unlink()
    run_prepare(root, tmp_path)
    assert files_of(tmp_path).keys() == whole.keys() == files_of(out).keys()
    assert {path: data for path, data in files_of(tmp_path).items() if path.suffix != ".npz"} == {
        path: data for path, data in whole.items() if path.suffix != ".npz"}
    assert (masks / f"{HOLE}.png").stat().st_mtime_ns == kept


def test_command_with_workers_gives_the_same(root, out, tmp_path):
    script = Path(prepare.__file__)
    subprocess.run([sys.executable, script, "--coco_root", root, "--annotations", root / "annotations", "--out",
                    tmp_path / "out", "--num_workers", "2"], check=True, cwd=tmp_path, capture_output=True)
    assert {path: data for path, data in files_of(tmp_path / "out").items() if path.suffix != ".npz"} == {
        path: data for path, data in files_of(out).items() if path.suffix != ".npz"}


def test_masks_of_other_annotations_are_not_mixed(root, out, tmp_path, capsys):
    changed = train_content()
    changed["annotations"][0]["area"] = 1.0
    write_coco(tmp_path, changed, val_content())
    with pytest.raises(SystemExit, match="2"):
        run_prepare(tmp_path, out, "--splits", "train2014")
    assert "holds train2014 of another source" in capsys.readouterr().err


# --- ready-made masks -----------------------------------------------------------------------------------------------

@pytest.fixture
def ready_made(tmp_path):
    """Masks of 81 classes: person and toothbrush; void alone; one image without objects."""
    for folder in ("COCO/train2014", "masks/train2014"):
        (tmp_path / folder).mkdir(parents=True)
    for name, mask in {"a": [[0, 1], [80, 255]], "b": [[255, 255]], "c": [[0, 0]], "d": [[2]]}.items():
        write_mask(tmp_path / "masks" / "train2014" / f"{name}.png", np.uint8(mask))
        (tmp_path / "COCO" / "train2014" / f"{name}.jpg").touch()
    return tmp_path


def run_masks(folder):
    prepare.main(["--coco_root", str(folder / "COCO"), "--coco_masks", str(folder / "masks"), "--out",
                  str(folder / "out"), "--splits", "train2014", "--num_workers", "1"])


def test_ready_made_masks(ready_made):
    run_masks(ready_made)
    data_set = Coco14(ready_made / "COCO", ready_made / "out", ready_made / "masks")
    assert data_set.class_names == CLASS_NAMES and data_set.label_source == "masks"
    assert data_set.split("train")[0] == ["a", "d"]
    assert np.argwhere(data_set.image_labels(["a", "d"])).tolist() == [[0, 0], [0, 79], [1, 1]]
    np.testing.assert_array_equal(data_set.read_mask("a"), [[0, 1], [80, 255]])
    with pytest.raises(InputError, match="give their folder with --coco_masks"):
        Coco14(ready_made / "COCO", ready_made / "out")


def test_ready_made_masks_with_category_ids_are_refused(ready_made, capsys):
    write_mask(ready_made / "masks" / "train2014" / "d.png", np.uint8([[90]]))
    with pytest.raises(SystemExit, match="2"):
        run_masks(ready_made)
    assert "d.png: class indices [90], but there are only 80" in capsys.readouterr().err


def test_ready_made_masks_that_are_missing(ready_made, capsys):
    for path in (ready_made / "masks" / "train2014").iterdir():
        path.unlink()
    with pytest.raises(SystemExit, match="2"):
        run_masks(ready_made)
    assert "no masks; --coco_masks must be the folder" in capsys.readouterr().err


# --- bad input ------------------------------------------------------------------------------------------------------

def annotation(key, value, position=0):
    return lambda what: what["annotations"][position].__setitem__(key, value)


def image(key, value):
    return lambda what: what["images"][0].__setitem__(key, value)


BAD = {
    "category of an annotation": (annotation("category_id", 3), "annotations[0] (category 3 is not among the"),
    "categories": (lambda what: what.pop("categories"), "0 categories"),
    "category twice": (lambda what: what["categories"].append({"id": 5, "name": "x"}), "category 5 (x) stands there"),
    "no area": (lambda what: what["annotations"][1].pop("area"), "annotations[1] (no 'area')"),
    "no segmentation": (lambda what: what["annotations"][0].pop("segmentation"), "annotations[0] (no 'segmentation')"),
    "odd polygon": (annotation("segmentation", [[1, 1, 5, 1, 5, 5, 9]]), "odd number of coordinates"),
    "text in a polygon": (annotation("segmentation", [["1", 1, 5, 1, 5, 5]]), "annotations[0] (must be real number"),
    "far polygon": (annotation("segmentation", [[1, 1, 1e12, 1, 5, 5]]), "coordinates from 1.0 to 1000000000000.0"),
    "RLE of another size": (annotation("segmentation", {"size": [4, 4], "counts": [16]}), "RLE of size [4, 4]"),
    "short RLE": (annotation("segmentation", {"size": [H, W], "counts": [5, 6]}), "do not add up"),
    "garbled RLE": (annotation("segmentation", {"size": [H, W], "counts": "PPPPPP9999"}), "Invalid RLE"),
    "no height": (lambda what: what["images"][0].pop("height"), "images[0] (no 'height')"),
    "no size": (image("width", 0), "size 0x40"),
    "image twice": (image("id", 25), "image 25"),
    "folder in a name": (image("file_name", "train2014/x.jpg"), "needs NAME.jpg"),
    "space in a name": (image("file_name", "x y.jpg"), "needs NAME.jpg"),
    "no annotations": (lambda what: what["annotations"].clear(), "train2014: no image with objects"),
    "image file": (image("file_name", "gone.jpg"), "gone.jpg: image file is missing, one of 1"),
}


@pytest.mark.parametrize("spoil, message", BAD.values(), ids=BAD.keys())
def test_bad_annotations(root, tmp_path, capsys, spoil, message):
    what = train_content()
    spoil(what)
    (tmp_path / "instances_train2014.json").write_text(json.dumps(what))
    with pytest.raises(SystemExit, match="2"):
        prepare.main(["--coco_root", str(root), "--annotations", str(tmp_path), "--out", str(tmp_path / "out"),
                      "--splits", "train2014", "--num_workers", "1"])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()                       # found before anything is written


@pytest.mark.parametrize("text, message", [
    (lambda text: text[:len(text) // 2], "damaged or truncated JSON"),
    (lambda text: text[:-1], "damaged or truncated JSON"),
    (lambda text: "", "damaged or truncated JSON"),
    (lambda text: "[]", "0 categories"),
    (None, "missing; --annotations must be the folder"),
])
def test_bad_json(root, tmp_path, capsys, text, message):
    if text:
        whole = (root / "annotations" / "instances_train2014.json").read_text(encoding="utf-8")
        (tmp_path / "instances_train2014.json").write_text(text(whole), encoding="utf-8")
    with pytest.raises(SystemExit, match="2"):
        prepare.main(["--coco_root", str(root), "--annotations", str(tmp_path), "--out", str(tmp_path / "out")])
    assert message in capsys.readouterr().err


def test_folder_without_images(root, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        prepare.main(["--coco_root", str(tmp_path), "--annotations", str(root / "annotations"), "--out",
                      str(tmp_path / "out")])
    assert "no folder train2014 in it; --coco_root" in capsys.readouterr().err
