"""The backbones by name."""

from collections.abc import Callable
from functools import partial

from net.efficientnet import EfficientNetLite0
from net.resnet import Backbone, MiniResNet, ResNet

BACKBONES: dict[str, Callable[..., Backbone]] = {
    "resnet18": partial(ResNet, 18),
    "resnet34": partial(ResNet, 34),
    "resnet50": partial(ResNet, 50),
    "resnet101": partial(ResNet, 101),
    "mini": MiniResNet,
    "efficientnet_lite0": EfficientNetLite0,
}


def build_backbone(name: str, train_stem: bool = False) -> Backbone:
    """Backbone `name` (a key of BACKBONES) with random weights.

    train_stem  False (the release): stem and first two stages are never trained. They have no gradient, so they keep
                nothing for a backward pass, and several processes exchange nothing of them.
    """
    backbone = BACKBONES[name]()
    for layer in backbone.early_layers():
        layer.requires_grad_(train_stem)
    return backbone
