"""Several processes of one run, as `torchrun` starts them: one a GPU, on one or many nodes.

Started without torchrun there is one process: nothing is initialised here, and every function below is that of one
process. Values on the CPU travel by gloo, those on the GPU by NCCL.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from data.sample import InputError

# How long processes wait for one that is alive but slow: stages that share images meet only at their end. One that has
# died is noticed at once: gloo finds its connection closed, and torchrun ends the others.
TIMEOUT = timedelta(days=1)

_store = None                          # torchrun's key-value store, which outlives each of the processes


@contextlib.contextmanager
def running() -> Iterator[None]:
    """While it is open, the processes that torchrun started know each other."""
    global _store
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    _store, rank_, size = next(rendezvous("env://"))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=_store, rank=rank_, world_size=size, timeout=TIMEOUT)
    yield
    # Nobody leaves before rank 0 has written its last file. The tensor stays alive here: gloo's thread would need
    # Python to free it, while Python waits for that thread (seen with PyTorch 2.6).
    last = torch.zeros(1)
    dist.all_reduce(last)
    dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process is the one that writes shared files and the log."""
    return rank() == 0


def local_rank() -> int:
    """Number of this process on its node: that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_world() -> int:
    """Number of processes on this node."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def launcher() -> list[str]:
    """The words of the command line in front of the script."""
    if world() == 1:
        return ["python"]
    nodes = [f"--nnodes={world() // local_world()}"] if world() > local_world() else []
    return ["torchrun", *nodes, f"--nproc_per_node={local_world()}"]


# --- sharing work -----------------------------------------------------------------------------------------------

def shard(items: Iterable) -> list:
    """Every item goes to exactly one process."""
    return list(lazy_shard(items))


def lazy_shard(items: Iterable) -> Iterator:
    """As shard, without holding the items; all processes must walk through the same ones."""
    return islice(items, rank(), None, world())


def share(images: int, passes: int = 1) -> np.ndarray:
    """Positions in a global batch that this process computes: of every pass its part, pass by pass.

    images  of the global batch
    passes  consecutive parts of the batch, computed one after the other; each is cut into one part a process
    `tensor_split(passes)` of the images at these positions gives the passes back.
    Raises InputError when a process would have nothing to do in a pass.
    """
    if images < passes * world():
        raise InputError(f"a batch of {images} images cannot be cut into {passes} passes of {world()} processes; raise "
                         "the batch size, or lower the number of passes (--grad_accum, --seg_accumulate) or of "
                         "processes")
    return np.concatenate([np.array_split(part, world())[rank()] for part in np.array_split(np.arange(images), passes)])


# --- exchanging values --------------------------------------------------------------------------------------------

def barrier() -> None:
    """Wait for all processes."""
    if world() > 1:
        dist.all_reduce(torch.zeros(1))


def total(tensor: torch.Tensor) -> torch.Tensor:
    """Sum over all processes, on all of them."""
    if world() > 1:
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor


def maximum(value: int) -> int:
    """Largest value of all processes, on all of them."""
    if world() == 1:
        return value
    tensor = torch.tensor(value)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return int(tensor)


def gather(value: Any) -> list:
    """The values of all processes by rank, on all of them."""
    if world() == 1:
        return [value]
    values = [None] * world()
    dist.all_gather_object(values, value)
    return values


def gather_batch(part: torch.Tensor, images: int) -> torch.Tensor:
    """The global batch (images, ...) from every process's `share` of it in one pass."""
    if world() == 1:
        return part
    lengths = [len(positions) for positions in np.array_split(np.arange(images), world())]
    padded = torch.cat([part, part.new_zeros(max(lengths) - len(part), *part.shape[1:])])
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    return torch.cat([found[:length] for found, length in zip(parts, lengths)])


def count(mask: torch.Tensor) -> torch.Tensor:
    """What the sum over `mask` (n, ...) is divided by, to be a mean.

    On one process, the number of its true entries. On several, that of the whole batch times this process's share of
    the images: so the mean of the processes' losses, weighted by their images, is the loss of one process.
    """
    entries = mask.sum()
    if world() == 1:
        return entries
    whole = total(torch.stack([entries, entries.new_full((), len(mask))]).double())
    return (whole[0] * len(mask) / whole[1]).float()


def from_main(action: Callable) -> Any:
    """Call `action` on rank 0; its result, or its InputError, on all processes."""
    if world() == 1:
        return action()
    answer: list[Any] = [None, None]
    if is_main():
        try:
            answer[0] = action()
        except InputError as error:
            answer[1] = str(error)
    dist.broadcast_object_list(answer)
    if answer[1] is not None:
        raise InputError(answer[1])
    return answer[0]


# --- the end ------------------------------------------------------------------------------------------------------

def speaks_first() -> bool:
    """Whether this process is the first to say why the run ends: the others then need not."""
    if _store is None or world() == 1:
        return True
    try:
        return _store.add("said why", 1) == 1
    except RuntimeError:               # the store's process is gone, too
        return True


def connection_lost(error: RuntimeError) -> bool:
    """Whether an error means that another process ended in the middle of an exchange."""
    return world() > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error))
