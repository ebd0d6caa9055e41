"""Do the paper's Conclusions 1 to 3 hold in a run? Numbers of every class against n_c, its training images.

    python -m tools.analyse RUN [--ids_list FILE] [--limit N]
    python -m tools.analyse runs/reproduce/mini/Base_seed* --out base.md        # and the mean of several runs

Reads sfc.pth and cam/ of the work directory RUN and writes RUN/analysis/:

    analysis.json   everything
    analysis.csv    a row a class, map and background rule
    analysis.md     tables
    *.png           against class frequency
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from data.loader import ScaledImages, image_loader, same_size_batches
from data.sample import InputError, read_list, write_atomically
from frame import lists, network
from frame.settings.cams import Inference, Network
from frame.settings.common import BackboneChoice
from net.sfc import SIDE_WIDTHS
from paper.analysis_page import across_runs, summary, write
from paper.cam_counts import ARGMAX, ORACLE, CamCounts, count_images, has_parts, read_parts
from paper.class_sets import class_sets, default_thresholds
from paper.shared_features import (
    DISCRIMINATIVE_PART,
    OWN,
    PART_REGIONS,
    REGIONS,
    SHARED_PART,
    GradientSums,
    PrototypeMeans,
    RegionMeans,
    observe,
    projection,
)
from refine.scored_maps import CAMS, PROTOTYPE_CAM, WEIGHT_CAM
from report.finished_run import FinishedRun
from runtime import interrupt
from runtime.command import default_workers, exit_with_message, positive_int
from runtime.device import prepare_device
from runtime.parallel import map_images
from runtime.progress import progress
from runtime.work_dir import read_json

BATCH = 8                           # images of equal size at a time
CHUNK = 8                           # records a process counts before it hands its counts back


# --- the two passes ---------------------------------------------------------------------------------------------

def count_maps(run: FinishedRun, ids: list[str], head: int, num_workers: int) -> CamCounts:
    """Pixel counts of the CAM records of `ids`. head: 1-based index of the most frequent class."""
    total = CamCounts(run.data_set.num_classes, has_parts(run.data_set))
    chunks = [ids[i:i + CHUNK] for i in range(0, len(ids), CHUNK)]
    for part in map_images(partial(count_images, run.path / "cam", run.data_set, head), chunks, num_workers, "CAM records",
                           images_of=len):
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


# --- what follows from their sums -------------------------------------------------------------------------------

def map_rows(counts: CamCounts, class_names, head: int) -> list[dict]:
    """A row a class, map and background rule; scores in per cent, None where there is no such pixel.

    shared_as_head: of the class's shared pixels in images that show the head class too, the share labelled as head.
    """
    rows = []
    for name in CAMS:
        for rule, step in ((ARGMAX, None), (ORACLE, counts.oracle_step(name))):
            by_part = counts.labelled(name, step)
            whole = sum(part.matrix for part in by_part.values())
            beside, shared, discriminative = (by_part[part].matrix if part in by_part else np.zeros_like(whole)
                                              for part in ("shared beside head", "shared", "discriminative"))
            shared = shared + beside
            for index, class_name in enumerate(class_names, start=1):
                hit, true, predicted = (float(n) for n in (whole[index, index], whole[index].sum(), whole[:, index].sum()))
                beside_head = beside[index] if index != head else np.zeros_like(beside[index])
                rows.append({
                    "class": class_name, "map": name, "background": rule,
                    "threshold": None if step is None else step / counts.sweep[name]["rest"].bins,
                    "iou": _per_cent(hit, true + predicted - hit), "precision": _per_cent(hit, predicted),
                    "recall": _per_cent(hit, true), "area_ratio": predicted / true if true else None,
                    "recall_shared": _per_cent(shared[index, index], shared[index].sum()),
                    "recall_discriminative": _per_cent(discriminative[index, index], discriminative[index].sum()),
                    "shared_pixels_beside_head": int(beside_head.sum()),
                    "shared_as_head": _per_cent(beside_head[head], beside_head.sum())})
    return rows


def region_means(means: RegionMeans, index: int, kin: list[int]) -> dict[str, torch.Tensor | None]:
    """Mean feature of each of REGIONS for class `index`; kin: classes with the same shared part, all 1-based."""
    others = [other for other in range(1, means.sums.shape[1]) if other != index]
    return {"own": means.mean(OWN, [index]), "others": means.mean(OWN, others), "background": means.mean(OWN, [0]),
            "shared": means.mean(SHARED_PART, [index]), "discriminative": means.mean(DISCRIMINATIVE_PART, [index]),
            "f0": means.mean(SHARED_PART, kin), "f0_others": means.mean(SHARED_PART, [k for k in kin if k != index])}


def projections(vector: torch.Tensor | None, means: RegionMeans, index: int, kin: list[int]) -> dict[str, dict]:
    """region -> {"projection": inner product, "cosine"} of a class's weight or prototype."""
    return {region: dict(zip(("projection", "cosine"), projection(vector, feature)))
            for region, feature in region_means(means, index, kin).items()}


