"""Building the CAM network and IRN from settings, with their initial weights or those of a checkpoint."""

from itertools import islice
from pathlib import Path

import torch
import torch.nn as nn

from data.loader import upload
from data.sample import InputError
from frame import weights
from frame.settings.cams import Network
from net.backbone import build_backbone
from net.batchnorm import freeze_statistics
from net.irn import IRN
from net.resnet import Backbone
from net.sfc import SFCNet, SFCOutput
from runtime.device import Compute
from runtime.work_dir import log


def build_sfc(network: Network, backbone: str, num_classes: int, train_stem: bool = False) -> SFCNet:
    """SFCNet on backbone `backbone` with random weights."""
    return SFCNet(build_backbone(backbone, train_stem), num_classes, **vars(network))


def initialise(model: SFCNet, backbone: str, source: str) -> bool:
    """Load initial weights into the network; True if its BatchNorm is to stay frozen.

    source  "imagenet", "none", or a file of the whole network (ours or the authors') or of the backbone alone
            (torchvision's names)
    """
    if source not in ("imagenet", "none") and weights.holds_network(source, "classifier."):
        weights.load_network(model, source)
        return True
    if initialise_backbone(model.backbone, backbone, source):
        return True
    log.info("--weights none: random weights, so BatchNorm is trained too (add --train_stem: without it the first two "
             "stages stay random)")
    return False


def initialise_backbone(model: Backbone, backbone: str, source: str) -> bool:
    """Load initial weights into a backbone; False if there are none. source: see initialise."""
    if source == "none":
        return False
    if source == "imagenet":
        weights.imagenet_weights(model, backbone)
    else:
        weights.load_backbone(model, source)
    return True


def load_sfc(network: Network, backbone: str, num_classes: int, path: str | Path) -> SFCNet:
    """SFCNet with the weights of a checkpoint: ours, whose facts must fit, or the authors'."""
    check_facts(path, backbone=backbone, num_classes=num_classes)
    model = build_sfc(network, backbone, num_classes)
    weights.load_network(model, path)
    return model


def infer(model: SFCNet, compute: Compute, scaled: list[torch.Tensor], labels: torch.Tensor,
          mask_cam: bool = False) -> list[SFCOutput]:
    """`SFCNet.infer` of uint8 images (N, 3, H_s, W_s) of each scale and their labels (N, C); its outputs on the host.

    All scales come back in one copy: for each the host waits, and queues nothing meanwhile.
    """
    labels = upload(labels, compute.device)
    with compute.precision:
        outputs = [model.infer(model.backbone.prepare(upload(images, compute.device)), labels, mask_cam)
                   for images in scaled]
    parts = [part for output in outputs for part in output]
    pieces = torch.cat([part.flatten() for part in parts]).cpu().split([part.numel() for part in parts])
    on_host = iter([piece.view(part.shape) for piece, part in zip(pieces, parts)])
    return [SFCOutput(*islice(on_host, len(output))) for output in outputs]


def load_irn(backbone: str, path: str | Path) -> IRN:
    """IRN with the weights of a checkpoint, ours or the authors'."""
    check_facts(path, backbone=backbone)
    model = IRN(build_backbone(backbone))
    weights.load_network(model, path)
    return model


def check_facts(path: str | Path, **needed) -> None:
    """Raise InputError if a checkpoint of ours says that it was made for another backbone or data set."""
    content = weights.load_file(path)
    for fact, wanted in needed.items():
        found = content.get(fact, wanted) if isinstance(content, dict) else wanted
        if not torch.is_tensor(found) and found != wanted:
            raise InputError(f"{path}: checkpoint with {fact} {found}, but {wanted} is needed; give the flags it was "
                             "trained with, or another checkpoint")


def set_training_mode(model: nn.Module, frozen_batchnorm: bool) -> None:
    model.train()
    if frozen_batchnorm:
        freeze_statistics(model)
