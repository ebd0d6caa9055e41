"""What every command does: switches and numbers on the command line, messages instead of tracebacks."""

import argparse
import errno
import math
import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from data.sample import InputError
from runtime import distributed, interrupt

LOADER_BYTES = 70e6                # shared memory of a loader process
# Why the system refuses to write: a full disk, no right to, a file where a folder should be.
CANNOT_WRITE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EEXIST, errno.ENOTDIR}


def flag(group, name: str, default: bool, help: str) -> None:
    """A switch --name / --no-name."""
    group.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=default, help=help)


def positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def whole_number(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 0")
    return value


def positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def probability(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number between 0 and 1")
    return value


def path(text: str) -> str:
    """One spelling of a path, since a run with another is one of other settings: a/b/ and a/./b are a/b."""
    return os.path.normpath(text)


def non_negative(text: str) -> float:
    value = float(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 0")
    return value


def number_list(text: str) -> tuple[float, ...]:
    """Comma-separated positive numbers."""
    values = tuple(float(part) for part in text.split(","))
    if not all(value > 0 for value in values):
        raise argparse.ArgumentTypeError(f"{text}: all numbers must be positive")
    return values


def size_range(text: str) -> tuple[int, int] | None:
    """"low,high" -> (low, high); "none" -> None."""
    if text == "none":
        return None
    try:
        low, high = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: needs two whole numbers low,high, or none") from None
    if not 1 <= low <= high:
        raise argparse.ArgumentTypeError(f"{text}: needs 1 <= low <= high")
    return low, high


def name_list(text: str) -> list[str]:
    """Comma-separated names, which may hold spaces but not at their ends."""
    return [part.strip() for part in text.split(",")]


def require_place(path: str | Path, flag: str) -> None:
    """Raise InputError, before the work, unless the file `path` that `flag` names can be written."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: a folder, but {flag} names a file to write; add its name")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; make it, or choose another {flag}")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: nothing can be written into {path.parent}; choose another {flag}")


def default_workers() -> int:
    """The cores that this process may use, at most 16; those of a node are divided between its processes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(16, cores // distributed.local_world()))


def small_shared_memory(workers: int) -> str:
    """Why `workers` loader processes may die of a bus error, as in a container with Docker's 64 MB; "" if they fit.

    Batches wait in /dev/shm: with 16 workers about 1.1 GB of CAM inference at four scales.
    """
    shared = Path("/dev/shm")
    size = shutil.disk_usage(shared).total if shared.exists() else math.inf
    if size >= workers * LOADER_BYTES:
        return ""
    needed = workers * LOADER_BYTES
    return (f"/dev/shm has {size / 1e6:.0f} MB, {workers} loader processes may need {needed / 1e6:.0f}; "
            f"docker run --shm-size=2g, or --num_workers {int(size // LOADER_BYTES)}")


def exit_with_message(action: Callable, out_flag: str = "--work_dir") -> None:
    """Call `action`; turn unusable input, a full disk and signals into a message and an exit status.

    out_flag  that names the folder it writes
    Of several processes, one says the message.
    """
    try:
        with interrupt.watched(), distributed.running():
            action()
    except InputError as error:
        # A loader process hands its traceback on as text; the message is behind the last class name.
        stop(2, str(error).rsplit("InputError: ")[-1].strip())
    except interrupt.Interrupted as signal:
        stop(signal.exit_status, f"stopped by {signal}, everything done so far is kept; to go on:\n  "
                                 f"{interrupt.command_to_go_on()}", "")
    except OSError as error:
        if error.errno not in CANNOT_WRITE:
            raise
        stop(2, f"{error.filename or out_flag}: {error.strerror}; make room or choose another {out_flag}; to go on "
                f"where this one stopped:\n  {interrupt.command_to_go_on()}")
    except BrokenProcessPool:
        stop(1, "a process of the pool was killed, most likely for want of memory; with fewer --num_workers go on:\n  "
                f"{interrupt.command_to_go_on()}")
    except RuntimeError as error:
        if not distributed.connection_lost(error):
            raise
        stop(1, "another process of this run ended, so this one cannot go on; everything up to the last checkpoint is "
                f"kept, to go on:\n  {interrupt.command_to_go_on()}")


def stop(status: int, message: str, label: str = "error: ") -> None:
    if distributed.speaks_first():
        print(f"{label}{message}", file=sys.stderr, flush=True)
    sys.exit(status)
