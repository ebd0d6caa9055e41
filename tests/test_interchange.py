"""The snippets of docs/INTERCHANGE.md: torchvision's runs as it stands, mmsegmentation's is read as that reads it."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.sample import palette, write_mask
from tests.helpers import ROOT
from tests.voc12 import distributed as small
from voc12.voc import CLASS_NAMES, Voc12

SNIPPETS = dict(re.findall(r"## (\w+)\n.*?```python\n(.*?)```", (ROOT / "docs/INTERCHANGE.md").read_text("utf-8"),
                           re.DOTALL))


@pytest.fixture
def masks(tmp_path, monkeypatch):
    """VOCdevkit with a list train_aug, and runs/sfc/sem_seg, in the current folder -> id: mask."""
    monkeypatch.chdir(tmp_path)
    small.write_folder(tmp_path, small.voc_files())
    Voc12(small.VOC_ROOT).list_path("train_aug").write_bytes(small.lines(small.TRAIN_AUG))
    Path("runs/sfc/sem_seg").mkdir(parents=True)
    masks = {name: small.sbd_mask(name) for name in small.TRAIN_AUG}
    for name, mask in masks.items():
        write_mask(Path(f"runs/sfc/sem_seg/{name}.png"), mask)
    return masks


def test_torchvision(masks):
    values = {}
    exec(SNIPPETS["torchvision"], values)
    assert len(values["train"]) == len(masks)
    for (image, mask), expected in zip(values["train"], masks.values()):
        assert image.mode == "RGB" and image.size == mask.size
        np.testing.assert_array_equal(np.array(mask), expected)


def test_mmsegmentation(masks):
    """As its BaseSegDataset does: paths joined to data_root, id plus suffix, Pillow's array of the mask as it is."""
    values = {"train_pipeline": []}
    exec(SNIPPETS["mmsegmentation"].replace("/home/me/sfc", str(Path.cwd())), values)
    data_set = values["train_dataloader"]["dataset"]
    root, prefix = Path(data_set["data_root"]), data_set["data_prefix"]
    assert Path(prefix["seg_map_path"]).is_absolute()
    ids = [line.strip() for line in (root / data_set["ann_file"]).read_text().splitlines()]
    assert ids == list(masks)
    for name in ids:
        assert (root / prefix["img_path"] / f"{name}.jpg").exists()
        with Image.open(root / prefix["seg_map_path"] / f"{name}.png") as mask:
            np.testing.assert_array_equal(np.array(mask), masks[name])


def test_palette_and_classes_are_those_of_voc(masks):
    """What both frameworks know of VOC: aeroplane is 1 and dark red, tvmonitor 20, void 255 and light."""
    with Image.open("runs/sfc/sem_seg/2007_a.png") as mask:
        colours = np.array(mask.getpalette()).reshape(-1, 3)
    assert mask.mode == "P" and colours.flatten().tolist() == palette()
    assert colours[[0, 1, 20, 255]].tolist() == [[0, 0, 0], [128, 0, 0], [0, 64, 128], [224, 224, 192]]
    assert (CLASS_NAMES[0], CLASS_NAMES[19]) == ("aeroplane", "tvmonitor")
