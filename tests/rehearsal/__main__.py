"""The stages on a machine with a GPU of which only shapes exist.

    python -m tests.rehearsal DATA_SET FOLDER              # small, as the test runs it
    python -m tests.rehearsal DATA_SET FOLDER --real       # networks and crops of the release: docs/PERFORMANCE.md

Prints a JSON line a run, see `rehearse`. A unit is what lies between two batches of a loader: a step, or an image.
"""

import argparse
import importlib
import json
import os
import signal
import sys
import time
import traceback
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch
from torch.utils.data import DataLoader

from benchmarks.gpu import random_weights
from data.sample import read_list
from frame.stage import run_alone
from tests.helpers import TINY
from tests.rehearsal.fake_cuda import FakeCuda, fake_cuda
from tests.rehearsal.fake_processes import two_processes


class Rehearsal(NamedTuple):
    """A run of a stage.

    work_dir     those of one name share a folder, and go on where the one before was stopped
    flags        beside those of the tiny chain
    stop_after   units after which a signal comes
    processes    it is rank 0 of that many
    """
    stage: str
    work_dir: str = "chain"
    flags: tuple[str, ...] = ()
    stop_after: int | None = None
    processes: int = 1


SMALL = [*TINY, "--epochs", "1", "--batch_size", "2", "--irn_batch_size", "2", "--cam_batch_size", "2",
         "--seg_width", "4", "--seg_crop_size", "33", "--seg_batch_size", "2", "--seg_iterations", "2",
         "--seg_crf_iterations", "1"]
REAL = ["--epochs", "1", "--num_workers", "0", "--seg_iterations", "3", "--crf_iterations", "1",
        "--seg_crf_iterations", "1"]
CHAIN = {name: Rehearsal(name) for name in ("train_sfc", "make_cam", "cam_to_ir_label", "train_irn",
                                            "make_sem_seg_labels", "train_deeplab", "eval_deeplab")}
VARIANTS = {
    "bf16": Rehearsal("train_sfc", "bf16", ("--amp", "bf16")),
    "fp16, channels_last": Rehearsal("train_sfc", "fp16", ("--amp", "fp16", "--channels_last")),
    "stopped": Rehearsal("train_sfc", "stopped", stop_after=1),
    "resumed": Rehearsal("train_sfc", "stopped"),
    "one of two processes": Rehearsal("train_sfc", "processes", ("--grad_accum", "2"), processes=2),
    "IRN, one of two processes": Rehearsal("train_irn", "chain", ("--overwrite", "--amp", "bf16"), processes=2),
}

REAL_VARIANTS = {
    "train_sfc, bf16": Rehearsal("train_sfc", "bf16", ("--amp", "bf16")),
    "train_deeplab, one pass": Rehearsal("train_deeplab", "chain", ("--overwrite", "--grad_accum", "1")),
}


class Units:
    """Counts between two batches of a loader."""

    def __init__(self, gpu: FakeCuda, stop_after: int | None):
        self.gpu, self.stop_after = gpu, stop_after
        self.marks = [self.now()]

    def now(self) -> dict:
        gpu = self.gpu
        return {"operations": gpu.operations, "bytes": gpu.bytes, "flops": gpu.flops, "waits": dict(gpu.waits)}

    def iterate(self, original, loader):
        for batch in original(loader):
            self.marks.append(self.now())
            if self.stop_after and self.gpu.operations and len(self.marks) > self.stop_after + 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    def counts(self) -> list[dict]:
        """Of what is before the first batch, and of every unit; the last includes the end of the run."""
        marks = [*self.marks, self.now()]
        return [{key: after[key] - before[key] for key in ("operations", "bytes", "flops")} |
                {"waits": {place: count - before["waits"].get(place, 0) for place, count in after["waits"].items()
                           if count > before["waits"].get(place, 0)}}
                for before, after in pairwise(marks)]


def rehearse(name: str, run: Rehearsal, flags: list[str]) -> dict:
    """Run a stage as its script does -> its name, exit status or traceback, units, peak bytes and processor time."""
    status, iterate, start = 0, DataLoader.__iter__, time.process_time()
    with fake_cuda() as gpu, two_processes(run.processes) as exchanged:
        units = Units(gpu, run.stop_after)
        with mock.patch.object(sys, "argv", [f"{run.stage}.py", *flags, *run.flags]), \
             mock.patch.object(DataLoader, "__iter__", lambda loader: units.iterate(iterate, loader)):
            try:
                module = importlib.import_module(run.stage)
                module.main() if hasattr(module, "main") else run_alone(module)
            except SystemExit as stop:
                status = stop.code
            except Exception:
                status = traceback.format_exc()
        return {"name": name, "status": status, "units": units.counts(), "peak": gpu.peak, "exchanged": exchanged,
                "seconds": round(time.process_time() - start, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_set")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--only", help="name of a run")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    chosen.folder.mkdir(exist_ok=True)
    ids = read_list(f"{chosen.data_set}/ImageSets/Segmentation/train.txt")
    some = chosen.folder / "some.txt"
    some.write_text("\n".join(ids if chosen.real else ids[:4]))
    flags = ["--voc12_root", chosen.data_set, *(REAL if chosen.real else SMALL), "--device", "cuda"]
    if chosen.real:
        flags += random_weights(chosen.folder)
    for option in ("--train_list", "--infer_list", "--seg_eval_list"):
        flags += [option, str(some)]
    for name, run in (CHAIN | (REAL_VARIANTS if chosen.real else VARIANTS)).items():
        if chosen.only in (None, name):
            done = rehearse(name, run, [*flags, "--work_dir", str(chosen.folder / run.work_dir)])
            print(json.dumps(done), flush=True)


if __name__ == "__main__":
    main()
