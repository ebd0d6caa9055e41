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
    """Backbone `name` (a key of BACKBONES) with random weights; `train_stem` as in Backbone."""
    return BACKBONES[name](train_stem=train_stem)
