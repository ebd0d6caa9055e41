"""Checks of IRN: losses, gradients and inference, and the random walk."""

import re

import numpy as np

from net.irn import IRN, PathIndex, affinity_labels, downsample_label, irn_loss
from parity.networks import seeded_irn
from parity.report import Report
from parity.vectors import Vectors
from refine.random_walk import propagate

WALK_RADIUS = 5                      # of random_walk, whose file does not hold it


def check_irn(vectors: Vectors, report: Report) -> None:
    net = seeded_irn()
    check_training(net.train(), path_index_of(vectors), vectors, report)
    check_inference(net.eval(), vectors, report)


def path_index_of(vectors: Vectors) -> PathIndex:
    """All pairs closer than the radius, which is one more than the largest step along a side."""
    return PathIndex(int(np.abs(vectors["search_dst"]).max()) + 1)


def check_training(net: IRN, path_index: PathIndex, vectors: Vectors, report: Report) -> None:
    edge, displacement = net(vectors.tensor("image"))
    label = vectors.tensor("ir_label")
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


def check_inference(net: IRN, vectors: Vectors, report: Report) -> None:
    image = net.backbone.prepare(vectors.tensor("infer_image").permute(2, 0, 1)[None])[0]
    report.close("infer_edge", net.predict_edge(image), vectors["infer_edge"])
    report.close("infer_displacement", net.predict_displacement(image), vectors["infer_displacement"])


def check_random_walk(vectors: Vectors, report: Report) -> None:
    cam, edge = vectors["cam"], vectors["edge"]
    for name in vectors.names:
        if found := re.fullmatch(r"rw_beta([\d.]+)_exp(\d+)", name):
            walked = propagate(cam, edge, beta=float(found[1]), exp_times=int(found[2]), radius=WALK_RADIUS)
            report.close(name, walked[:, None], vectors[name])
