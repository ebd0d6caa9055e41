"""What follows from the sums of an analysis: numbers of every class, and Conclusions 1 to 3 against class frequency."""

import numpy as np
import torch

from paper.cam_counts import ARGMAX, ORACLE, CamCounts
from paper.shared_features import DISCRIMINATIVE_PART, OWN, PART_REGIONS, SHARED_PART, RegionMeans, projection
from refine.scored_maps import CAMS, PROTOTYPE_CAM, WEIGHT_CAM
from report.numbers import difference, mean, per_cent, ratio


def map_rows(counts: CamCounts, class_names, head: int) -> list[dict]:
    """A row a class, map and background rule; scores in per cent, None where there is no such pixel.

    shared_as_head: of the class's shared pixels in images that show the head class too, the share labelled as head.
    """
    rows = []
    for name in CAMS:
        for rule, step in ((ARGMAX, None), (ORACLE, counts.oracle_step(name))):
            by_part = counts.labelled(name, step)
            whole = np.sum([part.matrix for part in by_part.values()], axis=0)
            beside, shared, discriminative = (by_part[part].matrix if part in by_part else np.zeros_like(whole)
                                              for part in ("shared beside head", "shared", "discriminative"))
            shared = shared + beside
            for index, class_name in enumerate(class_names, start=1):
                hit, true, predicted = map(float, (whole[index, index], whole[index].sum(), whole[:, index].sum()))
                beside_head = beside[index] if index != head else np.zeros_like(beside[index])
                rows.append({
                    "class": class_name, "map": name, "background": rule,
                    "threshold": None if step is None else step / counts.sweep[name]["rest"].bins,
                    "iou": per_cent(hit, true + predicted - hit), "precision": per_cent(hit, predicted),
                    "recall": per_cent(hit, true), "area_ratio": predicted / true if true else None,
                    "recall_shared": per_cent(shared[index, index], shared[index].sum()),
                    "recall_discriminative": per_cent(discriminative[index, index], discriminative[index].sum()),
                    "shared_pixels_beside_head": int(beside_head.sum()),
                    "shared_as_head": per_cent(beside_head[head], beside_head.sum())})
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
                           list(map(ratio, areas[PROTOTYPE_CAM], areas[WEIGHT_CAM]))))
        if parts:
            quantities.append(("3", f"recall on shared pixels, M_P - M_W, {rule}", "rho < 0, many < 0 < few",
                               list(map(difference, recalls[PROTOTYPE_CAM], recalls[WEIGHT_CAM]))))
    for region in ("shared", "f0_others") if parts else ("own", "others"):
        quantities.append(("3", f"P_c, cosine on {region}", "> 0 everywhere",
                           [c["prototype"][region]["cosine"] for c in classes]))
    return [{"conclusion": number, "quantity": name, "expected": expected}
            | spearman([c["n_c"] for c in classes], values)
            | {f"mean_{key}": mean([values[i] for i in members if classes[i]["n_c"]]) for key, members in sets.items()}
            for number, name, expected, values in quantities]


def spearman(counts: list[int], values: list[float | None]) -> dict[str, float | int | None]:
    """Spearman's rho and its p of values against counts, over classes with a value and at least one training image.

    rho and p are None below three classes, or where one side is constant.
    """
    pairs = [(count, value) for count, value in zip(counts, values) if count and value is not None]
    from scipy.stats import spearmanr  # takes a second that --help saves
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
                       | {f"{key}_{measure}": mean([of_class[i][measure] for i in members])
                          for measure in ("iou", "area_ratio") for key, members in sets.items()})
    return out
