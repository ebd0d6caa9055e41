"""python -m voc12.subset: what it cuts from a data set in VOC layout, resuming, and bad input."""

import numpy as np
import pytest
from PIL import Image

from data.sample import read_image, read_list, write_mask
from tests.helpers import files_of
from voc12 import subset
from voc12.voc import CLASS_NAMES, Voc12

CAT, DOG, SHEEP = (CLASS_NAMES.index(name) + 1 for name in ("cat", "dog", "sheep"))
# Id -> class indices, image size (W, H).
IMAGES = {"a": ([CAT], (60, 40)), "b": ([SHEEP, DOG], (40, 60)), "c": ([DOG], (30, 20)), "d": ([SHEEP], (60, 60)),
          "e": ([CAT, DOG], (61, 33))}
LISTS = {"train_aug": "abcd", "train": "ae", "val": "bd"}


@pytest.fixture
def voc(tmp_path):
    """A data set in which an image shows each of its classes in a vertical stripe beside some background and void."""
    root = tmp_path / "voc"
    for folder in subset.FOLDERS:
        (root / folder).mkdir(parents=True)
    for index, (name, (classes, size)) in enumerate(IMAGES.items()):
        noise = np.random.default_rng(index).integers(0, 255, (*size[::-1], 3), np.uint8)
        Image.fromarray(noise).save(root / "JPEGImages" / f"{name}.jpg")
        write_mask(root / "SegmentationClass" / f"{name}.png", stripes(classes, size))
        objects = "".join(f"<object><name>{CLASS_NAMES[k - 1]}</name></object>" for k in classes)
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{objects}</annotation>")
    for split, ids in LISTS.items():
        (root / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(ids))
    return root


