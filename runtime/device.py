"""Device, precision and memory layout of a run; what hardware it has."""

import logging
import os
import platform
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn as nn

from data.sample import InputError
from runtime import distributed

log = logging.getLogger("sfc")

AUTO = "auto"                      # --device
CPU = torch.device("cpu")
AMP_TYPES = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Compute(NamedTuple):
    """Where networks run and how.

    precision  context of forward passes, in the precision of --amp
    scaler     keeps small gradients of float16 above zero; does nothing in other precisions
    """
    device: torch.device
    precision: torch.autocast
    scaler: torch.amp.GradScaler


def prepare(device: str, amp: str = "off") -> Compute:
    """What --device and --amp name. Raises InputError when it is not there, and for float16 on the CPU."""
    place = prepare_device(device)
    if amp == "fp16" and place.type == "cpu":
        raise InputError("--amp fp16 needs a GPU; --amp bf16 works on the CPU too")
    precision = torch.autocast(place.type, AMP_TYPES[amp] or torch.bfloat16, enabled=amp != "off")
    return Compute(place, precision, torch.amp.GradScaler(place.type, enabled=amp == "fp16"))


def prepare_device(name: str) -> torch.device:
    """The device that --device names; of several processes on a node, each gets its own GPU.

    The log says once which it is, and a warning why no GPU is used where none was refused.
    Raises InputError when it is not there.
    """
    found = choose(name)
    try:
        device = torch.device(found.name)
        if device.type == "cuda":
            if distributed.world() > 1:
                device = torch.device("cuda", distributed.local_rank())
            torch.cuda.set_device(device.index or 0)
            torch.set_float32_matmul_precision("high")                  # TF32; convolutions have it anyway
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name} cannot be used here ({str(error).splitlines()[0]}); try "
                         "--device cpu") from None
    announce(f"device: {device}, {hardware(device)}", found.no_gpu)
    return device


class Choice(NamedTuple):
    """A torch device, and with --device auto why it is no GPU."""
    name: str
    no_gpu: str = ""


def choose(name: str) -> Choice:
    """The device that --device means: with "auto", the GPU if PyTorch can use one."""
    if name != AUTO:
        return Choice(name)
    try:
        torch.cuda.init()          # unlike is_available, it says why not: no GPU, driver too old, a build for the CPU
    except (RuntimeError, AssertionError) as error:
        return Choice("cpu", str(error).splitlines()[0].split(". ")[0])
    return Choice("cuda")


@cache
def announce(device: str, no_gpu: str) -> None:
    """Each line once a process, however many of its stages use the device."""
    if no_gpu:
        log.warning("%s: no GPU can be used (%s); --device cpu says so without this warning", device, no_gpu)
    else:
        log.info(device)


def hardware(device: torch.device) -> str:
    """Name of a GPU, or of the processor with its cores."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{processor()}, {os.cpu_count()} cores"


def processor() -> str:
    """Name of the CPU: Linux keeps it in a file, elsewhere Python may know it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class GpuUse:
    """What this process computes on its GPU from here on."""

    def __init__(self):
        self.allocations = self._allocations()
        if torch.cuda.is_initialized():
            torch.cuda.reset_peak_memory_stats()

    @staticmethod
    def _allocations() -> int:
        """Pieces of its memory that were ever taken."""
        return torch.cuda.memory_stats().get("allocation.all.allocated", 0) if torch.cuda.is_initialized() else 0

    def facts(self) -> dict[str, Any]:
        """Its name and the MB that were in use at the most; {} where it was not used."""
        if self._allocations() == self.allocations:
            return {}
        return {"hardware": torch.cuda.get_device_name(), "gpu_mb": round(torch.cuda.max_memory_allocated() / 1e6)}


def lay_out(module: nn.Module, channels_last: bool, compiled: bool, sizes_vary: bool = False) -> None:
    """Memory layout and torch.compile.

    module      one that is called, not only its parts
    sizes_vary  images of many sizes share a graph; else there is one for each of the few sizes, and it is faster
    """
    if channels_last:
        module.to(memory_format=torch.channels_last)
    if compiled:
        module.compile(dynamic=None if sizes_vary else False)
