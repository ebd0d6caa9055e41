import numpy as np
import pytest

from data.sample import InputError, read_list, write_mask
from voc12.voc import CLASS_NAMES, Voc12


@pytest.fixture
def voc(tmp_path):
    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "SegmentationClassAug", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    write(tmp_path, "train", "a\nb\n")
    write(tmp_path, "val", "c\n")
    return tmp_path


def write(root, split, text):
    (root / f"ImageSets/Segmentation/{split}.txt").write_text(text)


def annotate(root, name, *classes):
    objects = "".join(f"<object><name>{c}</name></object>" for c in classes)
    (root / f"Annotations/{name}.xml").write_text(f"<annotation>{objects}</annotation>")


def test_where_train_aug_comes_from(voc):
    data_set = Voc12(voc)
    assert data_set.split("train_aug")[0] == ["a", "b"] and "for want of" in data_set.split("train_aug")[1]
    for name in "abcd":
        write_mask(voc / f"SegmentationClassAug/{name}.png", np.zeros((2, 2)))
    ids, origin = data_set.split("train_aug")
    assert ids == ["a", "b", "d"] and "without val" in origin
    write(voc, "trainaug", "/JPEGImages/d.jpg /SegmentationClassAug/d.png\n")
    assert data_set.split("train_aug")[0] == ["d"]
    write(voc, "train_aug", "b\n")
    assert data_set.split("train_aug")[0] == ["b"]
    assert data_set.split("val")[0] == ["c"]


def test_labels_from_xml_and_masks(voc):
    annotate(voc, "a", "person", "aeroplane", "person")
    write_mask(voc / "SegmentationClassAug/a.png", np.array([[0, 15], [255, 1]]))
    xml, masks = Voc12(voc).image_labels(["a"]), Voc12(voc, "masks").image_labels(["a"])
    assert np.array_equal(xml, masks) and xml.sum() == 2
    assert xml[0, CLASS_NAMES.index("person")] == xml[0, CLASS_NAMES.index("aeroplane")] == 1


def test_official_masks_come_first(voc):
    write_mask(voc / "SegmentationClassAug/a.png", np.full((2, 2), 3))
    data_set = Voc12(voc)
    assert data_set.read_mask("a").max() == 3
    write_mask(voc / "SegmentationClass/a.png", np.full((2, 2), 4))
    assert data_set.read_mask("a").max() == 4


def test_own_class_names(voc):
    assert Voc12(voc).benchmark == "voc12" and Voc12(voc).num_classes == 20
    (voc / "classes.txt").write_text("zebra\nfish\n")
    data_set = Voc12(voc)
    assert data_set.class_names == ("zebra", "fish") and data_set.benchmark is None
    annotate(voc, "a", "fish")
    assert data_set.image_labels(["a"]).tolist() == [[0, 1]]
    (voc / "classes.txt").write_text("\ufeffzebra\r\nfish\r\n", encoding="utf-8")
    assert Voc12(voc).class_names == ("zebra", "fish")


@pytest.mark.parametrize("content, reason", [
    (b"", "needs 1 to 254"), (b"zebra\nzebra\n", "needs 1 to 254"), (b"Background\nzebra\n", "without the background"),
    ("ch\u00e2teau\n".encode("utf-16"), "save it as UTF-8 text, one class a line")])
def test_unusable_class_names(voc, content, reason):
    (voc / "classes.txt").write_bytes(content)
    with pytest.raises(InputError, match=rf"classes\.txt: .*{reason}"):
        Voc12(voc)


@pytest.mark.parametrize("content, reason", [
    ("<annotation><object><name>unicorn</name></object></annotation>", "unknown class 'unicorn'"),
    ("<annotation></annotation>", "no object"),
    ("<annotation><object>", "damaged annotation"),
    (None, "--labels masks")])
def test_unusable_annotations(voc, content, reason):
    if content is not None:
        (voc / "Annotations/a.xml").write_text(content)
    with pytest.raises(InputError, match=reason) as error:
        Voc12(voc).image_labels(["a"])
    assert "a.xml" in str(error.value)


def test_unusable_folders(tmp_path, voc):
    with pytest.raises(InputError, match="JPEGImages"):
        Voc12(tmp_path / "absent")
    (voc / "ImageSets/Segmentation/train.txt").unlink()
    with pytest.raises(InputError, match=r"train\.txt"):
        Voc12(voc).split("train")


def test_generated_set_is_in_this_layout(mini):
    data_set = Voc12(mini)
    ids = data_set.split("train")[0]
    assert ids == read_list(mini / "ImageSets/Segmentation/train_aug.txt") and data_set.num_classes == 4
    assert np.array_equal(data_set.image_labels(ids), Voc12(mini, "masks").image_labels(ids))
