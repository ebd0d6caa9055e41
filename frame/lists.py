"""The images a stage works on, and the files it needs for each of them."""

import zlib
from collections.abc import Callable
from pathlib import Path

from data.sample import InputError, read_list
from frame.data_sets import DataSet
from frame.flags import Flags
from frame.settings.common import EvalList, InferList, TrainList
from runtime.work_dir import log


def choose_ids(data_set: DataSet, flag: str, file: str | None, split: str) -> list[str]:
    """The ids of a list, or of the data set's own split; says which and how many. Raises InputError for an empty one.

    flag  that names a list, such as --train_list
    """
    ids, origin = (read_list(file), file) if file else data_set.split(split)
    if not ids:
        raise InputError(f"{origin}: this list of images is empty; give another, of one image id a line, with {flag}")
    log.info("%s images: %d of %s", flag.removeprefix("--").removesuffix("_list"), len(ids), origin)
    return ids


def train_ids(data_set: DataSet, flags: Flags) -> list[str]:
    return choose_ids(data_set, "--train_list", flags[TrainList].train_list, "train_aug")


def infer_ids(data_set: DataSet, flags: Flags) -> list[str]:
    return choose_ids(data_set, "--infer_list", flags[InferList].infer_list, "train_aug")


def eval_ids(data_set: DataSet, flags: Flags) -> list[str]:
    return choose_ids(data_set, "--eval_list", flags[EvalList].eval_list, "train")


def require_files(ids: list[str], path: Callable[[str], Path], what: str, fix: str) -> None:
    """Raise InputError that names the first file and `fix` unless every id has its file.

    what  kind of the files, such as "IR label"
    """
    missing = [name for name in ids if not path(name).exists()]
    if missing:
        raise InputError(f"{path(missing[0])}: {what} is missing ({len(missing)} of {len(ids)}); {fix}")


def require_images(data_set: DataSet, ids: list[str]) -> None:
    """Raise InputError before any work is done or replaced if an image file is missing."""
    require_files(ids, data_set.image_path, "image file", "restore it or take its id out of the list")


def fingerprint(ids: list[str]) -> str:
    """Short text that differs between lists."""
    return f"{len(ids)} ids, checksum {zlib.crc32(chr(10).join(ids).encode()):08x}"


def table_fingerprint(labels: str) -> dict[str, str]:
    """Setting of the content of --labels FILE.csv, which may change under its name; {} without a table."""
    if labels in ("xml", "masks"):
        return {}
    path = Path(labels)
    return {"label_table": f"checksum {zlib.crc32(path.read_bytes()):08x}" if path.is_file() else "no file"}


def steps_per_epoch(ids: list[str], batch_size: int, flag: str) -> int:
    """Whole batches of a list. Raises InputError that names `flag` when there is none."""
    if len(ids) < batch_size:
        raise InputError(f"{len(ids)} training images make no batch of {batch_size}; lower {flag}")
    return len(ids) // batch_size
