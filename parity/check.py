"""Recompute every quantity of the reference vectors in some folders and compare.

    python tools/check_parity.py tests/golden [DIR ...]

Prints a row for each quantity. Exit status: 0 all within tolerance, 1 a quantity is off, 2 no vectors found.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Callable

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from data.transforms import rescale
from frame.engine import poly_sgd
from frame.weights import AUTHORS_NAMES
from net.backbone import build_backbone
from net.deeplabv2 import DeepLabV2, MultiScale, deeplab_pytorch_name, multi_scale_loss, pixel_cross_entropy
from net.irn import IRN, PathIndex, affinity_labels, downsample_label, irn_loss
from net.msdw import MSDWLoss, bank_samples, distribution_coefficient
from net.resnet38 import DeepLabV1
from net.sfc import SFCNet
from parity.seeded_weights import seeded_tensor
from refine.crf import ir_label, label_pair
from refine.fusion import background_step, fuse_scales
from refine.metrics import ConfusionMatrix
from refine.random_walk import propagate

# Tolerances of tests/golden/README.md.
ABSOLUTE, RELATIVE = 1e-4, 1e-3
LABEL_AGREEMENT = 0.999
# Seeded segmentation networks give logits of several hundred: rounding of float32 sums, which depends on the number
# of threads, is relative to the largest of them and exceeds ABSOLUTE.
LOGIT_ROUNDING = 1e-5

# Settings of the vectors that the files do not hold.
IRN_RADIUS = 10
WALK_RADIUS = 5


class Vectors:
    """The arrays of one file; remembers which were read, so that none goes unchecked."""

    def __init__(self, path: Path):
        self._file = np.load(path, allow_pickle=False)
        self.unread = set(self._file.files)

    @property
    def names(self) -> list[str]:
        return self._file.files

    def __getitem__(self, name: str) -> np.ndarray:
        self.unread.discard(name)
        return self._file[name]

    def ignore(self, name: str) -> None:
        """Mark an array as neither input nor result."""
        self.unread.discard(name)


class Report:
    """Prints a row for each quantity and counts the failures."""

    def __init__(self):
        self.rows: list[tuple[str, bool]] = []
        self.unchecked: list[str] = []

    @property
    def failed(self) -> list[str]:
        return [name for name, ok in self.rows if not ok]

    def close(self, name: str, value, expected, absolute: float = ABSOLUTE, relative: float = RELATIVE) -> None:
        """|value - expected| <= absolute + relative |expected|; nan equals nan."""
        value, expected = as_array(value), as_array(expected)
        if value.shape != expected.shape:
            self.fail(name, f"shape {value.shape}, expected {expected.shape}")
            return
        both_nan = np.isnan(value) & np.isnan(expected)
        error = np.where(both_nan, 0, np.abs(value - expected)).ravel()
        allowed = np.where(both_nan, absolute, absolute + relative * np.abs(expected)).ravel()
        off = ~(error <= allowed)                                        # also where only one of the two is nan
        if off.any():
            error, allowed = error[off], allowed[off]
        worst = np.argmax(error)
        self._add(name, error[worst], allowed[worst], not off.any())

    def equal(self, name: str, value, expected) -> None:
        """Exactly equal."""
        self.close(name, value, expected, absolute=0, relative=0)

    def agree(self, name: str, labels: np.ndarray, expected: np.ndarray, share: float = LABEL_AGREEMENT) -> None:
        """Label maps agree on at least this share of the pixels; the error is the share that differs."""
        if labels.shape != expected.shape:
            self.fail(name, f"shape {labels.shape}, expected {expected.shape}")
            return
        differ = float(np.mean(labels != expected))
        self._add(name, differ, 1 - share, differ <= 1 - share)

    def fail(self, name: str, reason: str) -> None:
        self.rows.append((name, False))
        print(f"  {name:<32} FAILED: {reason}")

    def _add(self, name: str, error: float, allowed: float, ok: bool) -> None:
        self.rows.append((name, ok))
        print(f"  {name:<32} {error:>12.3e} {allowed:>12.3e}  {'ok' if ok else 'FAILED'}")


def as_array(x) -> np.ndarray:
    return np.asarray(x.detach() if isinstance(x, torch.Tensor) else x, np.float64)


def load_seeded_weights(module: nn.Module, authors_name: Callable[[str], str]) -> None:
    """Fill a module with the weights of the vectors; `authors_name` maps our state-dict names to the authors'."""
    for name, tensor in module.state_dict().items():
        tensor.copy_(torch.from_numpy(seeded_tensor(authors_name(name), tuple(tensor.shape))))


