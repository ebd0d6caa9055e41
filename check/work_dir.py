"""The work directory: whether it can be written, what it holds already, and the disk space of the stages."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from check.finding import ERROR, OK, WARNING, Finding
from check.networks import bytes_of, irn_network, seg_network, sfc_network
from check.plan import Plan
from data.cam_store import expected_bytes
from frame.chain import UPSTREAM
from frame.settings.cams import Calibration, Inference, Selection, SfcTraining
from frame.settings.common import Run
from frame.settings.irn import MaskSource
from frame.settings.segmentation import SegLabels, SegTest

MASK_BYTES = 0.05                  # of a pixel of an IR label or a mask as PNG
BESIDES = 50e6                     # bytes of logs, curves and the report


def check(plan: Plan) -> Iterator[Finding]:
    """What is complete there, and whether the stages can write beside it."""
    folder = existing_folder(plan.work_dir)
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        yield Finding("work directory", ERROR, f"{plan.work_dir}: cannot be written", "choose another with --work_dir")
        return
    done = [name for name in plan.names if plan.is_complete(name)]
    yield Finding("work directory", OK, f"{plan.work_dir}: complete there: {', '.join(done) or 'nothing'}")


def check_results(plan: Plan) -> Iterator[Finding]:
    """Whether results that lie there are of these settings and lists, and those that are read will be there."""
    for name, lines in plan.differences().items():
        if plan.flags[Run].overwrite:
            yield Finding("work directory", OK, f"does {name} again, because of {'; '.join(lines)}")
        else:
            yield Finding("work directory", ERROR, f"holds {name} of another configuration: {'; '.join(lines)}",
                          "choose another --work_dir, or --overwrite to replace it and what depends on it")
    yield from missing_input(plan)


def missing_input(plan: Plan) -> Iterator[Finding]:
    """Stages whose input neither lies there nor is made before."""
    flags = plan.flags
    given = {("make_cam", "train_sfc"): flags[Inference].checkpoint,
             ("train_deeplab", "make_sem_seg_labels"): flags[SegLabels].label_dir,
             ("make_sem_seg_labels", "train_irn"): not flags[MaskSource].with_irn}
    for stage in plan.to_do():
        for before in UPSTREAM[stage]:
            if not (given.get((stage, before)) or before in plan.names or plan.is_complete(before)):
                yield Finding("work directory", ERROR, f"{stage} reads what {before} makes, which is not complete",
                              f"--from {before}, or another --work_dir")


def existing_folder(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def check_disk(plan: Plan) -> Iterator[Finding]:
    """Space of what the stages will write."""
    parts = {name: size for name, size in disk_bytes(plan).items() if size}
    needed, free = sum(parts.values()) + BESIDES, shutil.disk_usage(existing_folder(plan.work_dir)).free
    listed = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in parts.items())
    said = f"about {needed / 1e9:.2g} GB ({listed}); {free / 1e9:.1f} GB free"
    if needed > free:
        yield Finding("disk", ERROR, said, "make room, or choose another --work_dir")
    else:
        yield Finding("disk", WARNING if 2 * needed > free else OK, said)


def disk_bytes(plan: Plan) -> dict[str, float]:
    """Stage -> bytes of its output; trainings with their last checkpoint, which holds momentum and image bank too."""
    flags, num_classes, to_do = plan.flags, plan.data_set.num_classes, plan.to_do()
    sizes = [found.size for found in plan.looks if found.size] or [(500, 500)]
    pixels = float(np.mean([height * width for height, width in sizes]))
    side = round(pixels ** 0.5)
    classes = float(np.mean([len(found.labels) for found in plan.looks if found.labels is not None] or [1]))
    out: dict[str, float] = {}
    for stage in to_do:
        images = len(plan.ids.get(stage, []))
        if stage == "train_sfc":
            network = bytes_of(sfc_network(flags, num_classes))
            bank = 3 * flags[SfcTraining].crop_size ** 2 * num_classes * flags[Calibration].ibr
            out[stage] = network * (3 + flags[Selection].keep_best) + bank
        elif stage == "make_cam":
            stride = sfc_network(flags, num_classes).backbone.stride
            out[stage] = images * expected_bytes((side, side), classes, flags[Inference].scales, stride)
        elif stage == "train_irn":
            out[stage] = 3 * bytes_of(irn_network(flags))
        elif stage == "train_deeplab":
            out[stage] = 3 * bytes_of(seg_network(flags, num_classes))
        elif stage in ("cam_to_ir_label", "make_sem_seg_labels", "eval_deeplab"):
            kinds = 2 if stage == "eval_deeplab" and flags[SegTest].crf else 1
            out[stage] = images * pixels * MASK_BYTES * kinds
    return out
