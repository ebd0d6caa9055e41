"""The command that runs everything on a GPU, on the CPU."""

import json
import sys

import pytest

from benchmarks import gpu


def run_command(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--tiny", *map(str, flags)])
    with pytest.raises(SystemExit) as stop:
        gpu.main()
    return stop.value.code


def test_a_run_is_stopped(monkeypatch, tmp_path):
    out = tmp_path / "out"
    assert run_command(monkeypatch, "--out", out, "--only", "stopped") == 0
    assert [row["status"] for row in json.loads((out / "gpu.json").read_text())["steps"]] == [143]
    assert (out / "stopped/train_sfc_checkpoint.pth").exists()
    assert "| stopped | train_sfc |" in (out / "gpu.md").read_text()


def test_a_step_that_fails_is_said(monkeypatch, tmp_path, capsys):
    python = [sys.executable, "-c"]
    failing = {"good": gpu.Step([*python, ""]), "bad": gpu.Step([*python, "raise SystemExit(3)"]),
               "never stopped": gpu.Step([*python, ""], stop=tmp_path / "nothing", status=143)}
    monkeypatch.setattr(gpu, "steps", lambda *_: failing)
    assert run_command(monkeypatch, "--out", tmp_path / "out") == 1
    assert [row["ok"] for row in json.loads((tmp_path / "out/gpu.json").read_text())["steps"]] == [True, False, False]
    assert run_command(monkeypatch, "--out", tmp_path / "out") == 2 and "there already" in capsys.readouterr().err