def irn_authors_name(name: str) -> str:
    """IRN's state-dict name of an entry of net.irn.IRN."""
    return re.sub(r"^backbone\.", "resnet50.", name)


def sfc_authors_name(name: str) -> str:
    """The authors' state-dict name of an entry of net.sfc.SFCNet."""
    for theirs, ours in AUTHORS_NAMES.items():
        if name.startswith(ours):
            return theirs + name[len(ours):]
    return name


def seeded_sfc(num_classes: int) -> SFCNet:
    net = SFCNet(build_backbone("resnet50"), num_classes)
    load_seeded_weights(net, sfc_authors_name)
    return net


def check_sfc_train(vectors: Vectors, report: Report) -> None:
    counts = torch.from_numpy(vectors["class_counts"])
    dc = distribution_coefficient(counts, bank_samples(4, 3, 660, len(counts)))
    report.close("dc", dc, vectors["dc"])
    criterion = MSDWLoss(dc, dc)
    check_sfc_step(seeded_sfc(len(counts)).eval(), criterion, vectors, report)
    check_sfc_trace(seeded_sfc(len(counts)).eval(), criterion, vectors, report)


def check_sfc_step(net: SFCNet, criterion: MSDWLoss, vectors: Vectors, report: Report) -> None:
    image, box, label = (torch.from_numpy(vectors[name]) for name in ("image", "valid_box", "label"))
    full, half, losses = forward_scales(net, criterion, image, box, label)
    for scale, output in (("full", full), ("half", half)):
        report.close(f"{scale}_score", output.score[:, :, None, None], vectors[f"{scale}_score"])
        report.close(f"{scale}_orignal_cam", output.coarse_cam, vectors[f"{scale}_orignal_cam"])
        report.close(f"{scale}_cam1", output.weight_cam, vectors[f"{scale}_cam1"])
        report.close(f"{scale}_cam2", output.prototype_cam, vectors[f"{scale}_cam2"])
        report.close(f"loss_cls_{scale}", F.multilabel_soft_margin_loss(output.score, label), vectors[f"loss_cls_{scale}"])
    for ours, theirs in (("cls", "loss_cls"), ("dw_p", "loss_dw_p"), ("dw_w", "loss_dw_w"), ("total", "loss_total")):
        report.close(theirs, getattr(losses, ours), vectors[theirs])

    losses.total.backward()
    parameters = {sfc_authors_name(name): parameter for name, parameter in net.named_parameters()}
    norms = [-1 if (grad := parameters[str(name)].grad) is None else float(grad.norm()) for name in vectors["grad_names"]]
    # Gradients are small numbers: the relative tolerance alone has to hold.
    report.close("grad_norms", norms, vectors["grad_norms"], absolute=1e-7)
    report.close("grad_classifier", net.classifier.weight.grad[:, :, 0, 0], vectors["grad_classifier"], absolute=1e-6)
    report.close("grad_side1", net.side1.weight.grad[:, :, 0, 0], vectors["grad_side1"], absolute=1e-7)


