"""Networks with the seeded weights of the reference vectors."""

import re
from collections.abc import Callable

import numpy as np
import torch
import torch.nn as nn

from frame.weights import AUTHORS_NAMES
from net.backbone import build_backbone
from net.deeplabv2 import DeepLabV2, MultiScale, deeplab_pytorch_name
from net.irn import IRN
from net.resnet38 import DeepLabV1
from net.sfc import SFCNet
from parity.report import ABSOLUTE, Report
from parity.seeded_weights import contrast_tensor, seeded_tensor
from parity.vectors import Vectors

# Seeded segmentation networks give logits of several hundred: rounding of float32 sums, which depends on the number
# of threads, is relative to the largest of them and exceeds ABSOLUTE.
LOGIT_ROUNDING = 1e-5


def seeded(build: Callable[[], nn.Module], authors_name: Callable[[str], str], tensor: Callable) -> nn.Module:
    """The network that `build` makes, with the weights of the vectors.

    authors_name  our state-dict name -> the authors'
    tensor        (authors' name, shape) -> array, of parity.seeded_weights
    """
    module = build()
    for name, entry in module.state_dict().items():
        entry.copy_(torch.from_numpy(tensor(authors_name(name), tuple(entry.shape))))
    return module


def seeded_sfc(num_classes: int, **settings) -> SFCNet:
    """SFCNet of the released settings, but for `settings`."""
    return seeded(lambda: SFCNet(build_backbone("resnet50"), num_classes, **settings), sfc_authors_name, seeded_tensor)


def contrast_sfc(classifier: np.ndarray) -> SFCNet:
    """SFCNet with the weights of the files that hold a `classifier` (C, 2048)."""
    net = seeded(lambda: SFCNet(build_backbone("resnet50"), len(classifier)), sfc_authors_name, contrast_tensor)
    net.classifier.weight.data.copy_(torch.from_numpy(classifier)[:, :, None, None])
    return net


def sfc_of(vectors: Vectors, num_classes: int) -> SFCNet:
    """The network that a file of SFC was computed with, in evaluation mode."""
    net = contrast_sfc(vectors["classifier"]) if "classifier" in vectors else seeded_sfc(num_classes)
    return net.eval()


def sfc_authors_name(name: str) -> str:
    """The authors' state-dict name of an entry of net.sfc.SFCNet."""
    for theirs, ours in AUTHORS_NAMES.items():
        if name.startswith(ours):
            return theirs + name[len(ours):]
    return name


def seeded_irn() -> IRN:
    return seeded(lambda: IRN(build_backbone("resnet50")), lambda name: re.sub(r"^backbone\.", "resnet50.", name),
                  seeded_tensor)


def port_name(name: str) -> str:
    """deeplab-pytorch's name, with its wrapper, of an entry of net.deeplabv2.DeepLabV2."""
    return f"base.{deeplab_pytorch_name(name)}"


def seeded_deeplabv2(num_classes: int, tensor: Callable = seeded_tensor, **settings) -> MultiScale:
    return MultiScale(seeded(lambda: DeepLabV2(num_classes, stride_on_1x1=True, **settings), port_name, tensor))


def seeded_deeplabv1(num_classes: int) -> DeepLabV1:
    return seeded(lambda: DeepLabV1(num_classes), lambda name: name, seeded_tensor)


def close_logits(name: str, logits: torch.Tensor, vectors: Vectors, report: Report) -> None:
    expected = vectors[name]
    report.close(name, logits, expected, absolute=max(ABSOLUTE, LOGIT_ROUNDING * np.abs(expected).max()))
