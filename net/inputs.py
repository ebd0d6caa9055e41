"""From uint8 images on the device to what a network's weights expect."""

import torch
import torch.nn as nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Mean of the images that MSRA's ResNet-101 was trained on, on the scale 0..255; Caffe reads images as BGR.
CAFFE_BGR_MEAN = (104.008, 116.669, 122.675)


class ImageInput(nn.Module):
    """RGB images on the scale 0..255 -> (x / 255 - mean) / std per channel, or BGR - mean for weights from Caffe.

    mean, std  of RGB in [0, 1]; without std, `mean` is that of BGR on the scale 0..255
    """
    mean: torch.Tensor
    std: torch.Tensor | None

    def __init__(self, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] | None = IMAGENET_STD):
        super().__init__()
        # On the device of the network and no part of its state dict.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", None if std is None else torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: torch.Tensor, box: torch.Tensor | None = None) -> torch.Tensor:
        """image (N, 3, H, W) of any type -> float32; with `box` (see shown_part), 0 outside it."""
        if self.std is None:
            pixels = image.flip(1).float() - self.mean
        else:
            pixels = (image.float() / 255 - self.mean) / self.std
        return pixels if box is None else pixels * shown_part(box, (pixels.shape[2], pixels.shape[3]))


def shown_part(box: torch.Tensor, grid: tuple[int, int], stride: int = 1) -> torch.Tensor:
    """The part of each crop that shows the image.

    box      (N, 4) int: y0, y1, x0, x1 of the shown part in pixels
    grid     (h, w) of the result; its cell i is sampled at pixel i * stride (nearest)
    Returns  (N, 1, h, w) bool.
    """
    y = torch.arange(grid[0], device=box.device) * stride
    x = torch.arange(grid[1], device=box.device) * stride
    rows = (y >= box[:, 0:1]) & (y < box[:, 1:2])                       # (N, h)
    columns = (x >= box[:, 2:3]) & (x < box[:, 3:4])                    # (N, w)
    return rows[:, None, :, None] & columns[:, None, None, :]