def check_sfc_trace(net: SFCNet, criterion: MSDWLoss, vectors: Vectors, report: Report) -> None:
    """Three optimiser steps: lr 0.1 and 1, weight decay and momentum 1e-4, poly over 10 steps, gradients clipped at 1."""
    optimizer, scheduler = poly_sgd(net.parameter_groups(), total_steps=10, momentum=1e-4, weight_decay=1e-4)
    columns = [str(name) for name in vectors["trace_columns"]]
    for step, expected in enumerate(vectors["trace"]):
        image, label = (torch.from_numpy(vectors[f"trace_{name}{step}"]) for name in ("image", "label"))
        _, _, losses = forward_scales(net, criterion, image, trace_box(vectors, step, image), label)
        optimizer.zero_grad()
        losses.total.backward()
        found = losses._asdict() | dict(zip(("lr_backbone", "lr_new"), scheduler.get_last_lr()))
        found["grad_norm_before_clip"] = nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        found |= {"norm_classifier": net.classifier.weight.norm(), "norm_f9": net.pcm_feature.weight.norm(),
                  "norm_layer4.0.conv2": net.backbone.layer4[0].conv2.weight.norm()}
        for column, value in zip(columns, expected):
            report.close(f"trace step {step} {column}", found[column], value)


def forward_scales(net: SFCNet, criterion: MSDWLoss, image, box, label):
    """Outputs at scale 1 and 0.5, and the losses: the training step of train_sfc.py."""
    full, half = net.forward_scales(image, box, label)
    return full, half, criterion(full, half, label)


def trace_box(vectors: Vectors, step: int, image: torch.Tensor) -> torch.Tensor:
    """Boxes (N, 4) of a further step. Where a file holds them as a pickle, which is not read, they follow from the
    image: it is 0 outside of its box."""
    try:
        return torch.from_numpy(vectors[f"trace_valid_box{step}"])
    except ValueError:
        return torch.stack([box_of(shown) for shown in (image != 0).any(1)])


def box_of(shown: torch.Tensor) -> torch.Tensor:
    """(H, W) bool -> (4,) y0, y1, x0, x1 around what is true; zeros if nothing is."""
    sides = [side.nonzero() for side in (shown.any(1), shown.any(0))]
    return torch.tensor([end for side in sides for end in ((int(side[0]), int(side[-1]) + 1) if len(side) else (0, 0))])


@torch.no_grad()
def check_cam_inference(vectors: Vectors, report: Report) -> None:
    image, label = vectors["image"], torch.from_numpy(vectors["label"])
    net = seeded_sfc(len(label)).eval()
    weight_maps, prototype_maps = [], []
    for scale in vectors["scales"]:
        pixels = torch.from_numpy(rescale(image, float(scale)).copy()).permute(2, 0, 1)[None]
        output = net.infer(net.backbone.prepare(pixels), label[None])
        report.close(f"scale{scale}_orignal_cam", output.coarse_cam[0], vectors[f"scale{scale}_orignal_cam"])
        report.close(f"scale{scale}_cam1", output.weight_cam[0], vectors[f"scale{scale}_cam1"])
        report.close(f"scale{scale}_cam2", output.prototype_cam[0], vectors[f"scale{scale}_cam2"])
        weight_maps.append(output.weight_cam[0])
        prototype_maps.append(output.prototype_cam[0])
    keys = torch.cat([torch.zeros(1, dtype=torch.int64), label.nonzero().flatten() + 1])
    report.equal("keys", keys, vectors["keys"])
    for name, maps in (("IS_CAM1", weight_maps), ("IS_CAM", prototype_maps)):
        fused = fuse_scales(maps, image.shape[:2])
        report.close(f"{name}_fused", fused, vectors[f"{name}_fused"])
        report.close(name, background_step(fused[keys]), vectors[name])


def check_irn(vectors: Vectors, report: Report) -> None:
    net = IRN(build_backbone("resnet50"))
    load_seeded_weights(net, irn_authors_name)
    path_index = PathIndex(IRN_RADIUS)
    check_irn_training(net.train(), path_index, vectors, report)
    check_irn_inference(net.eval(), vectors, report)


