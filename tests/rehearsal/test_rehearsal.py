"""Stages 1, 2, 5, 6, 8 and 9 as on a machine with a GPU: no mixed devices, and the host waits where it is meant to.

A wait costs more than its copy: what the host would have queued meanwhile starts late. Whoever adds one sees the test
fail with its place, and either avoids it (pinned memory and non_blocking=True, a value computed on the host, one copy
for many) or puts it below.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.helpers import ROOT
from tests.rehearsal.__main__ import CHAIN, VARIANTS

BACKWARD = """
import torch
from tests.rehearsal.fake_cuda import fake_cuda
with fake_cuda():
    weight = torch.nn.Parameter(torch.ones(3, device="cuda"))
    (2 * weight).sum().backward()
    assert weight.grad.device.type == "cuda"
"""
# Where the host may wait, and how often in a unit (a step, a batch, an image); None: however often, but not in units.
ONCE = {
    "train_sfc.py:build_model": "the weights go to the GPU",
    "train_sfc.py:run": "positions of this process and the loss's coefficients",
    "make_cam.py:run": "the weights",
    "train_irn.py:run": "the weights",
    "make_sem_seg_labels.py:walks": "the weights",
    "train_deeplab.py:run": "the weights",
    "segmentation/prediction.py:__init__": "the weights",
    "net/labels.py:nearest_index": "kept by size",
    "net/irn.py:as_map": "kept by radius",
    "frame/engine.py:_look": "the losses, every 10 steps",
    "frame/engine.py:_save": "a checkpoint",
    "data/sample.py:write_atomically": "a checkpoint",
    "frame/engine.py:_resume": "a checkpoint",
    "data/image_bank.py:load_state_dict": "a checkpoint",
    "train_sfc.py:log_cams": "pictures, every 100 steps",
}
IN_A_UNIT = {
    "frame/engine.py:train_step": 1,                         # fp16: whether a gradient overflowed
    "frame/network.py:infer": 1,
    "make_sem_seg_labels.py:predict_edges": 1,
    "segmentation/prediction.py:predict": 2,
}


def run_fresh(*words, **options):
    """A process of its own, which keeps what is patched to itself."""
    return subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False,
                          env=os.environ | {"OMP_NUM_THREADS": "1"}, **options)


@pytest.fixture(scope="module")
def rehearsed(mini, tmp_path_factory):
    """Name of a run -> what it printed."""
    done = run_fresh("-m", "tests.rehearsal", mini, tmp_path_factory.mktemp("rehearsal"))
    if done.returncode and (trial := run_fresh("-c", BACKWARD)).returncode:
        pytest.skip(f"this PyTorch has no backward pass of shapes alone: {trial.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    runs = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {run["name"]: run for run in runs}


@pytest.mark.parametrize("name", CHAIN | VARIANTS)
def test_a_stage_runs_on_a_gpu(rehearsed, name):
    run = rehearsed[name]
    assert run["status"] == (143 if name == "stopped" else 0), run["status"]
    assert sum(unit["operations"] for unit in run["units"]) > 0 or name == "cam_to_ir_label"


@pytest.mark.parametrize("name", CHAIN | VARIANTS)
def test_the_host_waits_only_where_it_may(rehearsed, name):
    before, *units = rehearsed[name]["units"]
    assert [place for place in before["waits"] if place not in ONCE] == []
    for unit in units:
        waits = {place: count for place, count in unit["waits"].items() if place not in ONCE}
        assert {place: count for place, count in waits.items() if count > IN_A_UNIT.get(place, 0)} == {}


def test_every_place_is_one_where_it_waits(rehearsed):
    """Lines of the lists above that nothing needs any more go."""
    seen = {place for run in rehearsed.values() for unit in run["units"] for place in unit["waits"]}
    assert sorted({*ONCE, *IN_A_UNIT} - seen) == []


@pytest.mark.parametrize("name", ["one of two processes", "IRN, one of two processes"])
def test_processes_exchange_only_what_trains(rehearsed, name):
    exchanged = rehearsed[name]["exchanged"]
    assert 0 < exchanged["exchanged"] == exchanged["with_gradient"] < exchanged["parameters"]
