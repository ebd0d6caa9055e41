"""Which device a run takes and what it says of it; a GPU is pretended where one is needed."""

import json
import logging
import shutil

import pytest
import torch

from data.sample import InputError
from runtime import command, device
from runtime.work_dir import WorkDir

TOO_OLD = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver"


@pytest.fixture
def said(monkeypatch):
    """The lines of the log, as "LEVEL text"."""
    lines = []

    class Lines(logging.Handler):
        def emit(self, record):
            lines.append(f"{record.levelname} {record.getMessage()}")

    device.announce.cache_clear()
    monkeypatch.setattr(device.log, "handlers", [Lines()])
    monkeypatch.setattr(device.log, "level", logging.INFO)
    return lines


@pytest.fixture
def driver(monkeypatch):
    """driver(message): PyTorch can use no GPU, for that reason."""
    def broken(message, kind=RuntimeError):
        def refuse():
            raise kind(message)
        monkeypatch.setattr(torch.cuda, "init", refuse)
    return broken


@pytest.mark.parametrize("message, kind, reason", [
    (TOO_OLD, RuntimeError, "The NVIDIA driver on your system is too old (found version 11040)"),
    ("Torch not compiled with CUDA enabled", AssertionError, "Torch not compiled with CUDA enabled")])
def test_without_a_gpu_it_says_once_why(driver, said, message, kind, reason):
    driver(message, kind)
    for _ in range(2):
        assert device.prepare_device("auto").type == "cpu"
    assert len(said) == 1 and said[0].startswith("WARNING device: cpu, ") and f"({reason})" in said[0]


def test_a_cpu_that_was_asked_for_needs_no_warning_and_no_driver(driver, said):
    driver("never asked", KeyError)
    assert device.prepare_device("cpu").type == "cpu"
    assert [line.split(",")[0] for line in said] == ["INFO device: cpu"]


def test_auto_takes_the_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    assert device.choose("auto") == device.Choice("cuda")


def test_a_gpu_that_was_asked_for_is_not_replaced():
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(InputError, match="--device cuda cannot be used here"):
        device.prepare_device("cuda")


def test_a_stage_names_the_hardware_it_ran_on(monkeypatch, tmp_path):
    """The processor, also where there is a GPU, unless the stage took memory of that."""
    taken = {"allocation.all.allocated": 5}
    for name, value in {"is_available": True, "is_initialized": True, "get_device_name": "a GPU", "memory_stats": taken,
                        "max_memory_allocated": 3_000_000, "reset_peak_memory_stats": None}.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    work_dir = WorkDir(tmp_path, quiet=True)
    for stage, new in (("eval_cam", 0), ("train_sfc", 7)):
        work_dir.begin(stage, {}, (), ())
        gpu = device.GpuUse()
        taken["allocation.all.allocated"] += new
        work_dir.finish(stage, {}, 1.0, gpu.facts())
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["eval_cam"]["machine"]["hardware"] == device.hardware(device.CPU) != "a GPU"
    assert config["train_sfc"]["machine"].items() >= {"hardware": "a GPU", "gpu_mb": 3}.items()


def test_small_shared_memory_is_said(monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(command.shutil, "disk_usage", lambda path: usage._replace(total=64 << 20))
    said = command.small_shared_memory(16)
    assert "has 67 MB" in said and "--shm-size" in said and said.endswith("--num_workers 0")
    assert command.small_shared_memory(0) == ""
