"""COCO: masks against pycocotools' own decoding, lists and labels, ready-made masks, resuming, and bad input."""

import json
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from coco14.coco import CLASS_NAMES, Coco14, labels_path, write_labels
from data.sample import InputError, write_mask

coco_mask = pytest.importorskip("pycocotools.mask", reason="coco14/prepare.py needs pycocotools")
pytest.importorskip("ijson", reason="coco14/prepare.py needs ijson")
from coco14 import prepare  # noqa: E402  (after the checks)

# pycocotools 2.0.11 under NumPy 2, in its own decode
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

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


def test_lists_labels_and_counts(data_set, out):
    ids, origin = data_set.split("train")
    assert origin.startswith("train2014 (") and data_set.split("train_aug")[0] == ids and ids == sorted(ids)
    assert set(NAMES) - set(ids) == {EMPTY, FLAT} and len(ids) == 16
    assert data_set.split("val")[0] == [VAL]
    assert data_set.class_names == ("cat", "dog", "never used", "kite") and data_set.num_classes == 4
    assert (data_set.name, data_set.benchmark, data_set.label_source) == ("coco14", None, "annotations")
    labels = data_set.image_labels([VAL, UTF8, OVERLAP, CROWD])
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, [[0, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 1], [1, 1, 0, 1]])
    counts = json.loads((out / "class_counts_train2014.json").read_text())
    assert counts == dict(zip(data_set.class_names, data_set.image_labels(ids).sum(axis=0).tolist()))
    assert counts["never used"] == 0
    for name in ids:                                             # nothing but the labels stands in the masks
        present = np.setdiff1d(np.unique(data_set.read_mask(name)), 0)
        assert data_set.image_labels([name])[0, present - 1].all()


def test_paths(data_set, root, out):
    assert data_set.image_path(UTF8) == root / "train2014" / f"{UTF8}.jpg" and data_set.image_path(UTF8).exists()
    assert data_set.image_path(VAL) == root / "val2014" / f"{VAL}.jpg"
    assert data_set.mask_path(VAL) == out / "SegmentationClass" / "val2014" / f"{VAL}.png"
    assert data_set.list_path("train_aug") == out / "ImageSets" / "train2014.txt"


def test_skips_are_counted(root, tmp_path, capsys):
    run_prepare(root, tmp_path / "out", "--splits", "train2014")
    printed = capsys.readouterr().out
    assert ("85 annotations, 3 polygons without area, 2 annotations without area, 1 annotations of unknown images, "
            "1 repeated annotation ids") in printed
    assert "16 images with objects of 18" in printed
    assert not (tmp_path / "out" / "labels_val2014.npz").exists()
    assert Coco14(root, tmp_path / "out").image_labels([UTF8]).tolist() == [[1, 1, 0, 0]]


def test_polygons_without_area():
    rng = np.random.default_rng(1)
    for num_points in range(1, 30):
        line = rng.uniform(0, 600, 2) + rng.uniform(-90, 90, (num_points, 1)) * rng.uniform(-1, 1, 2)
        assert not prepare.has_area(line.ravel())
    assert not prepare.has_area([])
    assert prepare.has_area([0, 0, 1, 0, 1, 0.01]) and prepare.has_area([5, 5, 5, 5, 9, 5, 9, 5, 5, 9])
    assert prepare.has_area([0, 0, 10, 10, 10, 0, 0, 10])        # a bow tie: areas of opposite sign, but pixels


def test_official_categories():
    assert len(CLASS_NAMES) == len(set(CLASS_NAMES)) == len(prepare.CATEGORY_IDS) == 80
    ids = dict(zip(CLASS_NAMES, prepare.CATEGORY_IDS))
    assert [ids[name] for name in ("person", "stop sign", "backpack", "tv", "toothbrush")] == [1, 13, 27, 72, 90]


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


# --- scale ----------------------------------------------------------------------------------------------------------

def test_index_at_cocos_size(tmp_path):
    rng = np.random.default_rng(0)
    for folder, num in (("train2014", 82081), ("val2014", 40137)):
        (tmp_path / folder).mkdir()
        names = [f"COCO_{folder}_{k:012d}" for k in np.sort(rng.choice(581921, num, replace=False))]
        labels = (rng.random((num, 80)) < 0.04).astype(np.uint8)
        write_labels(labels_path(tmp_path, folder), names, labels, CLASS_NAMES, prepare.CATEGORY_IDS, "annotations")
    start = time.perf_counter()
    data_set = Coco14(tmp_path, tmp_path)
    np.testing.assert_array_equal(data_set.image_labels(names), labels)
    assert time.perf_counter() - start < 5
    assert len(pickle.dumps(data_set)) < 16 << 20                # what a spawned worker receives


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


@pytest.mark.parametrize("name", ["COCO_train2014_000000000001", EMPTY, "z", OVERLAP + "0"])
def test_unknown_ids_are_named(data_set, name):
    with pytest.raises(InputError, match=f"1 ids of the list .* the first {name};"):
        data_set.image_labels([OVERLAP, name])
    with pytest.raises(InputError):
        data_set.image_path(name)


def test_adapter_refuses_what_is_not_prepared(root, out, tmp_path):
    with pytest.raises(InputError, match="make it with python coco14/prepare.py"):
        Coco14(root, tmp_path)
    with pytest.raises(InputError, match="no folder train2014"):
        Coco14(tmp_path, out)
    (tmp_path / "labels_train2014.npz").write_bytes(labels_path(out, "train2014").read_bytes()[:300])
    with pytest.raises(InputError, match="damaged labels"):
        Coco14(root, tmp_path)
    for folder, classes in (("train2014", ["cat"]), ("val2014", ["dog"])):
        write_labels(labels_path(tmp_path, folder), [folder], np.ones((1, 1), np.uint8), classes, [1], "annotations")
    with pytest.raises(InputError, match="differ in their classes"):
        Coco14(root, tmp_path)
    for folder in ("train2014", "val2014"):
        write_labels(labels_path(tmp_path, folder), ["x"], np.ones((1, 1), np.uint8), ["cat"], [1], "annotations")
    with pytest.raises(InputError, match="image x stands in train2014 and in val2014"):
        Coco14(root, tmp_path)