def check_irn_training(net: IRN, path_index: PathIndex, vectors: Vectors, report: Report) -> None:
    edge, displacement = net(torch.from_numpy(vectors["image"]))
    label = torch.from_numpy(vectors["ir_label"])
    report.close("edge_logit", edge, vectors["edge_logit"])
    report.close("displacement", displacement, vectors["displacement"])

    pairs = affinity_labels(downsample_label(label, edge.shape[2:]), path_index)
    for name, mask in zip(("count_bg_pos", "count_fg_pos", "count_neg"), pairs):
        report.equal(name, mask.sum(), vectors[name])
    sources = path_index.source(edge[0, 0]).numel()
    report.equal("n_src", sources, vectors["n_src"])
    report.equal("dst_shape", [len(path_index.destinations), sources], vectors["dst_shape"])
    report.equal("search_dst", path_index.destinations, vectors["search_dst"])

    losses = irn_loss(edge, displacement, label, path_index)
    for name, loss in losses.items():
        report.close(name, loss, vectors[name])
    losses["loss_total"].backward()
    # The norms are of the convolutions' weights: the first of the branch, and the last one of fc_dp7.
    for name, conv in (("fc_edge1", net.fc_edge1[0]), ("fc_edge6", net.fc_edge6), ("fc_dp7", net.fc_dp7[3])):
        report.close(f"grad_norm_{name}", conv.weight.grad.norm(), vectors[f"grad_norm_{name}"])
    has_grad = any(parameter.grad is not None for parameter in net.backbone.parameters())
    report.equal("backbone_has_grad", has_grad, vectors["backbone_has_grad"])


def check_irn_inference(net: IRN, vectors: Vectors, report: Report) -> None:
    image = torch.from_numpy(vectors["infer_image"]).permute(2, 0, 1)[None]
    image = net.backbone.prepare(image)[0]
    report.close("infer_edge", net.predict_edge(image), vectors["infer_edge"])
    report.close("infer_displacement", net.predict_displacement(image), vectors["infer_displacement"])


def check_random_walk(vectors: Vectors, report: Report) -> None:
    cam, edge = vectors["cam"], vectors["edge"]
    for name in vectors.names:
        if found := re.fullmatch(r"rw_beta([\d.]+)_exp(\d+)", name):
            walked = propagate(cam, edge, beta=float(found[1]), exp_times=int(found[2]), radius=WALK_RADIUS)
            report.close(name, walked[:, None], vectors[name])


def check_crf_ir_label(vectors: Vectors, report: Report) -> None:
    for scene in (name.removesuffix("_cams") for name in vectors.names if name.endswith("_cams")):
        image, cams, keys = (vectors[f"{scene}_{part}"] for part in ("image", "cams", "keys"))
        strict, loose = label_pair(image, cams)
        report.agree(f"{scene}_fg", keys[strict], vectors[f"{scene}_fg"])
        report.agree(f"{scene}_bg", keys[loose], vectors[f"{scene}_bg"])
        report.agree(f"{scene}_ir_label", ir_label(image, cams, keys), vectors[f"{scene}_ir_label"])
        vectors.ignore(f"{scene}_gt")


def check_chainercv_confusion(vectors: Vectors, report: Report) -> None:
    confusion = ConfusionMatrix(len(vectors["confusion"]))
    for name in vectors.names:
        if found := re.fullmatch(r"pred(\d+)", name):
            confusion.update(vectors[name], vectors[f"gt{found[1]}"])
    report.equal("confusion", confusion.matrix, vectors["confusion"])
    report.equal("iou", confusion.iou(), vectors["iou"])
    report.equal("miou", confusion.miou(), vectors["miou"])


def check_deeplabv2(vectors: Vectors, report: Report) -> None:
    net = MultiScale(DeepLabV2(vectors["eval_logits"].shape[1], stride_on_1x1=True))
    load_seeded_weights(net.base, lambda name: f"base.{deeplab_pytorch_name(name)}")
    image, label = (torch.from_numpy(vectors[name]) for name in ("image", "label"))

    outputs = net.train()(image)
    for scale, logits in zip((1, *net.scales, "max"), outputs):
        close_logits(f"train_logits_{scale}", logits, vectors, report)
    losses = multi_scale_loss(outputs, label)
    report.close("losses", losses, vectors["losses"])
    report.close("loss_total", losses.sum(), vectors["loss_total"])

    losses.sum().backward()
    backbone = net.base.backbone
    # The norms are of single convolutions' weights; of layer5, the 3x3 convolution of the first block.
    for name, conv in (("aspp_c0", net.base.aspp.c0), ("layer5", backbone.layer4[0].conv2), ("stem", backbone.conv1)):
        report.close(f"grad_norm_{name}", conv.weight.grad.norm(), vectors[f"grad_norm_{name}"])

    with torch.no_grad():
        close_logits("eval_logits", net.eval()(image), vectors, report)


