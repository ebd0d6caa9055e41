"""Checks of the SFC network: training steps and multi-scale inference."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from data.cam_store import present_maps
from data.transforms import rescale
from frame import engine
from net.msdw import MSDWLoss, bank_samples, distribution_coefficient
from net.sfc import SFCNet, SFCOutput, valid_mask, with_background
from parity.networks import sfc_authors_name, sfc_of
from parity.report import Report
from parity.vectors import Vectors
from refine.fusion import full_size_cams, fuse_scales

# Settings of the vectors that the files do not hold: N_IBR, C_IBR and N_iter of the release, and those of the trace.
BANK = 4, 3, 660
TRACE_STEPS, TRACE_DECAY, TRACE_CLIP = 10, 1e-4, 1.0


def check_sfc_step(vectors: Vectors, report: Report) -> None:
    """sfc_train and sfc_seeds: one training step, and where the file has a trace, three steps of the optimiser."""
    check_first_step(vectors, report)
    if "trace" in vectors:
        check_sfc_trace(vectors, report)


def network_and_loss(vectors: Vectors) -> tuple[SFCNet, MSDWLoss]:
    """The network of a file and its loss, with the released coefficients of the file's class counts."""
    counts = vectors.tensor("class_counts")
    dc = distribution_coefficient(counts, bank_samples(*BANK, len(counts)))
    return sfc_of(vectors, len(counts)), MSDWLoss(dc, dc)


def check_first_step(vectors: Vectors, report: Report) -> None:
    net, criterion = network_and_loss(vectors)
    report.close("dc", criterion.channel_weight_p.flatten()[1:], vectors["dc"])
    image, box, label = (vectors.tensor(name) for name in ("image", "valid_box", "label"))
    outputs = dict(zip(("full", "half"), net.forward_scales(image, box, label)))
    for (scale, output), stride in zip(outputs.items(), (net.backbone.stride, 2 * net.backbone.stride)):
        report.close(f"{scale}_score", output.score[:, :, None, None], vectors[f"{scale}_score"])
        check_maps(f"{scale}_", output, vectors, report)
        if f"{scale}_seeds" in vectors:
            valid = valid_mask(box, label, output.weight_cam.shape[2:], stride)
            report.equal(f"{scale}_seeds", net.seeds(output.weight_cam, valid), vectors[f"{scale}_seeds"])
        loss_cls = F.multilabel_soft_margin_loss(output.score, label)
        report.close(f"loss_cls_{scale}", loss_cls, vectors[f"loss_cls_{scale}"])
    losses = criterion(outputs["full"], outputs["half"], label)
    for ours, theirs in (("cls", "loss_cls"), ("dw_p", "loss_dw_p"), ("dw_w", "loss_dw_w"), ("total", "loss_total")):
        report.close(theirs, getattr(losses, ours), vectors[theirs], absolute=0)
    losses.total.backward()
    check_gradients(net, vectors, report)


def check_maps(prefix: str, output: SFCOutput, vectors: Vectors, report: Report) -> None:
    """CAM before PCM, M_W and M_P, in the release's words `orignal_cam`, `cam1` and `cam2`."""
    for name, cam in (("orignal_cam", output.coarse_cam), ("cam1", output.weight_cam), ("cam2", output.prototype_cam)):
        report.close(prefix + name, cam, vectors[prefix + name])


def check_gradients(net: SFCNet, vectors: Vectors, report: Report) -> None:
    """Gradients are small numbers: the relative tolerance has to hold nearly alone."""
    parameters = {sfc_authors_name(name): parameter for name, parameter in net.named_parameters()}
    gradients = [parameters[str(name)].grad for name in vectors["grad_names"]]
    norms = [-1 if gradient is None else float(gradient.norm()) for gradient in gradients]
    report.close("grad_norms", norms, vectors["grad_norms"], absolute=1e-7)
    report.close("grad_classifier", net.classifier.weight.grad[:, :, 0, 0], vectors["grad_classifier"], absolute=1e-7)
    report.close("grad_side1", net.side1.weight.grad[:, :, 0, 0], vectors["grad_side1"], absolute=1e-7)
    if "grad_f9_image" in vectors:
        gradient = net.pcm_feature.weight.grad[:, :3, 0, 0]
        report.close("grad_f9_image", gradient, vectors["grad_f9_image"], absolute=1e-10)