def shared_parts(data_set) -> dict[str, list[str]]:
    """Shared part -> the classes that have it; {} for data sets without part masks."""
    if not has_parts(data_set):
        return {}
    return read_json(Path(data_set.root) / "mini_voc.json").get("shared_body") or {"shared": list(data_set.class_names)}


def kin_matrix(class_names, parts: dict[str, list[str]]) -> torch.Tensor:
    """(C, C) bool: the classes have a shared part in common."""
    has = torch.tensor([[name in owners for owners in parts.values()] for name in class_names]).float()
    return has @ has.T > 0 if parts else torch.zeros(len(class_names), len(class_names), dtype=torch.bool)


def conclusions(classes: list[dict], rows: list[dict], sets: dict[str, list[int]], parts: bool) -> list[dict]:
    """A row a quantity that the paper's argument is about: what it expects, Spearman's rho against n_c, set means.

    Classes that training never showed (n_c = 0) are left out.
    """
    def of_map(name, rule, key):
        return [row[key] for row in rows if row["map"] == name and row["background"] == rule]

    quantities = [("Eq. 10-12", "positive / negative gradient", "rho > 0", [c["gradient"]["ratio"] for c in classes])]
    if parts:
        quantities.append(("Eq. 10-12", "the same, negatives that show the shared part", "rho > 0, few < 1 < many",
                           [c["gradient"]["ratio_kin"] for c in classes]))
    for region in PART_REGIONS if parts else ("own", "others", "background"):
        shared = region in ("shared", "f0", "f0_others", "others")
        for measure in ("projection", "cosine"):
            quantities.append(("1", f"W_c, {measure} on {region}", "rho > 0, few < 0 < many" if shared else "",
                               [c["weight"][region][measure] for c in classes]))
    for rule in (ARGMAX, ORACLE):
        areas = {name: of_map(name, rule, "area_ratio") for name in CAMS}
        quantities.append(("2", f"area M_W / truth, {rule}", "rho > 0, few < 1 < many", areas[WEIGHT_CAM]))
        if parts:
            recalls = {name: of_map(name, rule, "recall_shared") for name in CAMS}
            quantities.append(("2", f"recall of M_W on shared pixels, {rule}", "rho > 0", recalls[WEIGHT_CAM]))
        quantities.append(("3", f"area M_P / M_W, {rule}", "rho < 0, many < 1 < few",
                           _ratios(areas[PROTOTYPE_CAM], areas[WEIGHT_CAM])))
        if parts:
            quantities.append(("3", f"recall on shared pixels, M_P - M_W, {rule}", "rho < 0, many < 0 < few",
                               _differences(recalls[PROTOTYPE_CAM], recalls[WEIGHT_CAM])))
    for region in ("shared", "f0_others") if parts else ("own", "others"):
        quantities.append(("3", f"P_c, cosine on {region}", "> 0 everywhere",
                           [c["prototype"][region]["cosine"] for c in classes]))
    return [{"conclusion": number, "quantity": name, "expected": expected}
            | spearman([c["n_c"] for c in classes], values)
            | {f"mean_{key}": _mean([values[i] for i in members if classes[i]["n_c"]]) for key, members in sets.items()}
            for number, name, expected, values in quantities]


def spearman(counts: list[int], values: list[float | None]) -> dict[str, float | int | None]:
    """Spearman's rho and its p of values against counts, over classes with a value and at least one training image.

    rho and p are None below three classes, or where one side is constant.
    """
    pairs = [(count, value) for count, value in zip(counts, values) if count and value is not None]
    known = len(pairs) >= 3 and all(len(set(side)) > 1 for side in zip(*pairs))
    rho, p = spearmanr(*zip(*pairs)) if known else (None, None)
    return {"rho": None if rho is None else float(rho), "p": None if p is None else float(p), "classes": len(pairs)}


def set_rows(rows: list[dict], class_names, sets: dict[str, list[int]]) -> list[dict]:
    """Mean IoU and area ratio of the many, medium and few classes, a row a map and background rule."""
    out = []
    for name in CAMS:
        for rule in (ARGMAX, ORACLE):
            of_class = [row for row in rows if row["map"] == name and row["background"] == rule]
            out.append({"map": name, "background": rule, "threshold": of_class[0]["threshold"]}
                       | {f"{key}_{measure}": _mean([of_class[i][measure] for i in members])
                          for measure in ("iou", "area_ratio") for key, members in sets.items()})
    return out


def _per_cent(part, whole) -> float | None:
    return 100 * float(part) / float(whole) if whole else None


def _mean(values) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _ratios(above, below) -> list[float | None]:
    return [None if a is None or not b else a / b for a, b in zip(above, below)]


def _differences(first, second) -> list[float | None]:
    return [None if a is None or b is None else a - b for a, b in zip(first, second)]


# --- the command ------------------------------------------------------------------------------------------------

