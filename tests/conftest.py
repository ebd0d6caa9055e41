import importlib
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))       # the stage scripts lie at the top level

from data import mini_voc  # noqa: E402
from frame.stage import run_alone  # noqa: E402

torch.set_num_threads(1)                                             # tiny tensors: threads would only wait


@pytest.fixture(scope="session")
def mini(tmp_path_factory):
    """A tiny generated data set: 24 training and 8 validation images of 64 pixels, 4 classes."""
    root = tmp_path_factory.mktemp("data") / "mini"
    mini_voc.generate(root, num_train=24, num_val=8, image_size=64, num_classes=4, seed=0, workers=1)
    return root


TINY = ["--preset", "mini", "--crop_size", "64", "--resize_long", "48,80", "--epochs", "2", "--batch_size", "6",
        "--ibr_images", "2", "--scales", "1.0,0.5", "--irn_crop_size", "64", "--irn_batch_size", "6",
        "--irn_radius", "3", "--crf_iterations", "2", "--walk_exp", "3", "--num_workers", "0", "--device", "cpu"]


@pytest.fixture
def command(mini, monkeypatch):
    """Run a stage script as its user does, in this process: command(stage, *flags) -> exit status."""
    def run(stage, *flags, root=mini):
        arguments = [f"{stage}.py", *(["--voc12_root", str(root)] if root else []), *TINY, *map(str, flags)]
        monkeypatch.setattr(sys, "argv", arguments)
        try:
            module = importlib.import_module(stage)
            module.main() if hasattr(module, "main") else run_alone(module)
        except SystemExit as stop:
            return stop.code
        return 0
    return run
