"""Initial weights and checkpoints: whether they are there and fit, or can be downloaded."""

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import torch

from check.finding import ERROR, OK, WARNING, Finding
from check.plan import Plan
from frame import network
from frame.settings.cams import Inference, Network
from frame.settings.common import BackboneChoice, Weights
from frame.settings.segmentation import SegNetwork
from segmentation.network import Design, build_initialised

SECONDS = 5                        # to wait for an answer of the server


def check(plan: Plan) -> Iterator[Finding]:
    flags, to_do = plan.flags, plan.to_do()
    backbone, num_classes = flags[BackboneChoice].backbone, plan.data_set.num_classes
    if {"train_sfc", "train_irn"} & set(to_do):
        yield from check_backbone(flags[Network], backbone, num_classes, flags[Weights].weights)
    checkpoint = flags[Inference].checkpoint
    if checkpoint and "make_cam" in to_do:
        network.load_sfc(flags[Network], backbone, num_classes, checkpoint)
        yield Finding("checkpoint", OK, f"{checkpoint}: fits")
    if "train_deeplab" in to_do:
        yield from check_segmentation(flags[SegNetwork], num_classes)


def check_backbone(settings: Network, backbone: str, num_classes: int, source: str) -> Iterator[Finding]:
    if source == "none":
        yield Finding("weights", WARNING, "--weights none: training starts from random weights",
                      "--weights imagenet, as the paper")
    elif source == "imagenet" and backbone.startswith("resnet"):
        yield check_download(backbone, "--weights")
    else:
        network.initialise(network.build_sfc(settings, backbone, num_classes), backbone, source)
        yield Finding("weights", OK, f"{source}, for {backbone}: fit")


def check_segmentation(settings: SegNetwork, num_classes: int) -> Iterator[Finding]:
    if settings.init == "none":
        yield Finding("weights", WARNING, "--seg_init none: training starts from random weights",
                      "--seg_init imagenet, as the paper")
    elif settings.init == "imagenet" and settings.net == "deeplabv2_resnet101":
        yield check_download("resnet101", "--seg_init")
    else:
        build_initialised(Design(settings.net, num_classes, settings.width, settings.blocks), settings.init)
        yield Finding("weights", OK, f"{settings.init}: fits {settings.net}")


def check_download(name: str, option: str) -> Finding:
    """torchvision's ImageNet weights: in its cache, or on a server that answers."""
    import torchvision  # takes as long to import as PyTorch

    url = torchvision.models.get_model_weights(name).IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if path.exists():
        return Finding("weights", OK, f"{path}: there")
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=SECONDS) as answer:
            megabytes = int(answer.headers.get("Content-Length", 0)) / 1e6
    except (OSError, ValueError) as error:
        return Finding("weights", ERROR, f"ImageNet weights of {name} are not in {path.parent}, and cannot be "
                       f"downloaded ({error})", f"download {url} on another machine and give {option} FILE")
    return Finding("weights", OK, f"ImageNet weights of {name}: {megabytes:.0f} MB will be downloaded")
