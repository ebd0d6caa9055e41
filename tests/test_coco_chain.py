"""The chain end to end on a generated COCO."""

import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pycocotools", reason="coco14/prepare.py needs pycocotools")
pytest.importorskip("ijson", reason="coco14/prepare.py needs ijson")
from tests.coco14.generated import H, W, run_prepare, train_content, val_content, write_coco


def test_chain_on_coco(tmp_path, command):
    (tmp_path / "COCO").mkdir()
    root = write_coco(tmp_path / "COCO", train_content(), val_content())
    rng = np.random.default_rng(0)
    for folder, what in (("train2014", train_content()), ("val2014", val_content())):
        for image in what["images"]:
            Image.fromarray(rng.integers(0, 255, (H, W, 3), dtype=np.uint8)).save(root / folder / image["file_name"])
    out, run = tmp_path / "prepared", tmp_path / "run"
    run_prepare(root, out)
    flags = ["--dataset", "coco14", "--coco_root", root, "--coco_prepared", out, "--work_dir", run]
    assert command("run_sample", *flags, root=None) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    # As in the release: no IRN, and the masks are the IR labels.
    assert "train_irn" not in metrics and not (run / "irn.pth").exists()
    for path in (run / "sem_seg").glob("*.png"):
        assert np.array_equal(np.array(Image.open(path)), np.array(Image.open(run / "ir_label" / path.name)))
    assert len(metrics["train_sfc"]["class_counts"]) == 4
    listed = (out / "ImageSets/train2014.txt").read_text().split()
    assert sorted(path.stem for path in (run / "sem_seg").glob("*.png")) == sorted(listed)
    assert command("run_sample", *flags, "--with_irn", "--overwrite", root=None) == 0
    assert (run / "irn.pth").exists()
    assert command("train_sfc", "--dataset", "coco14", "--work_dir", tmp_path / "other", root=None) == 2