def stripes(classes, size):
    values = [0, 255, *classes]
    return np.broadcast_to(np.array(values, np.uint8)[np.arange(size[0]) * len(values) // size[0]], size[::-1])


def run(voc, out, *flags):
    """Exit status of the command."""
    try:
        subset.main([str(part) for part in ("--voc12_root", voc, "--out", out, "--num_workers", 1, *flags)])
    except SystemExit as stop:
        return stop.code
    return 0


def test_classes_and_size(voc, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(voc, out, "--classes", "dog,cat", "--long_side", 30) == 0
    cut = Voc12(out)
    assert cut.class_names == ("dog", "cat") and cut.benchmark is None
    assert cut.split("train_aug")[0] == ["a", "b", "c"] and cut.split("train")[0] == ["a", "e"]
    assert not cut.list_path("val").exists()
    np.testing.assert_array_equal(cut.image_labels(list("abce")), [[0, 1], [1, 0], [1, 0], [1, 1]])
    assert {name: read_image(cut.image_path(name)).shape[:2] for name in "abce"} == {
        "a": (20, 30), "b": (30, 20), "c": (20, 30), "e": (16, 30)}
    # Sheep would be 255; half of the width of b, of which only the left part is masked.
    assert sorted(path.stem for path in (out / "SegmentationClass").iterdir()) == ["a", "e"]
    np.testing.assert_array_equal(cut.read_mask("e", (16, 30)), stripes([2, 1], (30, 16)))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["images", "3", "2"] in lines and ["dog", "2", "1"] in lines and ["cat", "1", "2"] in lines


def test_shrunk_image_is_the_image(voc, tmp_path):
    gradient = np.broadcast_to(np.linspace(0, 255, 400).astype(np.uint8)[None, :, None], (300, 400, 3))
    Image.fromarray(gradient).save(voc / "JPEGImages/a.jpg", quality=95)
    write_mask(voc / "SegmentationClass/a.png", stripes([CAT], (400, 300)))
    assert run(voc, tmp_path / "out", "--long_side", 100) == 0
    np.testing.assert_allclose(read_image(tmp_path / "out/JPEGImages/a.jpg")[:, ::10], gradient[::4, 1::40], atol=3)


def test_whole_data_set_unchanged(voc, tmp_path):
    out = tmp_path / "out"
    assert run(voc, out, "--val") == 0
    for name in IMAGES:
        assert (out / "JPEGImages" / f"{name}.jpg").read_bytes() == (voc / "JPEGImages" / f"{name}.jpg").read_bytes()
    for name in "abde":
        np.testing.assert_array_equal(Voc12(out).read_mask(name), Voc12(voc).read_mask(name))
    assert Voc12(out).class_names == CLASS_NAMES and Voc12(out).split("val")[0] == list("bd")


def test_own_class_names(voc, tmp_path):
    names = ["Ä", "salt & <pepper>", *CLASS_NAMES]
    (voc / "classes.txt").write_text("\n".join(names), encoding="utf-8")
    (voc / "Annotations/c.xml").write_text("<annotation><object><name>salt &amp; &lt;pepper&gt;</name></object>"
                                           "<object><name>&#196;</name></object></annotation>")
    assert run(voc, tmp_path / "out", "--classes", "cat, salt & <pepper>,Ä") == 0
    np.testing.assert_array_equal(Voc12(tmp_path / "out").image_labels(["a", "c"]), [[1, 0, 0], [0, 1, 1]])


def test_other_classes_are_ignored_in_masks(voc, tmp_path):
    assert run(voc, tmp_path / "out", "--classes", "sheep", "--val") == 2        # no image of train shows one
    assert run(voc, tmp_path / "out", "--classes", "dog", "--val") == 0
    assert set(np.unique(Voc12(tmp_path / "out").read_mask("b"))) == {0, 1, 255}
    np.testing.assert_array_equal(Voc12(tmp_path / "out").read_mask("b") == 255, np.isin(
        Voc12(voc).read_mask("b"), (SHEEP, 255)))


def test_lists(voc, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "mine.txt").write_text("c\na\n")
    (tmp_path / "scored.txt").write_text("d\nb\n")
    assert run(voc, out, "--classes", "cat,dog", "--train_list", tmp_path / "mine.txt",
               "--score_list", tmp_path / "scored.txt") == 0
    assert read_list(out / "ImageSets/Segmentation/train_aug.txt") == ["c", "a"]
    assert read_list(out / "ImageSets/Segmentation/train.txt") == ["b"]


def test_goes_on(voc, tmp_path, capsys):
    out, whole = tmp_path / "out", tmp_path / "whole"
    picture = (voc / "JPEGImages/c.jpg").read_bytes()
    (voc / "JPEGImages/c.jpg").write_bytes(picture[:300])
    assert run(voc, out, "--long_side", 30) == 2
    assert "c.jpg: damaged image" in capsys.readouterr().err
    assert (out / "JPEGImages/a.jpg").exists() and not (out / "classes.txt").exists()
    (voc / "JPEGImages/c.jpg").write_bytes(picture)
    assert run(voc, out, "--long_side", 30) == run(voc, whole, "--long_side", 30) == 0
    assert run(voc, whole, "--long_side", 30) == 0
    assert files_of(out) == files_of(whole)


@pytest.mark.parametrize("flags, reason", [
    (("--classes", "cat,unicorn"), "--classes cat,unicorn: needs names out of aeroplane, bicycle"),
    (("--classes", "cat,cat"), "each once"),
    (("--classes", "bus"), "no image of train_aug shows bus"),
    (("--score_list", "absent.txt"), "absent.txt: list is missing")])
def test_bad_input_writes_nothing(voc, tmp_path, flags, reason, capsys):
    assert run(voc, tmp_path / "out", *flags) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_images_are_left_alone(voc, tmp_path, capsys):
    before = files_of(voc)
    assert run(voc, voc) == 2 and files_of(voc) == before
    assert "holds other images" in capsys.readouterr().err
    out = tmp_path / "out"
    assert run(voc, out) == 0
    before = files_of(out)
    assert run(voc, out, "--long_side", 30) == 2 and files_of(out) == before
    assert run(tmp_path, tmp_path / "new") == 2
    assert "--voc12_root must be the folder" in capsys.readouterr().err
