"""SFCNet: backbone, classifier, PCM and side projections, and the two CAMs they give (Eq. 2-4)."""

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F

from net.inputs import shown_part
from net.pcm import pixel_correlation
from net.precision import EPS, in_float32
from net.prototype import argmax_seeds, cosine_cam, masked_average, threshold_seeds
from net.resnet import Backbone

SIDE_WIDTHS = (128, 128, 256, 256)            # L(F1..F4): 768 channels in all


class SFCOutput(NamedTuple):
    score: torch.Tensor            # (N, C) logits
    coarse_cam: torch.Tensor       # (N, C+1, h, w) before PCM, channel 0 the background
    weight_cam: torch.Tensor       # (N, C+1, h, w) M_W (Eq. 2)
    prototype_cam: torch.Tensor    # (N, C+1, h, w) M_P (Eq. 4)


def valid_mask(box: torch.Tensor, label: torch.Tensor, grid: tuple[int, int], stride: int) -> torch.Tensor:
    """Where a class may be active: inside the part of the crop that shows the image, if the class is present.

    box, grid, stride   see shown_part
    label    (N, C) 0/1
    Returns  (N, C+1, h, w) bool, channel 0 the background.
    """
    return shown_part(box, grid, stride) & with_background(label.bool())[:, :, None, None]


def with_background(label: torch.Tensor) -> torch.Tensor:
    """(N, C) foreground labels -> (N, C+1) with the background, which every image has, in front."""
    return F.pad(label, (1, 0), value=1)


def normalise_cam(logits: torch.Tensor) -> torch.Tensor:
    """Coarse CAM of Eq. 2: ReLU(F W_c) over its maximum per image and class, background 1 - max in front.

    logits (N, C, h, w) -> (N, C+1, h, w) in [0, 1].
    """
    cam = F.relu(logits)
    cam = cam / (cam.amax((2, 3), keepdim=True) + EPS)
    return torch.cat([1 - cam.amax(1, keepdim=True), cam], dim=1)


