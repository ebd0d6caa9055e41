"""The mini backbone's weight file, which is tracked: a writing that fails leaves the old one."""

import pytest
import torch

from tools import pretrain_mini

QUICK = ["--num_train", "4", "--num_val", "2", "--image_size", "32", "--epochs", "1", "--batch_size", "2"]


def test_a_failed_write_leaves_the_old_weights(tmp_path, monkeypatch):
    images, factors = torch.zeros(6, 3, 32, 32, dtype=torch.uint8), torch.zeros(6, 4, dtype=torch.int64)
    monkeypatch.setattr(pretrain_mini, "make_samples", lambda *_: (images, factors))
    monkeypatch.setattr(pretrain_mini, "train", lambda *_: None)

    def fail(state, target):
        with open(target, "wb") if not hasattr(target, "write") else target as file:
            file.write(b"half")
        raise OSError("disk full")

    path = tmp_path / "mini.pth"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(torch, "save", fail)
        pretrain_mini.main([*QUICK, "--out", str(path)])
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
    pretrain_mini.main([*QUICK, "--out", str(path)])
    assert "conv1.weight" in torch.load(path, weights_only=True)
