"""Time and memory of a call, and the lines of the table."""

import multiprocessing
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from voc12.voc import Voc12


class Row(NamedTuple):
    """A line of the table; `met` is None where there is no target."""
    name: str
    ours: float
    plain: float | None
    ratio: float | None
    target: str = ""
    met: bool | None = None


class Setup(NamedTuple):
    """What the benchmarks run on: a device, a folder for files, and images with labels and masks."""
    device: torch.device
    folder: Path
    data_set: Voc12
    ids: list[str]
    images: int                    # how many of them the slow benchmarks take
    checkpoint: str | None


def core_seconds(function: Callable, repeats: int = 3, clock: Callable = time.process_time) -> float:
    """Least processor time of a call, or time by another clock."""
    times = []
    for _ in range(repeats):
        start = clock()
        function()
        times.append(clock() - start)
    return min(times)


def seconds(function: Callable, device: torch.device, repeats: int) -> float:
    """Least time of a call that ends by waiting for the device: on the CPU processor time, else wall time."""
    return core_seconds(function, repeats, time.process_time if device.type == "cpu" else time.perf_counter)


def peak_mb(function: Callable, device: torch.device = torch.device("cpu")) -> float:
    """MB a call needs at its peak: of the GPU in all, on the CPU beyond what the process had before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        function()
        return torch.cuda.max_memory_allocated() / 1e6
    context = multiprocessing.get_context("fork")               # a process of its own has a peak of its own
    result = context.SimpleQueue()

    def child() -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        function()
        result.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)

    process = context.Process(target=child)
    process.start()
    process.join()
    return result.get() * 1024 / 1e6
