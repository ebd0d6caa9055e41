"""DeepLabV1 with a large field of view on the wide ResNet-38 (Wu et al. 2016), as in SEAM's second stage.

Entries have the names of that code: `backbone.conv1a`, `backbone.b2`..`backbone.b7`, `backbone.bn7`, `conv_fov`, ...
"""

import torch
import torch.nn as nn
import torch.nn.functional as F

from net.batchnorm import batchnorms, freeze_statistics


class WideBlock(nn.Module):
    """Pre-activation residual block of two 3x3 convolutions.

    first_dilation   dilation of the first convolution; the second has `dilation`
    """

    def __init__(self, width_in: int, width_mid: int, width_out: int, stride: int = 1, dilation: int = 1,
                 first_dilation: int | None = None):
        super().__init__()
        first = first_dilation or dilation
        self.bn_branch2a = nn.BatchNorm2d(width_in)
        self.conv_branch2a = conv(width_in, width_mid, 3, stride, first)
        self.bn_branch2b1 = nn.BatchNorm2d(width_mid)
        self.conv_branch2b1 = conv(width_mid, width_out, 3, 1, dilation)
        self.conv_branch1 = None
        if width_in != width_out or stride > 1:
            self.conv_branch1 = conv(width_in, width_out, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated = F.relu(self.bn_branch2a(x))
        shortcut = x if self.conv_branch1 is None else self.conv_branch1(activated)
        branch = self.conv_branch2a(activated)
        branch = self.conv_branch2b1(F.relu(self.bn_branch2b1(branch)))
        return shortcut + branch


class WideBottleneck(nn.Module):
    """Pre-activation residual block 1x1, 3x3, 1x1 with a projected shortcut, dropping whole channels."""

    def __init__(self, width_in: int, width_out: int, dilation: int, dropout: float):
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(width_in)
        self.conv_branch2a = conv(width_in, width_out // 4, 1)
        self.bn_branch2b1 = nn.BatchNorm2d(width_out // 4)
        self.conv_branch2b1 = conv(width_out // 4, width_out // 2, 3, 1, dilation)
        self.bn_branch2b2 = nn.BatchNorm2d(width_out // 2)
        self.conv_branch2b2 = conv(width_out // 2, width_out, 1)
        self.conv_branch1 = conv(width_in, width_out, 1)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated = F.relu(self.bn_branch2a(x))
        branch = self.conv_branch2a(activated)
        branch = self.conv_branch2b1(self.dropout(F.relu(self.bn_branch2b1(branch))))
        branch = self.conv_branch2b2(self.dropout(F.relu(self.bn_branch2b2(branch))))
        return self.conv_branch1(activated) + branch


class WideResNet38(nn.Module):
    """Wide ResNet-38 at output stride 8.

    The first convolution is not trained where BatchNorm is frozen.

    width              channels of the first convolution; the output has 64 times as many
    frozen_batchnorm   see net.deeplabv2.DilatedResNet
    """

    def __init__(self, width: int = 64, frozen_batchnorm: bool = True):
        super().__init__()
        self.frozen_batchnorm = frozen_batchnorm
        w = width
        self.conv1a = conv(3, w, 3)
        self._add_stage("b2", 3, w, 2 * w, 2 * w, stride=2)
        self._add_stage("b3", 3, 2 * w, 4 * w, 4 * w, stride=2)
        self._add_stage("b4", 6, 4 * w, 8 * w, 8 * w, stride=2)
        self._add_stage("b5", 3, 8 * w, 8 * w, 16 * w, dilation=2)
        self.b6 = WideBottleneck(16 * w, 32 * w, dilation=4, dropout=0.3)
        self.b7 = WideBottleneck(32 * w, 64 * w, dilation=4, dropout=0.5)
        self.bn7 = nn.BatchNorm2d(64 * w)
        self.width_out = 64 * w
        self.conv1a.requires_grad_(not frozen_batchnorm)
        for layer in batchnorms(self):
            layer.requires_grad_(not frozen_batchnorm)

    def _add_stage(self, name: str, count: int, width_in: int, width_mid: int, width_out: int, stride: int = 1,
                   dilation: int = 1) -> None:
        """Blocks `name`, `name`_1, ...; only the first has the stride, and its first convolution no dilation."""
        self.add_module(name, WideBlock(width_in, width_mid, width_out, stride, dilation, first_dilation=1))
        for i in range(1, count):
            self.add_module(f"{name}_{i}", WideBlock(width_out, width_mid, width_out, dilation=dilation))

    def train(self, mode: bool = True) -> "WideResNet38":
        super().train(mode)
        if self.frozen_batchnorm:
            freeze_statistics(self)
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (N, 3, H, W) -> (N, width_out, h, w) at stride 8."""
        *blocks, bn7 = self.children()         # registered in the order they run
        for block in blocks:
            x = block(x)
        return F.relu(bn7(x))


class DeepLabV1(nn.Module):
    """Wide ResNet-38 and a head with a large field of view.

    num_classes        classes with the background
    width              see WideResNet38; the head has 8 times as many channels
    fov                dilation of the head's 3x3 convolution (SEAM's second stage)
    frozen_batchnorm   that of the backbone; the head's always takes the batch's statistics
    """

    def __init__(self, num_classes: int, width: int = 64, fov: int = 12, dropout: float = 0.5,
                 frozen_batchnorm: bool = True):
        super().__init__()
        self.backbone = WideResNet38(width, frozen_batchnorm)
        self.conv_fov = conv(self.backbone.width_out, 8 * width, 3, 1, fov)
        self.bn_fov = nn.BatchNorm2d(8 * width)
        self.conv_fov2 = conv(8 * width, 8 * width, 1)
        self.bn_fov2 = nn.BatchNorm2d(8 * width)
        self.dropout = nn.Dropout(dropout)
        self.cls_conv = nn.Conv2d(8 * width, num_classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """image (N, 3, H, W) normalised for the weights -> logits (N, num_classes, H, W)."""
        x = F.relu(self.bn_fov(self.conv_fov(self.backbone(image))))
        x = F.relu(self.bn_fov2(self.conv_fov2(x)))
        logits = self.cls_conv(self.dropout(x))
        return F.interpolate(logits, image.shape[2:], mode="bilinear", align_corners=True)

    def parameter_groups(self, lr: float = 1e-3, weight_decay: float = 5e-4, head_factor: float = 10) -> list[dict]:
        """Optimiser groups; the defaults are those of SEAM's second stage.

        Backbone convolutions at lr, the head's at head_factor times that, its bias at twice the head's rate without
        decay. As there, scale and shift of the head's BatchNorm stay 1 and 0. The backbone has no biases of
        convolutions, which would learn at 2 lr.
        """
        head = [self.conv_fov.weight, self.conv_fov2.weight, self.cls_conv.weight]
        return [
            {"params": [p for p in self.backbone.parameters() if p.requires_grad], "lr": lr,
             "weight_decay": weight_decay},
            {"params": head, "lr": head_factor * lr, "weight_decay": weight_decay},
            {"params": [self.cls_conv.bias], "lr": 2 * head_factor * lr, "weight_decay": 0.0},
        ]


def conv(width_in: int, width_out: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Convolution without bias that keeps the size at stride 1."""
    return nn.Conv2d(width_in, width_out, kernel, stride, dilation * (kernel // 2), dilation, bias=False)
