"""The first of several processes, the others of which do and say the same."""

import contextlib
from collections.abc import Iterator
from unittest import mock

import torch.distributed as dist
import torch.nn as nn

from frame import engine
from runtime import distributed


class Averaged(nn.Module):
    """DistributedDataParallel without the exchange."""

    def __init__(self, module: nn.Module, **_):
        super().__init__()
        self.module = module

    def forward(self, *args):
        return self.module(*args)

    def no_sync(self):
        return contextlib.nullcontext()


@contextlib.contextmanager
def two_processes(number: int) -> Iterator[dict]:
    """Rank 0 of `number` processes, 1: nothing is done. Gives how many parameters it has and exchanges, and at the end
    how many got a gradient."""
    exchanged: dict[str, int] = {}
    watched: list[nn.Module] = []
    if number == 1:
        yield exchanged
        return

    def average(module, **_):
        exchanged["parameters"] = sum(p.numel() for p in module.parameters())
        exchanged["exchanged"] = sum(p.numel() for p in module.parameters() if p.requires_grad)
        watched.append(module)
        return Averaged(module)

    def gather(parts, own):
        for part in parts:
            part.copy_(own)

    def gather_objects(values, own):
        values[:] = [own] * number

    with contextlib.ExitStack() as stack:
        for target, name, value in (
                (distributed, "rank", lambda: 0), (distributed, "world", lambda: number),
                (dist, "all_reduce", lambda *_: None), (dist, "all_gather", gather),
                (dist, "all_gather_object", gather_objects), (dist, "broadcast_object_list", lambda _: None),
                (engine, "DistributedDataParallel", average)):
            stack.enter_context(mock.patch.object(target, name, value))
        yield exchanged
        exchanged["with_gradient"] = sum(p.numel() for module in watched for p in module.parameters()
                                         if p.grad is not None)
