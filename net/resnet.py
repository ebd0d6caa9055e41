"""Residual backbones: torchvision's ResNets at output stride 16, and a small one for the bundled sample.

A backbone maps an image batch to four feature maps and says what a user of them must know:

    widths   channels of the four maps
    stem_width   channels of the stem's map, which is on the grid of the first of the four
    stride   pixels of the input a cell of the last map covers
    mean, std   of the RGB input in [0, 1] that its weights were trained with; `prepare` applies them
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn as nn

from net.inputs import IMAGENET_MEAN, IMAGENET_STD, ImageInput


class Backbone(nn.Module):
    """A stem and four stages in sequence; subclasses define `stem`, `stage1` to `stage4` and the attributes above.

    The four maps have strides `stride` // 4, `stride` // 2, `stride` and `stride`.
    """

    widths: tuple[int, ...]
    stem_width: int
    stride: int
    stem: Callable[[torch.Tensor], torch.Tensor]
    stage1: Callable[[torch.Tensor], torch.Tensor]
    stage2: Callable[[torch.Tensor], torch.Tensor]
    stage3: Callable[[torch.Tensor], torch.Tensor]
    stage4: Callable[[torch.Tensor], torch.Tensor]
    early_layers: Callable[[], Sequence[nn.Module]]        # those of the stem and of the first two stages
    mean = IMAGENET_MEAN
    std = IMAGENET_STD

    def __init__(self):
        super().__init__()
        self.prepare = ImageInput(self.mean, self.std)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """x (N, 3, H, W) normalised with `mean` and `std` -> four maps (N, widths[i], h_i, w_i)."""
        x1 = self.stage1(self.stem(x))
        x2 = self.stage2(x1)
        x3 = self.stage3(x2)
        x4 = self.stage4(x3)
        return x1, x2, x3, x4


class ResNet(Backbone):
    """torchvision ResNet whose layer4 keeps the grid of layer3: stride 16, no dilation.

    Parameter names are torchvision's (`conv1`, `bn1`, `layer1`..`layer4`).
    """

    stem_width = 64
    stride = 16

    def __init__(self, depth: int = 50):
        super().__init__()
        import torchvision  # takes as long to import as PyTorch: only who builds one waits

        net = getattr(torchvision.models, f"resnet{depth}")(weights=None)
        first = net.layer4[0]
        for module in first.modules():
            if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
                module.stride = (1, 1)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.relu, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4
        expansion = type(first).expansion
        self.widths = tuple(width * expansion for width in (64, 128, 256, 512))

    def early_layers(self) -> Sequence[nn.Module]:
        return self.conv1, self.bn1, self.layer1, self.layer2

    def stem(self, x):
        return self.maxpool(self.relu(self.bn1(self.conv1(x))))

    def stage1(self, x):
        return self.layer1(x)

    def stage2(self, x):
        return self.layer2(x)

    def stage3(self, x):
        return self.layer3(x)

    def stage4(self, x):
        return self.layer4(x)


class MiniResNet(ResNet):
    """One basic block a stage at output stride 8, 0.3 million parameters: the backbone of the bundled sample."""

    stride = 8
    stem_width = 16
    widths = (16, 32, 64, 128)

    def __init__(self):
        from torchvision.models.resnet import BasicBlock

        Backbone.__init__(self)
        self.conv1 = nn.Conv2d(3, self.stem_width, 5, stride=2, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(self.stem_width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity()
        inputs = (self.stem_width, *self.widths[:3])
        for i, (width_in, width, stride) in enumerate(zip(inputs, self.widths, (1, 2, 2, 1)), start=1):
            shortcut = None
            if stride > 1 or width_in != width:
                shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))
            self.add_module(f"layer{i}", nn.Sequential(BasicBlock(width_in, width, stride, shortcut)))
