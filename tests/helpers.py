"""What tests of several rooms share. Fixtures are in conftest.py."""

import importlib
import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import torch

from frame.chain import STAGES
from frame.stage import run_alone
from parity.check import check_file
from parity.report import Report

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).parent / "golden"
TINY = ["--preset", "mini", "--crop_size", "64", "--resize_long", "48,80", "--epochs", "2", "--batch_size", "6",
        "--ibr_images", "2", "--scales", "1.0,0.5", "--irn_crop_size", "64", "--irn_batch_size", "6",
        "--irn_radius", "3", "--crf_iterations", "2", "--walk_exp", "3", "--num_workers", "0", "--device", "cpu"]


# Commands in processes of their own are forked by a server that has imported them and done nothing else: after a
# backward pass on a GPU, the process of the tests must not be forked.
PROCESSES = multiprocessing.get_context("forkserver")
LOADED_LATE = ["torch.utils.tensorboard", "torch._dynamo", "pydensecrf.densecrf", "scipy.sparse"]    # by the stages
PROCESSES.set_forkserver_preload(["tests.helpers", "run_sample", *STAGES, *LOADED_LATE])


def start_script(name, arguments, output, environment=()):
    """A process that runs a script of the top level with these arguments, its text at the end of the file `output`."""
    process = PROCESSES.Process(target=_script, args=(name, [*map(str, arguments)], output, dict(environment)))
    process.start()
    return process


def _script(name, arguments, output, environment):
    # Open to the end of the process, which says why it ended.
    sys.stdout = sys.stderr = open(output, "a", buffering=1)  # noqa: SIM115
    os.environ |= {name: str(value) for name, value in environment.items()}
    # Until the script watches for signals, and in the 20 ms from its last word to the end of the process, one would end
    # it as any process, which is nothing to test.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
    sys.argv = [f"{name}.py", *arguments]
    module = importlib.import_module(name)
    module.main() if name == "run_sample" else run_alone(module)


def files_of(folder):
    """Content of every result of a run: what must not depend on when and how it was made."""
    skip = ("config.json", "log.txt", "metrics.json", "report.html", "lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name not in skip and "tensorboard" not in path.parts}


def scores_of(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    return {stage: entry.get("scores") for stage, entry in metrics.items()}


def losses_of(folder, stage="train_sfc"):
    return json.loads((folder / "metrics.json").read_text())[stage]["losses"]


def weights_of(folder, name="sfc.pth"):
    return torch.load(folder / name, weights_only=True)["model"]


def assert_golden(file_name):
    """Every quantity of a reference file is within its tolerance."""
    report = Report()
    check_file(GOLDEN / file_name, report)
    assert report.rows and report.failed == [] and report.unchecked == []
