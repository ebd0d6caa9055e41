"""DeepLabV2 (Chen et al., TPAMI 2018) on a dilated ResNet, its multi-scale wrapper and its loss.

Layout and settings are those of the PyTorch port deeplab-pytorch, which the SFC release names for its final step.
"""

import re
from collections.abc import Callable

import torch
import torch.nn as nn
import torch.nn.functional as F

from net.batchnorm import batchnorms, freeze_statistics
from net.labels import IGNORE_LABEL, downsample_label

RESNET101_BLOCKS = (3, 4, 23, 3)
EXPANSION = 4                        # of a bottleneck: its output has that many times its width


class DilatedResNet(nn.Module):
    """ResNet of bottlenecks at output stride 8, its last two layers dilated by 2 and 4.

    Parameter names are torchvision's (`conv1`, `bn1`, `layer1`..`layer4`).

    blocks             bottlenecks of each layer
    width              channels of the stem; the output has 32 times as many
    stride_on_1x1      where a bottleneck has its stride: False, on the 3x3 convolution (torchvision's weights);
                       True, on the first 1x1 (MSRA's weights, those of deeplab-pytorch)
    frozen_batchnorm   running statistics stay as loaded, also after .train(), and scale and shift get no gradient;
                       False only for random weights
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, blocks: tuple[int, ...] = RESNET101_BLOCKS, width: int = 64,
                 stride_on_1x1: bool = False, frozen_batchnorm: bool = True):
        super().__init__()
        self.frozen_batchnorm = frozen_batchnorm
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)      # ceil: as in Caffe and the port
        width_in = width
        for i, (count, stride, dilation) in enumerate(zip(blocks, (1, 2, 1, 1), (1, 1, 2, 4))):
            layer = residual_layer(width_in, width * 2 ** i, count, stride, dilation, stride_on_1x1)
            self.add_module(f"layer{i + 1}", layer)
            width_in = width * 2 ** i * EXPANSION
        self.width_out = width_in
        for batchnorm in batchnorms(self):
            batchnorm.requires_grad_(not frozen_batchnorm)

    def train(self, mode: bool = True) -> "DilatedResNet":
        super().train(mode)
        if self.frozen_batchnorm:
            freeze_statistics(self)
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (N, 3, H, W) -> (N, width_out, h, w) at stride 8."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def residual_layer(width_in: int, width: int, count: int, stride: int, dilation: int,
                   stride_on_1x1: bool) -> nn.Sequential:
    """`count` bottlenecks to 4 * width channels; the first has the stride, all 3x3 convolutions the dilation."""
    from torchvision.models.resnet import Bottleneck  # takes as long to import as PyTorch: only who builds one waits

    width_out = width * EXPANSION
    shortcut = nn.Sequential(nn.Conv2d(width_in, width_out, 1, stride, bias=False), nn.BatchNorm2d(width_out))
    first = Bottleneck(width_in, width, stride, shortcut, dilation=dilation)
    if stride_on_1x1:
        first.conv1.stride, first.conv2.stride = first.conv2.stride, first.conv1.stride
    return nn.Sequential(first, *(Bottleneck(width_out, width, dilation=dilation) for _ in range(count - 1)))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: the sum of 3x3 classifiers of several dilations, named `c0`, `c1`, ..."""

    def __init__(self, width_in: int, num_classes: int, rates: tuple[int, ...]):
        super().__init__()
        for i, rate in enumerate(rates):
            conv = nn.Conv2d(width_in, num_classes, 3, padding=rate, dilation=rate)
            nn.init.normal_(conv.weight, std=0.01)                              # deeplab-pytorch
            nn.init.zeros_(conv.get_parameter("bias"))
            self.add_module(f"c{i}", conv)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sum(branch(x) for branch in self.children())


class DeepLabV2(nn.Module):
    """Dilated ResNet and ASPP.

    num_classes   classes with the background
    rates         dilations of the ASPP
    blocks, width, stride_on_1x1, frozen_batchnorm   see DilatedResNet
    """

    def __init__(self, num_classes: int, blocks: tuple[int, ...] = RESNET101_BLOCKS, width: int = 64,
                 stride_on_1x1: bool = False, rates: tuple[int, ...] = (6, 12, 18, 24),
                 frozen_batchnorm: bool = True):
        super().__init__()
        self.backbone = DilatedResNet(blocks, width, stride_on_1x1, frozen_batchnorm)
        self.aspp = ASPP(self.backbone.width_out, num_classes, rates)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """image (N, 3, H, W) normalised for the weights -> logits (N, num_classes, h, w) at stride 8."""
        return self.aspp(self.backbone(image))

    def parameter_groups(self, lr: float = 2.5e-4, weight_decay: float = 5e-4, head_factor: float = 10) -> list[dict]:
        """Optimiser groups; the defaults are deeplab-pytorch's for VOC.

        Backbone convolutions at lr, ASPP weights at head_factor times that, ASPP biases at twice the weights' rate
        without decay; frozen BatchNorm in none.
        """
        branches = list(self.aspp.children())
        return [
            {"params": [p for p in self.backbone.parameters() if p.requires_grad], "lr": lr,
             "weight_decay": weight_decay},
            {"params": [conv.weight for conv in branches], "lr": head_factor * lr, "weight_decay": weight_decay},
            {"params": [conv.bias for conv in branches], "lr": 2 * head_factor * lr, "weight_decay": 0.0},
        ]


