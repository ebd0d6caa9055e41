"""What tests of several rooms share. Fixtures are in conftest.py."""

import json
from pathlib import Path

import torch

from parity.check import check_file
from parity.report import Report

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).parent / "golden"
TINY = ["--preset", "mini", "--crop_size", "64", "--resize_long", "48,80", "--epochs", "2", "--batch_size", "6",
        "--ibr_images", "2", "--scales", "1.0,0.5", "--irn_crop_size", "64", "--irn_batch_size", "6",
        "--irn_radius", "3", "--crf_iterations", "2", "--walk_exp", "3", "--num_workers", "0", "--device", "cpu"]


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
