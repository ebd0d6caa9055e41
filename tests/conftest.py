import importlib
import shutil
import sys

import pytest
import torch

from data import mini_voc
from frame.stage import run_alone
from tests.helpers import TINY, files_of

torch.set_num_threads(1)                                             # tiny tensors: threads would only wait


@pytest.fixture(scope="session")
def mini(tmp_path_factory):
    """A tiny generated data set: 24 training and 8 validation images of 64 pixels, 4 classes."""
    root = tmp_path_factory.mktemp("data") / "mini"
    mini_voc.generate(root, num_train=24, num_val=8, image_size=64, num_classes=4, seed=0, workers=1)
    return root


def call(stage, *flags):
    """Run a stage script as its user does, in this process -> exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{stage}.py", *map(str, flags)])
        try:
            module = importlib.import_module(stage)
            module.main() if hasattr(module, "main") else run_alone(module)
        except SystemExit as stop:
            return stop.code
    return 0


@pytest.fixture
def command(mini):
    """command(stage, *flags) -> exit status, with the flags of the tiny chain on the tiny data set."""
    def run(stage, *flags, root=mini):
        return call(stage, *(["--voc12_root", root] if root else []), *TINY, *flags)
    return run


@pytest.fixture(scope="session")
def finished(mini, tmp_path_factory):
    """A finished run of the chain, trained once a session; a test that changes it takes a `copy`."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert call("run_sample", "--voc12_root", mini, "--work_dir", folder, *TINY) == 0
    before = files_of(folder)
    yield folder
    assert files_of(folder) == before, "a test changed the run that all share"


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")
