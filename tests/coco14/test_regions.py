"""Pseudo masks as JSON in COCO's format, read back by pycocotools; the command on a run."""

import json
import sys

import numpy as np
import pytest
from pycocotools.coco import COCO

from coco14.regions import write_coco_json
from data.sample import InputError, write_mask
from tools import export
from voc12.voc import Voc12

MASK = np.zeros((20, 30), np.uint8)
MASK[2:6, 3:9] = 2                       # 24 pixels
MASK[6:8, 9:11] = 2                      # its corner touches
MASK[12:15, 20:30] = 2                   # apart from both
MASK[14:19, 1:4] = 1
MASK[14, 1:4] = 255


@pytest.fixture
def masks(tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    write_mask(folder / "a.png", np.full((4, 5), 255))
    write_mask(folder / "b.png", MASK)
    return folder


def write(folder, ids, path):
    return write_coco_json(path, ("cat", "dog"), ids, lambda name: f"JPEGImages/{name}.jpg",
                           lambda name: folder / f"{name}.png", num_workers=1)


def test_regions_read_back(masks, tmp_path):
    assert write(masks, ["a", "b"], tmp_path / "out.json") == 3
    coco = COCO(tmp_path / "out.json")
    assert [image["file_name"] for image in coco.loadImgs([1, 2])] == ["JPEGImages/a.jpg", "JPEGImages/b.jpg"]
    assert [category["name"] for category in coco.loadCats([1, 2])] == ["cat", "dog"]
    assert coco.getAnnIds(imgIds=1) == []
    regions = coco.loadAnns(coco.getAnnIds(imgIds=2))
    assert [(region["category_id"], region["area"], region["bbox"]) for region in regions] == [
        (1, 12, [1, 15, 3, 4]), (2, 28, [3, 2, 8, 6]), (2, 30, [20, 12, 10, 3])]
    painted = np.zeros_like(MASK)
    for region in regions:
        painted[coco.annToMask(region) > 0] = region["category_id"]
    np.testing.assert_array_equal(painted, np.where(MASK == 255, 0, MASK))


def test_unusable_mask(masks, tmp_path):
    write_mask(masks / "b.png", np.full((2, 2), 3))
    with pytest.raises(InputError, match=r"b\.png: class indices \[3\]"):
        write(masks, ["b"], tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_without_pycocotools(tmp_path, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "coco14.regions")
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(SystemExit, match="2"):
        export.main([str(tmp_path), "--coco", str(tmp_path / "out.json")])
    assert "pip install pycocotools" in capsys.readouterr().err


def test_the_command(mini, tmp_path, capsys):
    run, ids = tmp_path / "run", Voc12(mini).split("val")[0][:3]
    (run / "sem_seg").mkdir(parents=True)
    for name in ids:
        write_mask(run / "sem_seg" / f"{name}.png", Voc12(mini).read_mask(name))
    entry = {"settings": {"voc12_root": str(mini)}, "upstream": {}, "complete": True, "machine": {}}

    def exported(config):
        (run / "config.json").write_text(json.dumps(config))
        export.main([str(run), "--coco", str(tmp_path / "out.json"), "--num_workers", "1"])

    exported({"make_sem_seg_labels": entry})
    content = json.loads((tmp_path / "out.json").read_text())
    assert [image["file_name"] for image in content["images"]] == [f"JPEGImages/{name}.jpg" for name in sorted(ids)]
    assert all((mini / image["file_name"]).exists() for image in content["images"])
    for name, image in zip(sorted(ids), content["images"]):
        shown = {region["category_id"] for region in content["annotations"] if region["image_id"] == image["id"]}
        assert shown == set(np.unique(Voc12(mini).read_mask(name))) - {0, 255}
    for config, message in (({"make_sem_seg_labels": entry | {"complete": False}}, "no pseudo masks, or not all"),
                            ({"make_sem_seg_labels": entry | {"settings": {"voc12_root": "gone"}}}, "gone: no folder")):
        with pytest.raises(SystemExit, match="2"):
            exported(config)
        assert message in capsys.readouterr().err