def check_resnet38(vectors: Vectors, report: Report) -> None:
    net = DeepLabV1(vectors["logits"].shape[1]).eval()
    load_seeded_weights(net, lambda name: name)

    logits = net(torch.from_numpy(vectors["image"]))
    close_logits("logits", logits, vectors, report)
    loss = pixel_cross_entropy(logits, torch.from_numpy(vectors["label"]))
    report.close("loss", loss, vectors["loss"])

    loss.backward()
    norms = {name: p.grad.norm().item() for name, p in net.named_parameters() if p.grad is not None}
    expected = dict(zip(vectors["grad_names"].tolist(), vectors["grad_norms"]))
    trained = {name for name, norm in expected.items() if norm >= 0}        # -1 stands for no gradient
    report.equal("grad_names", len(norms.keys() ^ trained), 0)
    report.close("grad_norms", [norms.get(name, -1) for name in expected], list(expected.values()))

    sizes = {group["lr"]: len(group["params"]) for group in net.parameter_groups(lr=1)}
    report.equal("lr_group_sizes", [sizes.get(rate, 0) for rate in (1, 2, 10, 20)], vectors["lr_group_sizes"])


def close_logits(name: str, logits: torch.Tensor, vectors: Vectors, report: Report) -> None:
    expected = vectors[name]
    report.close(name, logits, expected, absolute=max(ABSOLUTE, LOGIT_ROUNDING * np.abs(expected).max()))


# A file belongs to the checker whose key its name starts with.
CHECKERS: dict[str, Callable[[Vectors, Report], None]] = {
    "sfc_train": check_sfc_train,
    "cam_inference": check_cam_inference,
    "irn": check_irn,
    "random_walk": check_random_walk,
    "crf_ir_label": check_crf_ir_label,
    "chainercv_confusion": check_chainercv_confusion,
    "deeplabv2": check_deeplabv2,
    "resnet38": check_resnet38,
}


def find_checker(path: Path) -> Callable[[Vectors, Report], None] | None:
    return next((checker for prefix, checker in CHECKERS.items() if path.name.startswith(prefix)), None)


def check_file(path: Path, report: Report) -> None:
    """Run the checker of one file; an exception is a failure, an array nobody looked at is named."""
    print(f"{path}\n  {'quantity':<32} {'max error':>12} {'allowed':>12}")
    vectors = Vectors(path)
    try:
        find_checker(path)(vectors, report)
    except Exception as error:       # the other files still deserve their rows
        report.fail(path.stem, f"{type(error).__name__}: {error}")
    for name in sorted(vectors.unread):
        report.unchecked.append(name)
        print(f"  {name:<32} not checked: no quantity of this name is known")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", metavar="DIR", type=Path, nargs="+", help="folder with reference vectors (*.npz)")
    folders = parser.parse_args().folders

    for folder in folders:
        if not folder.is_dir():
            print(f"{folder}: no such folder", file=sys.stderr)
            return 2
    files = [path for folder in folders for path in sorted(folder.glob("*.npz"))]
    known = [path for path in files if find_checker(path)]
    for path in files:
        if path not in known:
            print(f"{path}: no checker for these vectors, skipped", file=sys.stderr)
    if not known:
        print(f"no reference vectors found in {', '.join(map(str, folders))}", file=sys.stderr)
        return 2

    report = Report()
    for path in known:
        check_file(path, report)
    print(f"{len(report.rows)} quantities, {len(report.failed)} failed")
    return 1 if report.failed else 0
