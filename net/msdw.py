"""Distribution coefficient and the Multi-Scaled Distribution-Weighted loss (Eq. 1, 5-8)."""

from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F

from net.precision import EPS
from net.sfc import SFCOutput


def bank_samples(images_per_step: int, classes_per_image: float, steps_per_epoch: int, num_classes: int) -> float:
    """N of Eq. 6: samples the image bank adds to each class in an epoch, N_IBR * C_IBR * N_iter / |C|."""
    return images_per_step * classes_per_image * steps_per_epoch / num_classes


def distribution_coefficient(class_counts: torch.Tensor, added: float, scale: str = "mean") -> torch.Tensor:
    """DC_c (Eq. 6): how much consistency a class needs, from the gaps between class sizes.

    class_counts  (C,) n_c, training images that show class c; at least one class must be non-empty
    added         N, see bank_samples
    scale         "mean": divided by its mean over classes (release), so that foreground and background
                  losses are of one size; "total_demand": times C / sum of all demands (Eq. 6 to the letter)
    Returns       (C,) float32. Equal counts have no demand anywhere: all ones. A class of which nothing is ever seen,
                  n_c + N = 0, has 0 and no share in the mean.
    """
    n = class_counts.double()
    demand = (n[:, None] - n[None, :]).abs().sum(1)
    if demand.sum() == 0:
        return torch.ones_like(n).float()
    samples = n + added
    per_sample = torch.where(samples > 0, demand / samples, 0)
    factor = 1 / per_sample[samples > 0].mean() if scale == "mean" else len(n) / demand.sum()
    return (factor * per_sample).float()


class Losses(NamedTuple):
    total: torch.Tensor        # Eq. 8
    cls: torch.Tensor          # Eq. 1
    dw_p: torch.Tensor         # Eq. 5
    dw_w: torch.Tensor         # Eq. 7


class MSDWLoss(nn.Module):
    """L_MSDW = L_cls + L_DW^P + L_DW^W (Eq. 8) of a batch at scales 1 and 0.5.

    dc_p, dc_w           (C,) distribution coefficient of each term; ones switch it off (Table 5)
    weight_p, weight_w   1.6 and 0.8 in the release, 1 in the paper; 0 leaves the term out (Table 4)
    reduction            "mean" over images, channels and pixels (release) or "l1": the distance of each class, a mean
                         over pixels, summed over classes (Eq. 5, 7), mean over images
    normalise_prototype  divide M_P by its maximum per image and class first (release)
    cls_half             average L_cls over both scales (release) or take scale 1 alone (Eq. 1)
    """

    def __init__(self, dc_p: torch.Tensor, dc_w: torch.Tensor, *, weight_p: float = 1.6, weight_w: float = 0.8,
                 reduction: str = "mean", normalise_prototype: bool = True, cls_half: bool = True):
        super().__init__()
        self.channel_weight_p: torch.Tensor
        self.channel_weight_w: torch.Tensor
        self.register_buffer("channel_weight_p", F.pad(dc_p, (1, 0), value=1)[:, None, None])   # (C+1, 1, 1)
        self.register_buffer("channel_weight_w", dc_w[:, None, None])                           # (C, 1, 1)
        self.weight_p = weight_p
        self.weight_w = weight_w
        self.reduction = reduction
        self.normalise_prototype = normalise_prototype
        self.cls_half = cls_half

    def forward(self, full: SFCOutput, half: SFCOutput, label: torch.Tensor) -> Losses:
        """full, half: outputs for the batch at scale 1 and 0.5; label (N, C) 0/1."""
        label = label.float()
        cls = F.multilabel_soft_margin_loss(full.score, label)
        if self.cls_half:
            cls = (cls + F.multilabel_soft_margin_loss(half.score, label)) / 2
        dw_p = self.weight_p * self.prototype_consistency(full)
        dw_w = self.weight_w * self.scale_consistency(full.weight_cam, half.weight_cam, label)
        return Losses(cls + dw_p + dw_w, cls, dw_p, dw_w)

    def prototype_consistency(self, output: SFCOutput) -> torch.Tensor:
        """L_DW^P (Eq. 5): distance of M_W and M_P, background included."""
        prototype_cam = output.prototype_cam
        if self.normalise_prototype:
            prototype_cam = prototype_cam / (prototype_cam.amax((2, 3), keepdim=True) + EPS)
        return self.reduce((output.weight_cam - prototype_cam).abs() * self.channel_weight_p)

    def scale_consistency(self, full_cam, half_cam, label) -> torch.Tensor:
        """L_DW^W (Eq. 7): distance of the down-sampled M_W of scale 1 and the M_W of scale 0.5, foreground only."""
        down = F.interpolate(full_cam, half_cam.shape[2:], mode="bilinear", align_corners=True)
        present = label[:, :, None, None]
        return self.reduce(((down - half_cam)[:, 1:] * present).abs() * self.channel_weight_w)

    def reduce(self, distance: torch.Tensor) -> torch.Tensor:
        return distance.mean() if self.reduction == "mean" else distance.mean((0, 2, 3)).sum()
