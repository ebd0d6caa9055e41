"""Room on the disk, looked at before it is needed."""

import shutil
from pathlib import Path

from data.sample import InputError


def require_space(folder: Path, needed: float, what: str, flag: str) -> str:
    """A text that says how much `what` takes and how much is free, in MB. Raises InputError when less is free.

    folder  where it is written; it need not exist yet
    needed  bytes
    flag    that names the folder
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise InputError(f"{folder}: {what} need about {needed / 1e6:.0f} MB, but only {free / 1e6:.0f} MB are free; "
                         f"make room or choose another {flag}")
    return f"{what}: about {needed / 1e6:.0f} MB, {free / 1e6:.0f} MB free"
