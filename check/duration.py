"""Time of each stage: from the newest run beside this one that was like it, else from rates that were written down."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from check.finding import OK, WARNING, Finding
from check.plan import Plan
from data.sample import InputError
from frame.chain import NETWORK_STAGES
from frame.data_sets import KINDS
from frame.settings.common import BackboneChoice, Data, Run
from runtime.command import default_workers
from runtime.device import CPU, choose, hardware
from runtime.work_dir import read_json

# Settings that change the time of an image, by stage; those of all stages first.
EVERYWHERE = ("dataset", "voc12_root", "coco_root", "amp", "channels_last", "compile")
COSTLY = {
    "train_sfc": ("backbone", "sfc_crop_size", "sfc_batch_size", "ibr", "ibr_images", "train_stem"),
    "make_cam": ("backbone", "scales"),
    "eval_cam": ("eval_crf", "threshold_sweep", "crf_iterations"),
    "cam_to_ir_label": ("crf_iterations",),
    "train_irn": ("backbone", "irn_crop_size", "irn_radius"),
    "make_sem_seg_labels": ("backbone", "with_irn", "crf_masks", "walk_exp", "walk_radius"),
    "eval_sem_seg": (),
    "train_deeplab": ("seg_net", "seg_crop_size", "seg_width", "seg_blocks"),
    "eval_deeplab": ("seg_test_scales", "seg_crf", "seg_crf_iterations"),
}
# How often a stage goes over its images.
PASSES = {"train_sfc": "sfc_epochs", "train_irn": "irn_epochs"}

# Seconds of one core for an image (of a training: a crop), ResNet-50, VOC images: docs/PERFORMANCE.md.
CORE_SECONDS = {"train_sfc": 4.64, "make_cam": 15.6, "eval_cam": 0.55, "cam_to_ir_label": 0.41, "train_irn": 3.6,
                "make_sem_seg_labels": 2.5, "eval_sem_seg": 0.003}
FULL_SET = {"voc12": 10_582, "coco14": 82_081}                 # training images that KINDS[...].hours are for


def check(plan: Plan) -> Iterator[Finding]:
    total, unknown = 0.0, []
    to_do = plan.to_do()
    for stage in plan.stages:
        if stage.NAME not in to_do:
            continue
        seconds, source = stage_seconds(plan, stage)
        if seconds is None:
            unknown.append(stage.NAME)
            continue
        total += seconds
        yield Finding("time", OK, f"{stage.NAME}: about {as_time(seconds)} ({source})")
    if unknown:
        yield Finding("time", WARNING, f"not known: {', '.join(unknown)}; no run like this one lies beside "
                      f"{plan.work_dir}")
    if total:
        yield Finding("time", OK, f"all of these: about {as_time(total)}")


def as_time(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes / 60:.1f} h" if minutes >= 90 else f"{minutes:.0f} min" if minutes >= 1 else f"{seconds:.0f} s"


def stage_seconds(plan: Plan, stage) -> tuple[float | None, str]:
    """Seconds of a stage, and where the number comes from; None where nothing is known."""
    wanted = plan.flags.settings(stage.OPTIONS)
    images = len(plan.ids.get(stage.NAME, []))
    place = torch.device(choose(plan.flags[Run].device).name)
    measured = like_this(plan.work_dir, stage.NAME, wanted, hardware(place if stage.NAME in NETWORK_STAGES else CPU))
    if measured:
        path, entry = measured
        ours, theirs = work(stage.NAME, wanted, images), work(stage.NAME, entry["settings"], listed(entry["settings"]))
        return entry["machine"]["seconds"] * ours / theirs, f"measured in {path.name}"
    if plan.flags[BackboneChoice].backbone != "resnet50":
        return None, ""
    if place.type == "cuda":
        kind = plan.flags[Data].dataset
        return (3600 * KINDS[kind].hours[stage.NAME] * images / FULL_SET[kind],
                "not measured: counted operations on one GPU")
    if stage.NAME not in CORE_SECONDS:
        return None, ""
    return (CORE_SECONDS[stage.NAME] * work(stage.NAME, wanted, images) / default_workers(),
            "from VOC images on one core, docs/PERFORMANCE.md")


def work(stage: str, settings: dict[str, Any], images: int) -> float:
    """Images that a stage computes in all."""
    if stage == "train_deeplab":
        return settings["seg_iterations"]
    return images * settings.get(PASSES.get(stage, ""), 1)


def listed(settings: dict[str, Any]) -> int:
    """Number of images, which stands in front of a list's fingerprint."""
    return int(settings["images"].split()[0])


def like_this(work_dir: Path, stage: str, wanted: dict[str, Any], machine_name: str) -> tuple[Path, dict] | None:
    """The newest run beside `work_dir` that finished the stage on that hardware with settings of the same cost."""
    same = [name for name in (*EVERYWHERE, *COSTLY[stage]) if name in wanted]
    found = []
    for path in work_dir.absolute().parent.glob("*/config.json"):
        try:
            entry = read_json(path).get(stage, {})
        except (InputError, OSError):                 # a run of somebody else, damaged or closed: no matter here
            continue
        machine, settings = entry.get("machine", {}), entry.get("settings", {})
        if (entry.get("complete") and machine.get("hardware") == machine_name and "seconds" in machine
                and "earlier" not in machine
                and all(settings.get(name) == wanted[name] for name in same)):
            found.append((machine["finished"], path.parent, entry))
    return max(found, key=lambda run: run[0])[1:] if found else None