@in_float32
def centered(feature: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
    """Features (N, D, h, w) less their mean over the shown pixels (N, 1, h or 1, w or 1): an average pixel is 0.

    What all pixels of an image have in common raises every cosine and hides what tells them apart.
    """
    shown = shown.to(feature.dtype).expand(-1, -1, *feature.shape[2:])
    return feature - (feature * shown).sum((2, 3), keepdim=True) / (shown.sum((2, 3), keepdim=True) + EPS)


class SFCNet(nn.Module):
    """The classifier whose CAMs are calibrated.

    backbone         four feature maps (net.resnet.Backbone)
    num_classes      C, foreground classes
    pcm_steps        applications of PCM's affinity: 2 in the release, 1 in SEAM
    seed_mode        "argmax" (release) or "threshold" (Eq. 3)
    seed_background  argmax mode: factor of the background channel
    seed_threshold   threshold mode: activation above which a pixel is a seed
    pcm_center       PCM compares features less their mean over the shown part of the image
    seed_normalise   seeds come from M_W divided by its maximum per image and class
    background_after_pcm  the background channel of M_W is 1 - max over the other channels of M_W (Eq. 2 to the letter);
                     False: PCM refines the background of the coarse CAM as it does the other channels (release)
    """

    side1: nn.Conv2d
    side2: nn.Conv2d
    side3: nn.Conv2d
    side4: nn.Conv2d

    def __init__(self, backbone: Backbone, num_classes: int, *, pcm_steps: int = 2, seed_mode: str = "argmax",
                 seed_background: float = 0.3, seed_threshold: float = 0.3, background_after_pcm: bool = False,
                 pcm_center: bool = False, seed_normalise: bool = False):
        super().__init__()
        self.backbone = backbone
        self.num_classes = num_classes
        self.pcm_steps = pcm_steps
        self.seed_mode = seed_mode
        self.seed_background = seed_background
        self.seed_threshold = seed_threshold
        self.background_after_pcm = background_after_pcm
        self.pcm_center = pcm_center
        self.seed_normalise = seed_normalise
        top = backbone.widths[3]
        self.classifier = nn.Conv2d(top, num_classes, 1, bias=False)
        self.pcm_feature = nn.Conv2d(3 + top, top, 1, bias=False)
        for i, (width_in, width) in enumerate(zip(backbone.widths, SIDE_WIDTHS), start=1):
            self.add_module(f"side{i}", nn.Conv2d(width_in, width, 1, bias=False))

    def forward(self, image: torch.Tensor, box: torch.Tensor, label: torch.Tensor,
                mask_stride: int | None = None) -> SFCOutput:
        """Training pass on crops.

        image        (N, 3, H, W) normalised, 0 outside the box
        box, label   see valid_mask
        mask_stride  pixels of `box` a cell of the CAM covers: the backbone's stride, twice that for the
                     half-scale branch, whose boxes are those of the full crop
        """
        features = self.backbone(image)
        logits = self.classifier(features[3]).float()
        valid = valid_mask(box, label, logits.shape[2:], mask_stride or self.backbone.stride)
        coarse = normalise_cam(logits) * valid
        small = F.interpolate(image, logits.shape[2:], mode="bilinear", align_corners=True)
        weight_cam, prototype_cam = self.calibrated_cams(
            coarse, small, features[3], self.side_features(features), valid)
        return SFCOutput(logits.mean((2, 3)), coarse, weight_cam, prototype_cam)

    def forward_scales(self, image: torch.Tensor, box: torch.Tensor,
                       label: torch.Tensor) -> tuple[SFCOutput, SFCOutput]:
        """Outputs of a batch at scale 1 and of the same batch at scale 0.5; arguments as forward."""
        half = F.interpolate(image, scale_factor=0.5, mode="bilinear", align_corners=True)
        return self(image, box, label), self(half, box, label, mask_stride=2 * self.backbone.stride)

    def infer(self, image: torch.Tensor, label: torch.Tensor, mask_cam: bool = False) -> SFCOutput:
        """Inference pass on whole images at one scale, averaged over the horizontal flip as the release does.

        Logits, side features, images and layer4 features of both flips are summed before PCM and prototypes.

        image     (N, 3, H, W) normalised
        label     (N, C) 0/1: classes that may have seeds
        mask_cam  False: absent classes compete for seeds and lower the background (release);
                  True: they are set to 0 before PCM, as in training
        """
        features = self.backbone(torch.cat([image, image.flip(3)]))
        logits = sum_flips(self.classifier(features[3]).float())
        small = F.interpolate(image, logits.shape[2:], mode="bilinear", align_corners=True)
        small = small + F.interpolate(image.flip(3), logits.shape[2:], mode="bilinear", align_corners=True).flip(3)
        present = with_background(label.bool())[:, :, None, None]
        coarse = normalise_cam(logits)
        if mask_cam:
            coarse = normalise_cam(logits * label[:, :, None, None])
        weight_cam, prototype_cam = self.calibrated_cams(
            coarse, small, sum_flips(features[3]), sum_flips(self.side_features(features)), present)
        return SFCOutput(logits.mean((2, 3)) / 2, coarse, weight_cam, prototype_cam)

    def calibrated_cams(self, coarse_cam, image, top_feature, side_features, valid):
        """M_W by PCM (Eq. 2) and M_P by the prototypes of its seeds (Eq. 3, 4); all on one grid (h, w)."""
        pcm_feature = self.pcm_feature(torch.cat([image, top_feature], dim=1))
        if self.pcm_center:
            pcm_feature = centered(pcm_feature, shown=valid[:, :1])
        weight_cam = pixel_correlation(coarse_cam, pcm_feature, self.pcm_steps)
        if self.background_after_pcm:
            foreground = weight_cam[:, 1:]
            weight_cam = torch.cat([1 - foreground.amax(1, keepdim=True), foreground], dim=1)
        return weight_cam, cosine_cam(side_features, masked_average(side_features, self.seeds(weight_cam, valid)))

    def seeds(self, weight_cam, valid):
        """Seeds of the prototypes as seed_mode says; shapes as argmax_seeds."""
        if self.seed_normalise:
            weight_cam = weight_cam / (weight_cam.amax((2, 3), keepdim=True) + EPS)
        if self.seed_mode == "argmax":
            return argmax_seeds(weight_cam, valid, self.seed_background)
        return threshold_seeds(weight_cam, valid, self.seed_threshold)

    def side_features(self, features: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """L(F1..F4) of Eq. 3: projections that stop gradients to the backbone, each of length 1 per pixel.

        Returns (N, 768, h, w) on the grid of the third map.
        """
        grid = features[2].shape[2:]
        projected = [unit_length_on_grid(side, feature.detach(), grid)
                     for side, feature in zip((self.side1, self.side2, self.side3, self.side4), features)]
        return torch.cat(projected, dim=1)

    def parameter_groups(self, lr: float = 0.1, new_lr: float = 1.0) -> list[dict]:
        """Optimiser groups: the backbone, and the layers without pretraining; the defaults are the release's."""
        new = [p for name, p in self.named_parameters() if not name.startswith("backbone.")]
        return [{"params": list(self.backbone.parameters()), "lr": lr}, {"params": new, "lr": new_lr}]


def unit_length_on_grid(side: nn.Module, feature: torch.Tensor, grid: torch.Size) -> torch.Tensor:
    """Project a map with a 1x1 convolution, scale every pixel to length 1, resize bilinearly to the grid.

    Of a map more than twice as fine as the grid, bilinear resizing reads only two rows and columns a cell; the
    others are left out before the projection. feature (N, D, H, W) -> (N, D', h, w).
    """
    sparse = all(length > 2 * cells for length, cells in zip(feature.shape[2:], grid))
    if sparse:
        (rows, row_share), (columns, column_share) = (
            bilinear_taps(length, cells, feature.device) for length, cells in zip(feature.shape[2:], grid))
        feature = feature[:, :, rows[:, None], columns]                                      # (N, D, 2h, 2w)
    out = side(feature).float()
    out = out * (1 / (out.norm(dim=1, keepdim=True) + EPS))
    if sparse:
        out = torch.lerp(out[..., 0::2], out[..., 1::2], column_share)
        return torch.lerp(out[:, :, 0::2], out[:, :, 1::2], row_share[:, None])
    if out.shape[2:] == grid:
        return out
    return F.interpolate(out, grid, mode="bilinear", align_corners=False)


@lru_cache(maxsize=256)
def bilinear_taps(length: int, cells: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Where bilinear resizing (corners not aligned) of `length` pixels to `cells` reads.

    Returns the two pixels of each cell in turn (2 * cells,), and the share of the second (cells,).
    """
    position = ((torch.arange(cells, device=device) + 0.5) * (length / cells) - 0.5).clamp(min=0)
    first = position.floor().long()
    second = (first + 1).clamp(max=length - 1)
    return torch.stack([first, second], dim=1).flatten(), position - first


def sum_flips(x: torch.Tensor) -> torch.Tensor:
    """(2N, ...) maps of images and of their mirror images -> (N, ...) sums in the images' frame."""
    straight, mirrored = x.chunk(2)
    return straight + mirrored.flip(3)