def check_sfc_trace(vectors: Vectors, report: Report) -> None:
    """Three steps of the training loop: learning rates 0.1 and 1, poly schedule, gradients clipped."""
    net, criterion = network_and_loss(vectors)
    optimizer, scheduler = engine.poly_sgd(net.parameter_groups(), TRACE_STEPS, TRACE_DECAY, TRACE_DECAY)

    def loss(batch, _):
        image, box, label = batch
        return criterion(*net.forward_scales(image, box, label), label)._asdict()

    columns = [str(name) for name in vectors["trace_columns"]]
    for step, expected in enumerate(vectors["trace"]):
        image, label = (vectors.tensor(f"trace_{name}{step}") for name in ("image", "label"))
        batch = image, trace_box(vectors, step, image), label
        training = engine.Training(net, optimizer, scheduler, loss, None, TRACE_STEPS, len(image), TRACE_CLIP)
        net.zero_grad()
        loss(batch, step)["total"].backward()
        found = dict(zip(("lr_backbone", "lr_new"), scheduler.get_last_lr()))
        found["grad_norm_before_clip"] = nn.utils.get_total_norm(p.grad for p in net.parameters() if p.grad is not None)
        found |= engine.train_step(training, loss, batch, step)
        found |= {"norm_classifier": net.classifier.weight.norm(), "norm_f9": net.pcm_feature.weight.norm(),
                  "norm_layer4.0.conv2": net.backbone.layer4[0].conv2.weight.norm()}
        for column, value in zip(columns, expected):
            report.close(f"trace step {step} {column}", found[column], value)


def trace_box(vectors: Vectors, step: int, image: torch.Tensor) -> torch.Tensor:
    """Boxes (N, 4) of a further step. Where a file holds them as a pickle, which is not read, they follow from the
    image: it is 0 outside of its box."""
    name = f"trace_valid_box{step}"
    try:
        return vectors.tensor(name)
    except ValueError:
        vectors.ignore(name, "a pickle, which is not read; the boxes follow from the images")
        return torch.stack([box_of(shown) for shown in (image != 0).any(1)])


def box_of(shown: torch.Tensor) -> torch.Tensor:
    """(H, W) bool -> (4,) y0, y1, x0, x1 around what is true; zeros if nothing is."""
    sides = [side.nonzero() for side in (shown.any(1), shown.any(0))]
    return torch.tensor([end for side in sides for end in ((int(side[0]), int(side[-1]) + 1) if len(side) else (0, 0))])


@torch.no_grad()
def check_cam_inference(vectors: Vectors, report: Report) -> None:
    """cam_inference and cam_inference_seeded: every scale, and what make_cam.py makes of them."""
    image, label = vectors["image"], vectors.tensor("label")
    net = sfc_of(vectors, len(label))
    present = with_background(label[None].bool())[:, :, None, None]
    maps = []
    for scale in vectors["scales"]:
        pixels = torch.from_numpy(rescale(image, float(scale)).copy()).permute(2, 0, 1)[None]
        output = net.infer(net.backbone.prepare(pixels), label[None])
        one = SFCOutput(*(part[0] for part in output))
        check_maps(f"scale{scale}_", one, vectors, report)
        if f"scale{scale}_seeds" in vectors:
            seeds = net.seeds(output.weight_cam, present)[0]
            report.equal(f"scale{scale}_seeds", seeds, vectors[f"scale{scale}_seeds"])
        maps.append((one.weight_cam, one.prototype_cam))
    if "absent" in vectors:
        absent = vectors.number("absent")
        wins = torch.cat([weight_cam.argmax(0).flatten() for weight_cam, _ in maps]) == absent
        report.equal("absent: not in the label, wins", [label[absent - 1], bool(wins.any())], [0, 1])
    record = present_maps(maps, label, image.shape[:2])
    report.equal("keys", record.keys, vectors["keys"])
    for name, of_kind, stepped in zip(("IS_CAM1", "IS_CAM"), zip(*maps), full_size_cams(record)):
        report.close(f"{name}_fused", fuse_scales(list(of_kind), image.shape[:2]), vectors[f"{name}_fused"])
        report.close(name, stepped, vectors[name])
