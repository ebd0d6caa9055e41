"""BatchNorm that keeps its statistics."""

import torch.nn as nn


def batchnorms(module: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]


def freeze_statistics(module: nn.Module) -> None:
    """BatchNorm keeps its running statistics; call after every .train()."""
    for layer in batchnorms(module):
        layer.eval()
