"""Checks of the segmentation networks: DeepLabV2 with its training steps and its CRF, and DeepLabV1 on ResNet-38."""

from collections.abc import Iterator

import numpy as np
import torch

from data.transforms import wrapped_bgr
from frame import engine
from net.deeplabv2 import MultiScale, class_probabilities, multi_scale_loss, pixel_cross_entropy
from net.inputs import CAFFE_BGR_MEAN
from parity.networks import close_logits, port_name, seeded_deeplabv1, seeded_deeplabv2
from parity.report import Report
from parity.samples import check_port_crops
from parity.seeded_weights import deeplab_tensor
from parity.vectors import Vectors
from refine.crf import CRF, MeanField, crf_inference_probs

CHANGE = 1e-7                           # allowed on changes of parameters, beside the relative tolerance


def check_deeplabv2(vectors: Vectors, report: Report) -> None:
    net = seeded_deeplabv2(vectors["eval_logits"].shape[1])
    image, label = vectors.tensor("image"), vectors.tensor("label")

    outputs = net.train()(image)
    check_pyramid("train_logits_", net, outputs, vectors, report)
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


def check_pyramid(prefix: str, net: MultiScale, outputs: list[torch.Tensor], vectors: Vectors, report: Report) -> None:
    for scale, logits in zip((1, *net.scales, "max"), outputs):
        close_logits(f"{prefix}{scale}", logits, vectors, report)


def check_deeplab_steps(vectors: Vectors, report: Report) -> None:
    check_port_crops(vectors, report)
    with report.attempt("steps"):
        check_steps(vectors, report)
    check_crf(vectors, report)


def check_steps(vectors: Vectors, report: Report) -> None:
    """Steps of the training loop, each of several passes."""
    images, labels = vectors.tensor("step_images"), vectors.tensor("step_labels")
    num_classes = vectors["step_logits_1"].shape[1]
    blocks = tuple(vectors["blocks"].tolist())
    net = seeded_deeplabv2(num_classes, deeplab_tensor, blocks=blocks).train()
    base_lr, decay, momentum, power, iter_max, every = (
        vectors.number(name) for name in ("base_lr", "weight_decay", "momentum", "power", "iter_max", "lr_every"))
    groups = net.base.parameter_groups(base_lr, decay)
    optimizer, scheduler = engine.poly_sgd(groups, iter_max, momentum, decay, power, every)
    names = {port_name(name): p for name, p in net.base.named_parameters()}
    check_groups(optimizer, names, vectors, report)

    seen, pyramids, rates, changes = [], [], [], []

    def loss(batch, _):
        pyramids.append(net(batch[0]))
        losses = multi_scale_loss(pyramids[-1], batch[1])
        seen.append(losses.detach().numpy())
        return {"total": losses.sum()}

    passes, size = images.shape[1:3]
    training = engine.Training(net, optimizer, scheduler, loss, None, iter_max, passes * size, accumulate=passes)
    for step, batch in enumerate(zip(images.flatten(1, 2), labels.flatten(1, 2))):
        before = {name: p.detach().clone() for name, p in names.items()}
        rates.append(scheduler.get_last_lr())
        engine.train_step(training, loss, batch, step)
        changes.append({name: (p.detach() - before[name]).numpy() for name, p in names.items()})
    check_pyramid("step_logits_", net, pyramids[0], vectors, report)
    report.close("step_losses", np.reshape(seen, vectors["step_losses"].shape), vectors["step_losses"], absolute=0)
    report.close("step_lr", rates, vectors["step_lr"], absolute=0)
    check_changes(changes, vectors, report)


def check_groups(optimizer, names: dict, vectors: Vectors, report: Report) -> None:
    groups = [{id(p) for p in group["params"]} for group in optimizer.param_groups]
    report.equal("group_sizes", [len(group) for group in groups], vectors["group_sizes"])
    group_of = {name: i for name, p in names.items() for i, group in enumerate(groups) if id(p) in group}
    listed = [str(name) for name in vectors["step_names"]]
    report.equal("step_names", len(group_of.keys() ^ set(listed)), 0)
    report.equal("step_group", [group_of.get(name, -1) for name in listed], vectors["step_group"])


def check_changes(changes: list[dict[str, np.ndarray]], vectors: Vectors, report: Report) -> None:
    """Changes of the parameters in each step: their norms, and some of them whole."""
    norms = [[np.linalg.norm(change[str(name)]) for name in vectors["step_names"]] for change in changes]
    report.close("step_delta_norms", norms, vectors["step_delta_norms"], CHANGE)
    for name, expected in whole_changes(vectors):
        short = name.removeprefix("step_delta_")
        entry = {"stem": "base.layer1.conv1.conv.weight"}.get(short, f"base.{short.replace('_', '.')}")
        entry = entry if entry in changes[0] else f"{entry}.weight"
        part = tuple(slice(length) for length in expected.shape[1:])     # the file has the first kernels or inputs
        report.close(name, [change[entry][part] for change in changes], expected, CHANGE)


def whole_changes(vectors: Vectors) -> Iterator[tuple[str, np.ndarray]]:
    for name in vectors.names:
        if name.startswith("step_delta_") and name != "step_delta_norms":
            yield name, vectors[name]


def check_crf(vectors: Vectors, report: Report) -> None:
    """What the port's CRF command makes of logits."""
    crf = CRF(**{name: vectors.number(f"crf_{name}") for name in CRF._fields if f"crf_{name}" in vectors})
    cases = vectors.cases("_image_cast")
    report.equal("crf_images", len(cases), vectors["crf_images"])
    for case in cases:
        image, logits = vectors[f"{case}_image"], vectors.tensor(f"{case}_logits")
        probabilities = class_probabilities(logits[None], image.shape[:2])[0].numpy()
        report.agree(f"{case}_before", probabilities.argmax(0), vectors[f"{case}_before"])
        seen = wrapped_bgr(image, CAFFE_BGR_MEAN)
        report.equal(f"{case}_image_cast", seen, vectors[f"{case}_image_cast"])
        field = MeanField(seen, len(probabilities), crf)
        report.agree(f"{case}_label", crf_inference_probs(field, probabilities).argmax(0), vectors[f"{case}_label"])


def check_resnet38(vectors: Vectors, report: Report) -> None:
    net = seeded_deeplabv1(vectors["logits"].shape[1]).eval()
    logits = net(vectors.tensor("image"))
    close_logits("logits", logits, vectors, report)
    loss = pixel_cross_entropy(logits, vectors.tensor("label"))
    report.close("loss", loss, vectors["loss"])

    loss.backward()
    norms = {name: p.grad.norm().item() for name, p in net.named_parameters() if p.grad is not None}
    expected = dict(zip(vectors["grad_names"].tolist(), vectors["grad_norms"]))
    trained = {name for name, norm in expected.items() if norm >= 0}        # -1 stands for no gradient
    report.equal("grad_names", len(norms.keys() ^ trained), 0)
    report.close("grad_norms", [norms.get(name, -1) for name in expected], list(expected.values()))

    sizes = {group["lr"]: len(group["params"]) for group in net.parameter_groups(lr=1)}
    report.equal("lr_group_sizes", [sizes.get(rate, 0) for rate in (1, 2, 10, 20)], vectors["lr_group_sizes"])
