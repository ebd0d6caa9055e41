"""Checks of what CAMs become: IR labels, pseudo masks, scores."""

import re

import torch

from parity.report import Report
from parity.vectors import Vectors
from refine.crf import CRF, ir_label, label_pair, seed_pair
from refine.fusion import final_cam
from refine.metrics import ConfusionMatrix
from refine.pseudo_mask import (
    Walk,
    on_edge_grid,
    over_maximum,
    pseudo_mask,
    upsampled,
    walk_along_edges,
    walk_scores,
    walk_starts,
)

IRN_CRF = CRF(iterations=10)            # of crf_ir_label, whose file does not hold it
NOISY_AGREEMENT = 0.9999                # of ir_label_noisy


def check_crf_ir_label(vectors: Vectors, report: Report) -> None:
    for scene in vectors.cases("cams"):
        image, cams, keys = (vectors[scene + part] for part in ("image", "cams", "keys"))
        strict, loose = label_pair(image, cams, crf=IRN_CRF)
        report.agree(f"{scene}fg", keys[strict], vectors[f"{scene}fg"])
        report.agree(f"{scene}bg", keys[loose], vectors[f"{scene}bg"])
        report.agree(f"{scene}ir_label", ir_label(image, cams, keys, crf=IRN_CRF), vectors[f"{scene}ir_label"])
        vectors.ignore(f"{scene}gt", "the truth of the scene, which the labels do not depend on")


def check_ir_label_noisy(vectors: Vectors, report: Report) -> None:
    crf = CRF(*(vectors.number(name) for name in CRF._fields))
    background = vectors.number("background_scale")
    for scene in vectors.cases("IS_CAM1"):
        image, keys = vectors[f"{scene}image"], vectors[f"{scene}keys"]
        cam = released_final_cam(vectors, scene).numpy()
        for name, seeds in zip(("fg_seeds", "bg_seeds"), seed_pair(cam, background)):
            report.equal(scene + name, keys[seeds], vectors[scene + name])
        for name, labels in zip(("fg", "bg"), label_pair(image, cam, background, crf)):
            report.agree(scene + name, keys[labels], vectors[scene + name], NOISY_AGREEMENT)
        label = ir_label(image, cam, keys, background, crf)
        report.agree(f"{scene}ir_label", label, vectors[f"{scene}ir_label"], NOISY_AGREEMENT)


def released_final_cam(vectors: Vectors, scene: str) -> torch.Tensor:
    """M_final (K+1, H, W) of a scene, whose M_W and M_P are float16 and used as float32."""
    weight_cam, prototype_cam = (vectors.tensor(scene + name).float() for name in ("IS_CAM1", "IS_CAM"))
    return final_cam(weight_cam, prototype_cam, vectors.number("prototype_weight"))


def check_pseudo_mask(vectors: Vectors, report: Report) -> None:
    power = vectors.number("power")
    # The release raises the CAM to the power in place, and then again: all channels start from its square.
    walk = Walk(vectors.number("beta"), vectors.number("exp_times"), vectors.number("radius"), power,
                vectors.number("background"), all_power=power ** 2)
    stride = vectors.number("stride")
    for scene in vectors.cases("IS_CAM1"):
        cam, edge, keys = released_final_cam(vectors, scene), vectors[f"{scene}edge"], vectors[f"{scene}keys"]
        report.equal(f"{scene}size", cam.shape[1:], vectors[f"{scene}size"])
        small = on_edge_grid(cam, edge)
        report.close(f"{scene}small", small, vectors[f"{scene}small"])
        starts = walk_starts(small, walk)
        walked = walk_along_edges(starts, edge, walk)
        large = [upsampled(part, stride, tuple(cam.shape[1:])) for part in walked]
        maps = [over_maximum(part) for part in large]
        for i, name in enumerate(("fg", "all")):
            report.close(f"{scene}start_{name}", starts[i], vectors[f"{scene}start_{name}"])
            report.close(f"{scene}walk_{name}", walked[i], vectors[f"{scene}walk_{name}"])
            report.close(f"{scene}max_{name}", large[i].max(), vectors[f"{scene}max_{name}"])
            report.close(f"{scene}up_{name}", maps[i], vectors[f"{scene}up_{name}"])
        report.close(f"{scene}sum", walk_scores(maps, walk), vectors[f"{scene}sum"])
        report.agree(f"{scene}label", keys[pseudo_mask(cam, edge, stride, walk)], vectors[f"{scene}label"])


def check_chainercv_confusion(vectors: Vectors, report: Report) -> None:
    confusion = ConfusionMatrix(len(vectors["confusion"]))
    for name in vectors.names:
        if found := re.fullmatch(r"pred(\d+)", name):
            confusion.update(vectors[name], vectors[f"gt{found[1]}"])
    report.equal("confusion", confusion.matrix, vectors["confusion"])
    report.equal("iou", confusion.iou(), vectors["iou"])
    report.equal("miou", confusion.miou(), vectors["miou"])
