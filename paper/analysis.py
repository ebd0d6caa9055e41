"""Do the paper's Conclusions 1 to 3 hold in a run? Numbers of every class against n_c, its training images.

Reads sfc.pth and cam/ of the work directory RUN and writes RUN/analysis/:

    analysis.json   everything
    analysis.csv    a row a class, map and background rule
    analysis.md     tables
    *.png           against class frequency
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from data.loader import ScaledImages, image_loader, same_size_batches
from data.sample import InputError, read_list
from frame import lists, network
from frame.settings.cams import Inference, Network
from frame.settings.common import BackboneChoice
from net.sfc import SIDE_WIDTHS
from paper.analysis_page import write
from paper.cam_counts import CamCounts, count_images
from paper.class_sets import class_sets, default_thresholds
from paper.conclusions import conclusions, kin_matrix, map_rows, projections, set_rows
from paper.part_masks import has_parts, read_parts, shared_parts
from paper.shared_features import REGIONS, GradientSums, PrototypeMeans, RegionMeans, observe
from report.finished_run import FinishedRun
from runtime import interrupt
from runtime.device import prepare_device
from runtime.parallel import map_images
from runtime.progress import progress

BATCH = 8                           # images of equal size at a time
CHUNK = 8                           # records a process counts before it hands its counts back


# --- the two passes ---------------------------------------------------------------------------------------------

def count_maps(run: FinishedRun, ids: list[str], head: int, num_workers: int) -> CamCounts:
    """Pixel counts of the CAM records of `ids`. head: 1-based index of the most frequent class."""
    total = CamCounts(run.data_set.num_classes, has_parts(run.data_set))
    chunks = [ids[i:i + CHUNK] for i in range(0, len(ids), CHUNK)]
    count = partial(count_images, run.path / "cam", run.data_set, head)
    for part in map_images(count, chunks, num_workers, "CAM records", images_of=len):
        total.merge(part)
    return total


def observe_images(run: FinishedRun, model, scored: list[str], trained: list[str], kin: torch.Tensor, num_workers: int,
                   device: torch.device) -> tuple[RegionMeans, RegionMeans, PrototypeMeans, GradientSums]:
    """One pass of the network over both lists, each image once.

    Returns the mean top features and side features and the prototypes of `scored`, the gradients of `trained`.
    """
    data_set = run.data_set
    ids = list(dict.fromkeys(scored + trained))
    labels = torch.from_numpy(data_set.image_labels(ids))
    is_scored, is_trained = (torch.tensor([name in names for name in ids]) for names in (set(scored), set(trained)))
    top = RegionMeans(data_set.num_classes, model.backbone.widths[3])
    side = RegionMeans(data_set.num_classes, sum(SIDE_WIDTHS))
    prototypes = PrototypeMeans(data_set.num_classes, sum(SIDE_WIDTHS))
    gradients = GradientSums(kin)
    loader = image_loader(ScaledImages(ids, data_set.image_path), same_size_batches(ids, data_set.image_path, BATCH),
                          num_workers)
    with progress(total=len(ids), desc="network", unit="image") as bar:
        for indices, (images,), size in loader:
            seen = observe(model, images.to(device), labels[indices].to(device), run.flags[Inference].mask_cam)
            gradients.update(seen.score[is_trained[indices]], labels[indices][is_trained[indices]])
            rows = is_scored[indices].nonzero().flatten().tolist()
            prototypes.update(seen.prototypes[rows], seen.seeded[rows])
            for row in rows:
                name = ids[indices[row]]
                truth, parts = data_set.read_mask(name, size), read_parts(data_set, name, size)
                top.update(seen.top_features[row], truth, parts)
                side.update(seen.side_features[row], truth, parts)
            bar.update(len(indices))
            interrupt.check()
    return top, side, prototypes, gradients


# --- the analysis -----------------------------------------------------------------------------------------------

def analyse(path: str | Path, ids_list: str | None = None, train_list: str | None = None, limit: int | None = None,
            num_workers: int = 0, device: str = "cpu") -> dict:
    """Analyse a run and write RUN/analysis/. Arguments as the flags. Returns what analysis.json holds.

    Raises InputError for runs without network, records or class counts, and for images without record or mask.
    """
    run = checked_run(path)
    scored, trained = spaced(scored_ids(run, ids_list), limit), spaced(trained_ids(run, train_list), limit)
    lists.require_images(run.data_set, scored + trained)
    names = run.data_set.class_names
    counts = [run.class_counts[name] for name in names]
    head = int(np.argmax(counts)) + 1
    parts = shared_parts(run.data_set)
    kin = kin_matrix(names, parts)
    model = network.load_sfc(run.flags[Network], run.flags[BackboneChoice].backbone, len(names), run.path / "sfc.pth")
    compute = prepare_device(device)
    model = model.to(compute).eval()

    rows = map_rows(count_maps(run, scored, head, num_workers), names, head)
    top, side, prototypes, gradients = observe_images(run, model, scored, trained, kin, num_workers, compute)
    weights = model.classifier.weight.detach().flatten(1).cpu()
    many, few = default_thresholds(counts)
    sets = class_sets(counts, many, few)
    set_of = {index: key for key, members in sets.items() for index in members}
    coefficients = run.metrics["train_sfc"]["distribution_coefficient"]
    classes = []
    for i, name in enumerate(names):
        kin_of = (kin[i].nonzero().flatten() + 1).tolist()
        classes.append({
            "class": name, "n_c": counts[i], "dc": coefficients[i], "set": set_of[i],
            "shared_parts": [part for part, owners in parts.items() if name in owners],
            "gradient": gradients.of_class(i),
            "weight": projections(weights[i], top, i + 1, kin_of),
            "prototype": projections(prototypes.mean(i + 1), side, i + 1, kin_of)
            | {"images": int(prototypes.images[i + 1])}})
    result = {"run": str(run.path), "images": len(scored), "training_images": len(trained), "head": names[head - 1],
              "thresholds": {"many": many, "few": few}, "regions": REGIONS,
              "conclusions": conclusions(classes, rows, sets, bool(parts)), "sets": set_rows(rows, names, sets),
              "classes": classes, "maps": rows}
    write(run.path / "analysis", result)
    return result


def checked_run(path: str | Path) -> FinishedRun:
    """The run, with everything an analysis reads but single images."""
    run = FinishedRun(path)
    for stage, output in (("train_sfc", "sfc.pth"), ("make_cam", "cam")):
        if stage not in run.stages or not (run.path / output).exists():
            raise InputError(f"{run.path / output}: missing; run {stage}.py with --work_dir {run.path}")
    if not run.class_counts or not any(run.class_counts.values()):
        raise InputError(f"{run.path / 'metrics.json'}: no class counts that fit the data set; run train_sfc.py "
                         f"--overwrite with --work_dir {run.path}")
    return run


def scored_ids(run: FinishedRun, file: str | None) -> list[str]:
    """The ids of a list, all with record and mask, or those of the data set's train split that have a record."""
    ids = read_list(file) if file else run.data_set.split("train")[0]
    if not file:
        ids = [name for name in ids if run.record_path(name).exists()]
        if not ids:
            raise InputError(f"{run.path / 'cam'}: no CAM record of an image of the train split; run make_cam.py on "
                             "it, or name other images with --ids_list")
    for what, path, fix in (("CAM record", run.record_path, "run make_cam.py with it in --infer_list"),
                            ("mask", run.data_set.mask_path, "restore it")):
        missing = [name for name in ids if not path(name).exists()]
        if missing:
            raise InputError(f"{path(missing[0])}: {what} is missing ({len(missing)} of {len(ids)} images); {fix}, or "
                             "take its id out of the list (--ids_list)")
    return ids


def trained_ids(run: FinishedRun, file: str | None) -> list[str]:
    """The ids the run was trained on; the list itself is not kept in a run, but its checksum is."""
    ids = read_list(file) if file else run.data_set.split("train_aug")[0]
    found, needed = lists.fingerprint(ids), run.config["train_sfc"]["settings"].get("images")
    if needed not in (None, found):
        raise InputError(f"{file or run.data_set.root}: {found}, but the run was trained on {needed}; name its list "
                         "with --train_list")
    return ids


def spaced(ids: list[str], limit: int | None) -> list[str]:
    """At most `limit` ids, evenly spaced over the list."""
    if limit is None or limit >= len(ids):
        return ids
    return [ids[int(i)] for i in np.linspace(0, len(ids) - 1, limit)]
