"""What a stage must offer, and the frame that runs one.

Around a stage: its settings and what changed in them, resume and skip, errors that say what to do.
"""

import time
from typing import Any, Protocol

import numpy as np
import torch

from data.sample import InputError
from frame.chain import UPSTREAM
from frame.data_sets import DataSet, open_data_set
from frame.flags import Flags, Group, build_parser, parse
from frame.lists import fingerprint, require_images, table_fingerprint
from frame.presets import overrides
from frame.selection import SAID
from frame.settings import GROUPS
from frame.settings.common import Data, Run
from runtime import distributed, progress
from runtime.command import exit_with_message, small_shared_memory
from runtime.device import GpuUse
from runtime.work_dir import WorkDir, log


class Stage(Protocol):
    """A stage script.

    NAME      its name in frame.chain
    OUTPUTS   files and folders of the work directory that it writes, besides scores in metrics.json
    OPTIONS   groups of settings its result depends on
    """
    NAME: str
    OUTPUTS: tuple[str, ...]
    OPTIONS: tuple[type[Group], ...]
    __doc__: str

    def select_ids(self, data_set: DataSet, flags: Flags) -> list[str]:
        """The images it works on."""

    def run(self, flags: Flags, work_dir: WorkDir, data_set: DataSet, ids: list[str]) -> dict[str, Any]:
        """Do the work; what metrics.json keeps of it."""


def run_stage(stage: Stage, flags: Flags, force: bool = False) -> dict[str, Any]:
    """Run a stage unless it is complete, and keep its settings, scores and time in the work directory.

    force  redo it even if it is complete
    """
    name, overwrite = stage.NAME, flags[Run].overwrite
    work_dir = open_work_dir(flags[Run])
    data_set = open_data_set(flags[Data])
    ids = stage.select_ids(data_set, flags)
    require_images(data_set, ids)
    settings = settings_of(stage, flags, fingerprint(ids))
    status = work_dir.begin(name, settings, UPSTREAM[name], stage.OUTPUTS, overwrite=overwrite, force=force)
    if status == "complete":
        log.info("%s: complete, skipped (python %s.py --overwrite does it again)", name, name)
        return work_dir.metrics().get(name, {})
    log.info("%s: %s", name, "continued" if status == "resume" else "started")
    if problem := small_shared_memory(flags[Run].num_workers):
        log.warning(problem)
    seed_everything(flags[Run].seed)
    start, gpu = time.perf_counter(), GpuUse()
    try:
        metrics = stage.run(flags, work_dir, data_set, ids)
    except InputError:                                       # as of a wrong --weights beside --overwrite
        work_dir.take_back(name, stage.OUTPUTS)
        raise
    if "split" in metrics and read_best_checkpoint(work_dir, name):
        metrics["split"] += f", {SAID}"
    work_dir.finish(name, metrics, time.perf_counter() - start, gpu.facts())
    log.info("%s: done in %.0f s", name, time.perf_counter() - start)
    return metrics


def settings_of(stage: Stage, flags: Flags, images: str | None) -> dict[str, Any]:
    """What the result of a stage depends on. images: fingerprint of its list."""
    return flags.settings(stage.OPTIONS) | {"images": images} | table_fingerprint(flags[Data].labels)


def read_best_checkpoint(work_dir: WorkDir, name: str) -> bool:
    """Whether the results of a stage go back to a checkpoint that was chosen with pixel labels."""
    if name == "make_cam":                                   # all others read what it made
        settings = work_dir.config().get(name, {}).get("settings", {})
        return settings.get("keep_best", False) and not settings.get("checkpoint")
    return any(read_best_checkpoint(work_dir, before) for before in UPSTREAM[name])


def run_alone(stage: Stage) -> None:
    """Entry of a stage script: its help shows its own flags, but it takes those of all stages, like the chain."""
    build_parser(stage.OPTIONS, stage.__doc__.splitlines()[0], prog=f"{stage.NAME}.py").parse_known_args()
    flags = parse(build_parser(GROUPS, "", prog=f"{stage.NAME}.py"), overrides)
    exit_with_message(lambda: run_stage(stage, flags, force=flags[Run].overwrite))


def open_work_dir(run: Run) -> WorkDir:
    """The work directory the flags name; from here on --quiet holds."""
    progress.quiet = run.quiet or not distributed.is_main()
    return WorkDir(run.work_dir, run.quiet)


def seed_everything(seed: int) -> None:
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