def analyse(path: str | Path, ids_list: str | None = None, train_list: str | None = None, limit: int | None = None,
            num_workers: int = 0, device: str = "cpu") -> dict:
    """Analyse a run and write RUN/analysis/. Arguments as the flags. Returns what analysis.json holds.

    Raises InputError for runs without network, records or class counts, and for images without record or mask.
    """
    run = checked_run(path)
    scored, trained = spaced(scored_ids(run, ids_list), limit), spaced(trained_ids(run, train_list), limit)
    lists.require_images(run.data_set, scored + trained)
    device = prepare_device(device)
    names = run.data_set.class_names
    counts = [run.class_counts[name] for name in names]
    head = int(np.argmax(counts)) + 1
    parts = shared_parts(run.data_set)
    kin = kin_matrix(names, parts)
    model = network.load_sfc(run.flags[Network], run.flags[BackboneChoice].backbone, len(names), run.path / "sfc.pth").to(device).eval()

    rows = map_rows(count_maps(run, scored, head, num_workers), names, head)
    top, side, prototypes, gradients = observe_images(run, model, scored, trained, kin, num_workers, device)
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
            "prototype": projections(prototypes.mean(i + 1), side, i + 1, kin_of) | {"images": int(prototypes.images[i + 1])}})
    result = {"run": str(run.path), "images": len(scored), "training_images": len(trained), "head": names[head - 1],
              "thresholds": {"many": many, "few": few}, "regions": REGIONS,
              "conclusions": conclusions(classes, rows, sets, bool(parts)), "sets": set_rows(rows, names, sets),
              "classes": classes, "maps": rows}
    write(run.path / "analysis", result)
    return result


def checked_run(path: str | Path) -> FinishedRun:
    """The run, with everything an analysis reads but single images."""
    run = FinishedRun(path)
    if not run.data_set:
        raise InputError(run.data_set_problem)
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
        ids = [name for name in ids if _record(run, name).exists()]
        if not ids:
            raise InputError(f"{run.path / 'cam'}: no CAM record of an image of the train split; run make_cam.py on it, or "
                             "name other images with --ids_list")
    for what, path, fix in (("CAM record", partial(_record, run), "run make_cam.py with it in --infer_list"),
                            ("mask", run.data_set.mask_path, "restore it")):
        missing = [name for name in ids if not path(name).exists()]
        if missing:
            raise InputError(f"{path(missing[0])}: {what} is missing ({len(missing)} of {len(ids)} images); {fix}, or take "
                             "its id out of the list (--ids_list)")
    return ids


def _record(run: FinishedRun, name: str) -> Path:
    return run.path / "cam" / f"{name}.npz"


def trained_ids(run: FinishedRun, file: str | None) -> list[str]:
    """The ids the run was trained on; the list itself is not kept in a run, but its checksum is."""
    ids = read_list(file) if file else run.data_set.split("train_aug")[0]
    found, needed = lists.fingerprint(ids), run.config["train_sfc"]["settings"].get("images")
    if needed not in (None, found):
        raise InputError(f"{file or run.data_set.root}: {found}, but the run was trained on {needed}; name its list with "
                         "--train_list")
    return ids


def spaced(ids: list[str], limit: int | None) -> list[str]:
    """At most `limit` ids, evenly spaced over the list."""
    if limit is None or limit >= len(ids):
        return ids
    return [ids[int(i)] for i in np.linspace(0, len(ids) - 1, limit)]


# --- the files and the command line -----------------------------------------------------------------------------

def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description="Shared features, over- and under-activation of a run against class frequency; "
                                                 "writes RUN/analysis.")
    parser.add_argument("runs", metavar="RUN", nargs="+", help="work directory of a run with sfc.pth and cam/; of several "
                                                               "runs, such as seeds, the mean is printed too")
    parser.add_argument("--out", metavar="FILE", type=Path, help="Markdown file for the table that is printed last")
    parser.add_argument("--ids_list", metavar="FILE", help="images to score; default: those of the train split with a CAM record")
    parser.add_argument("--train_list", metavar="FILE", help="list the run was trained on; default train_aug of the data set")
    parser.add_argument("--limit", metavar="N", type=positive_int, help="at most N images of each list, evenly spaced")
    parser.add_argument("--num_workers", type=int, default=default_workers(), help="processes (%(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="torch device (%(default)s)")
    args = parser.parse_args(argv)

    def run() -> None:
        results = []
        for path in args.runs:
            results.append(analyse(path, args.ids_list, args.train_list, args.limit, args.num_workers, args.device))
            print(f"{summary(results[-1])}\ndetails: {Path(path) / 'analysis' / 'analysis.md'}")
        text = across_runs(results) if len(results) > 1 else summary(results[0])
        if len(results) > 1:
            print(f"mean of {len(results)} runs\n{text}")
        if args.out:
            write_atomically(args.out, lambda file: file.write(f"{text}\n".encode()))

    exit_with_message(run)
