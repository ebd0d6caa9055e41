"""The generated data set: layout, masks, class frequencies, determinism, and the refusal of foreign folders."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import mini_voc
from data.sample import InputError

NUM_TRAIN, NUM_VAL, SIZE, CLASSES = 24, 6, 96, 8
SETTINGS = {"num_train": NUM_TRAIN, "num_val": NUM_VAL, "image_size": SIZE, "num_classes": CLASSES}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return mini_voc.generate(tmp_path_factory.mktemp("mini"), **SETTINGS, workers=1)


def read_ids(root, name):
    return (root / "ImageSets" / "Segmentation" / f"{name}.txt").read_text().split()


def read_mask(root, folder, image_id):
    return np.array(Image.open(root / folder / f"{image_id}.png"))


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_lists_and_files(root):
    train, val = read_ids(root, "train"), read_ids(root, "val")
    assert len(train) == NUM_TRAIN and len(val) == NUM_VAL
    assert train[0] == "mini_train_0001" and val[-1] == f"mini_val_{NUM_VAL:04d}"
    assert read_ids(root, "train_aug") == train
    for image_id in train + val:
        with Image.open(root / "JPEGImages" / f"{image_id}.jpg") as image:
            assert image.size == (SIZE, SIZE) and image.mode == "RGB"
        with Image.open(root / "SegmentationClass" / f"{image_id}.png") as mask:
            assert mask.mode == "P" and mask.getpalette()[3:6] == [128, 0, 0]
        assert np.array_equal(read_mask(root, "SegmentationClass", image_id),
                              read_mask(root, "SegmentationClassAug", image_id))
    assert not list(root.rglob("*.tmp"))


def test_masks_agree_with_annotations(root):
    names = (root / "classes.txt").read_text().split()
    assert len(set(names)) == CLASSES
    for image_id in read_ids(root, "train"):
        mask, parts = (read_mask(root, folder, image_id) for folder in ("SegmentationClass", "SegmentationPart"))
        objects = ET.parse(root / "Annotations" / f"{image_id}.xml").findall("object")
        classes = [names.index(entry.findtext("name")) + 1 for entry in objects]
        assert len(classes) == len(set(classes)) and len(classes) in (1, 2)
        assert set(np.unique(mask)) == {0, 255, *classes}
        assert set(np.unique(parts)) == {0, mini_voc.SHARED, mini_voc.DISCRIMINATIVE, 255}
        assert np.array_equal(parts == 255, mask == 255) and np.array_equal(parts == 0, mask == 0)
        assert (mask == 255).mean() < 0.15
        for entry, value in zip(objects, classes):
            x1, y1, x2, y2 = (int(entry.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax"))
            assert 1 <= x1 < x2 <= SIZE and 1 <= y1 < y2 <= SIZE
            inside = np.zeros(mask.shape, bool)
            inside[y1 - 1:y2, x1 - 1:x2] = True
            assert not (mask == value)[~inside].any()
            assert set(parts[mask == value]) == {mini_voc.SHARED, mini_voc.DISCRIMINATIVE}


def test_every_object_stays_visible():
    rng = np.random.default_rng(0)
    for first in range(0, len(mini_voc.GLYPHS), 2):
        looks = [mini_voc.class_look(rng, c, SIZE, (0.46, 0.46)) for c in (first, first + 1)]
        scene = mini_voc.render(rng, SIZE, looks)
        assert scene.image.shape == (SIZE, SIZE, 3) and scene.image.dtype == np.uint8
        for k in (1, 2):
            assert (scene.objects == k).mean() > 0.03
            assert set(scene.parts[scene.objects == k]) == {mini_voc.SHARED, mini_voc.DISCRIMINATIVE}


def test_parts_have_about_the_same_area():
    ratios = []
    for c in range(len(mini_voc.GLYPHS)):
        rng = np.random.default_rng(c)
        parts = mini_voc.render(rng, SIZE, [mini_voc.class_look(rng, c, SIZE, (0.6, 0.6))]).parts
        ratios.append((parts == mini_voc.DISCRIMINATIVE).sum() / (parts == mini_voc.SHARED).sum())
    assert min(ratios) > 0.6 and max(ratios) < 2.5


def test_long_tail_and_balanced_frequencies():
    tail = mini_voc.class_probabilities(8, balanced=False, seed=0)
    assert np.allclose(np.sort(tail)[::-1], [.46, .12, .10, .09, .08, .06, .05, .04], atol=0.01)
    assert not np.array_equal(tail, mini_voc.class_probabilities(8, balanced=False, seed=1))
    assert np.allclose(mini_voc.class_probabilities(5, balanced=True, seed=0), 0.2)
    for num_classes in (2, 16):
        assert np.isclose(mini_voc.class_probabilities(num_classes, False, 0).sum(), 1)

    labels = mini_voc.draw_classes(2000, tail, np.random.default_rng(0))
    counts = np.bincount(np.concatenate(labels), minlength=8)
    assert counts.argmax() == tail.argmax() and counts.max() > 3 * np.sort(counts)[-2]
    assert 0.27 < np.mean([len(label) == 2 for label in labels]) < 0.33


@pytest.mark.parametrize("num_classes", [2, 8, 16])
def test_every_class_occurs_in_the_smallest_set(num_classes):
    probabilities = mini_voc.class_probabilities(num_classes, False, 0)
    for seed in range(20):
        labels = mini_voc.draw_classes(num_classes, probabilities, np.random.default_rng(seed))
        assert set(np.concatenate(labels)) == set(range(num_classes))
        assert all(len(set(label)) == len(label) for label in labels)


def test_head_shares_its_body_with_tail_classes(root):
    record = json.loads((root / "mini_voc.json").read_text())
    head = record["classes_by_frequency"][0]
    assert sorted(len(names) for names in record["shared_body"].values()) == [CLASSES // 2] * 2
    assert any(head in names and len(names) > 1 for names in record["shared_body"].values())
    assert min(record["images"]["train"].values()) >= 1


def test_processes_do_not_change_the_result(root, tmp_path):
    assert contents(mini_voc.generate(tmp_path / "two", **SETTINGS, workers=2)) == contents(root)
    other = contents(mini_voc.generate(tmp_path / "other", **SETTINGS, workers=1, seed=1))
    name = "JPEGImages/mini_train_0001.jpg"
    assert other[name] != contents(root)[name]


def test_second_call_does_nothing_and_other_settings_raise(root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    mini_voc.generate(root, **SETTINGS)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    with pytest.raises(InputError, match="choose another folder or delete"):
        mini_voc.generate(root, **{**SETTINGS, "num_train": 30})


def test_unfinished_set_is_completed(root, tmp_path):
    copy = mini_voc.generate(tmp_path / "copy", **SETTINGS, workers=1)
    (copy / "mini_voc.json").unlink()
    (copy / "JPEGImages" / "mini_train_0002.jpg").unlink()
    torn = copy / "JPEGImages" / ".mini_train_0002.jpg.1.tmp"              # what a killed process leaves
    torn.touch()
    mini_voc.generate(copy, **SETTINGS, workers=1)
    torn.unlink()
    assert contents(copy) == contents(root)


def test_foreign_folder_is_refused(tmp_path):
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "JPEGImages" / "2007_000032.jpg").touch()
    with pytest.raises(InputError, match="choose another folder"):
        mini_voc.generate(tmp_path, **SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["JPEGImages"]


@pytest.mark.parametrize("wrong", [{"num_classes": 1}, {"num_classes": 17}, {"num_train": 7}, {"num_val": 0},
                                   {"image_size": 32}])
def test_wrong_sizes_raise(tmp_path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        mini_voc.generate(tmp_path / "set", **{**SETTINGS, **wrong})
    assert not (tmp_path / "set").exists()


def test_script_by_path(tmp_path):
    script = Path(mini_voc.__file__).parent
    command = [sys.executable, script, tmp_path / "set", "--num_train", "4", "--num_val", "2", "--num_classes", "3",
               "--image_size", "64", "--balanced", "--seed", "3"]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    assert len(read_ids(tmp_path / "set", "train")) == 4
    failed = subprocess.run([*command, "--no-balanced"], cwd=tmp_path, capture_output=True,
                            text=True, check=False)
    assert failed.returncode == 2 and "other settings" in failed.stderr
