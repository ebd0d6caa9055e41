import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from parity.check import Report, check_file, find_checker, main

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("name", ["sfc_train", "cam_inference"])
def test_reference_vectors(name, capsys):
    report = Report()
    check_file(GOLDEN / f"{name}.npz", report)
    # Three boxes of the trace are stored as pickles, which are never read.
    assert report.rows and report.failed == []
    assert all(name.startswith("trace_valid_box") for name in report.unchecked)


def test_a_changed_number_fails(tmp_path, monkeypatch, capsys):
    arrays = dict(np.load(GOLDEN / "random_walk.npz"))
    arrays["rw_beta10_exp4"][0, 0, 3, 3] += 0.01
    np.savez(tmp_path / "random_walk_changed.npz", **arrays)
    monkeypatch.setattr(sys, "argv", ["check_parity.py", str(tmp_path)])
    assert main() == 1
    assert capsys.readouterr().out.strip().endswith("3 quantities, 1 failed")


def test_other_names_and_empty_folders(tmp_path, monkeypatch):
    assert find_checker(Path("sfc_train_classes7.npz")) and find_checker(Path("foreign.npz")) is None
    monkeypatch.setattr(sys, "argv", ["check_parity.py", str(tmp_path)])
    assert main() == 2


def test_runs_as_a_script():
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "tools/check_parity.py", "--help"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and "DIR" in done.stdout
