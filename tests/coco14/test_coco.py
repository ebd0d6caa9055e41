"""The data set COCO as the stages see it: lists, labels, paths, the size of the real one, and bad input."""

import json
import pickle
import time

import numpy as np
import pytest

from coco14 import prepare
from coco14.coco import CLASS_NAMES, Coco14, labels_path, write_labels
from data.sample import InputError
from tests.coco14.generated import CROWD, EMPTY, FLAT, NAMES, OVERLAP, UTF8, VAL


def test_lists_labels_and_counts(data_set, out):
    ids, origin = data_set.split("train")
    assert origin.startswith("train2014 (") and data_set.split("train_aug")[0] == ids and ids == sorted(ids)
    assert set(NAMES) - set(ids) == {EMPTY, FLAT} and len(ids) == 16
    assert data_set.split("val")[0] == [VAL]
    assert data_set.class_names == ("cat", "dog", "never used", "kite") and data_set.num_classes == 4
    assert (data_set.benchmark, data_set.label_source) == (None, "annotations")
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


def test_official_categories():
    assert len(CLASS_NAMES) == len(set(CLASS_NAMES)) == len(prepare.CATEGORY_IDS) == 80
    ids = dict(zip(CLASS_NAMES, prepare.CATEGORY_IDS))
    assert [ids[name] for name in ("person", "stop sign", "backpack", "tv", "toothbrush")] == [1, 13, 27, 72, 90]


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


@pytest.mark.parametrize("name", ["COCO_train2014_000000000001", EMPTY, "z", OVERLAP + "0"])
def test_unknown_ids_are_named(data_set, name):
    with pytest.raises(InputError, match=f"1 ids of the list .* the first {name};"):
        data_set.image_labels([OVERLAP, name])
    with pytest.raises(InputError):
        data_set.image_path(name)


def test_adapter_refuses_what_is_not_prepared(root, out, tmp_path):
    with pytest.raises(InputError, match=r"make it with python coco14/prepare\.py"):
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
