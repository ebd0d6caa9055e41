"""What depends on the name of the data set: where the images of a series of runs come from and what the runs cost."""

from collections.abc import Mapping
from typing import NamedTuple

from data.sample import InputError
from frame.data_sets import KINDS, open_data_set
from frame.flags import Flags
from frame.settings.common import Data


class DataSource(NamedTuple):
    """A data set that the tables can be made on.

    flags      those of run_sample.py that name its folders
    hours      of each stage on `hardware` before any run has finished
    gigabytes  of a run
    generated  by data.mini_voc, one for each seed: no folder is needed, and there is a balanced twin
    """
    flags: tuple[str, ...]
    hours: Mapping[str, float]
    gigabytes: float
    hardware: str
    generated: bool = False


SOURCES = {
    "mini": DataSource(
        (), {"train_sfc": 0.03, "make_cam": 0.01, "eval_cam": 0.006, "cam_to_ir_label": 0.006, "train_irn": 0.013,
             "make_sem_seg_labels": 0.008, "eval_sem_seg": 0.001, "train_deeplab": 0.03, "eval_deeplab": 0.01},
        0.03, "two CPU cores", generated=True),
} | {name: DataSource(kind.root_flags, kind.hours, kind.gigabytes, "one GPU and the full data set")
     for name, kind in KINDS.items()}


def check(name: str, folders: dict[str, str | None], twin: bool, dry_run: bool) -> None:
    """Raise InputError when the data set cannot be used as asked for. A dry run does not look into its folders.

    folders  flag -> folder of every flag of the source
    twin     its balanced twin is wanted too
    """
    source = SOURCES[name]
    if twin and not source.generated:
        raise InputError("--twin: only the generated data set has a balanced twin; leave it out, or --dataset mini")
    for flag, folder in folders.items():
        if folder is None:
            raise InputError(f"--dataset {name} needs --{flag}")
    if not source.generated and not dry_run:
        open_data_set(Flags({"dataset": name, **folders})[Data])