class MultiScale(nn.Module):
    """Runs a segmentation network on several scales of the image and takes the element-wise maximum of the logits.

    scales   besides 1, in the order of the training output (deeplab-pytorch's)
    """

    def __init__(self, base: nn.Module, scales: tuple[float, ...] = (0.5, 0.75)):
        super().__init__()
        self.base = base
        self.scales = scales

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """image (N, 3, H, W) -> the maximum (N, num_classes, h, w) on the grid of scale 1.

        In training mode, the logits of scale 1 and of each of `scales`, every one on its own grid, then the maximum.
        """
        pyramid = [self.base(image)] + [self.base(rescale(image, scale)) for scale in self.scales]
        maximum = pyramid[0]
        for logits in pyramid[1:]:
            resized = F.interpolate(logits, maximum.shape[2:], mode="bilinear", align_corners=False)
            maximum = torch.maximum(maximum, resized)
        return [*pyramid, maximum] if self.training else maximum


def rescale(image: torch.Tensor, scale: float) -> torch.Tensor:
    """image (N, 3, H, W) -> (N, 3, floor(scale H), floor(scale W)), sampled in steps of exactly 1 / scale pixels."""
    return F.interpolate(image, scale_factor=scale, mode="bilinear", align_corners=False)


def multi_scale_loss(logits: list[torch.Tensor], label: torch.Tensor, ignore: int = IGNORE_LABEL,
                     balanced: bool = False, count: Callable = torch.sum) -> torch.Tensor:
    """Cross-entropy of each logits map against the label brought to its grid; the training loss is their sum.

    logits    K maps (N, num_classes, h_k, w_k)
    label     (N, H, W) integer class ids, 0 background, `ignore` where unknown
    ignore, balanced, count   see pixel_cross_entropy
    Returns   (K,) losses.
    """
    return torch.stack([pixel_cross_entropy(x, downsample_label(label, x.shape[2:]), ignore, balanced, count)
                        for x in logits])


def pixel_cross_entropy(logits: torch.Tensor, label: torch.Tensor, ignore: int = IGNORE_LABEL,
                        balanced: bool = False, count: Callable = torch.sum) -> torch.Tensor:
    """Mean cross-entropy over the known pixels; 0 where there are none.

    logits    (N, num_classes, h, w)
    label     (N, h, w) integer class ids, 0 background, `ignore` where unknown
    balanced  the mean of the background pixels' and the foreground pixels' mean, which keeps the large background
              from dominating
    count     (N, h, w) bool -> the pixels that a sum over the true ones is divided by
    """
    label = label.long()
    loss = F.cross_entropy(logits, label, ignore_index=ignore, reduction="none")
    known = label != ignore
    if not balanced:
        return mean_where(loss, known, count)
    return (mean_where(loss, known & (label == 0), count) + mean_where(loss, known & (label != 0), count)) / 2


def mean_where(x: torch.Tensor, mask: torch.Tensor, count: Callable = torch.sum) -> torch.Tensor:
    """Mean of x where mask is true; 0 for an empty mask. count: see pixel_cross_entropy."""
    return (x * mask).sum() / count(mask).clamp(min=1)


def class_probabilities(logits: torch.Tensor, size: tuple[int, int], align_corners: bool = False) -> torch.Tensor:
    """logits (N, num_classes, h, w) -> softmax (N, num_classes, H, W) of the bilinearly up-sampled logits.

    align_corners  False in deeplab-pytorch, True in SEAM's second stage
    """
    return F.interpolate(logits, size, mode="bilinear", align_corners=align_corners).softmax(1)


# torchvision's names of a bottleneck's parts -> deeplab-pytorch's.
PORT_PARTS = {"conv1": "reduce.conv", "bn1": "reduce.bn", "conv2": "conv3x3.conv", "bn2": "conv3x3.bn",
              "conv3": "increase.conv", "bn3": "increase.bn",
              "downsample.0": "shortcut.conv", "downsample.1": "shortcut.bn"}


def deeplab_pytorch_name(name: str) -> str:
    """deeplab-pytorch's name of an entry of DeepLabV2's state dict.

    `backbone.layer1.0.conv1.weight` -> `layer2.block1.reduce.conv.weight`; the port counts the stem as layer1.
    In both projects the multi-scale wrapper puts `base.` in front.
    """
    name = re.sub(r"^backbone\.(conv|bn)1\.", r"layer1.conv1.\1.", name)
    if found := re.fullmatch(r"backbone\.layer(\d)\.(\d+)\.(.+)\.(\w+)", name):
        layer, block, part, leaf = found.groups()
        return f"layer{int(layer) + 1}.block{int(block) + 1}.{PORT_PARTS[part]}.{leaf}"
    return name
