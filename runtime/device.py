"""Device, precision and memory layout of a run."""

from typing import NamedTuple

import torch
import torch.nn as nn

from data.sample import InputError
from runtime import distributed

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
    """The device, with an error when it is not there; of several processes on a node, each gets its own GPU."""
    try:
        device = torch.device(name)
        if device.type == "cuda":
            if distributed.world() > 1:
                device = torch.device("cuda", distributed.local_rank())
            torch.cuda.set_device(device.index or 0)
            torch.set_float32_matmul_precision("high")                  # TF32; convolutions have it anyway
        torch.zeros(1, device=device)
        return device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name} cannot be used here ({str(error).splitlines()[0]}); try "
                         "--device cpu") from None


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def lay_out(module: nn.Module, channels_last: bool, compiled: bool) -> None:
    """Memory layout and torch.compile; `module` is one that is called, not only its parts."""
    if channels_last:
        module.to(memory_format=torch.channels_last)
    if compiled:
        module.compile()
