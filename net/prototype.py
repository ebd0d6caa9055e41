"""Class prototypes and the prototype CAM (Eq. 3 and 4)."""

import torch
import torch.nn.functional as F

from net.precision import EPS, in_float32


def argmax_seeds(weight_cam: torch.Tensor, valid: torch.Tensor, background: float = 0.3) -> torch.Tensor:
    """Seeds of the release: a pixel belongs to its arg-max class, the background channel times `background`.

    weight_cam  (N, C+1, h, w), channel 0 the background
    valid       (N, C+1, h, w) bool: where a class may have seeds
    Returns     (N, C+1, h, w) 0/1 in the type of weight_cam.
    """
    scores = torch.cat([weight_cam[:, :1] * background, weight_cam[:, 1:]], dim=1)
    seeds = torch.zeros_like(scores).scatter_(1, scores.argmax(1, keepdim=True), 1)
    return seeds * valid


def threshold_seeds(weight_cam: torch.Tensor, valid: torch.Tensor, threshold: float = 0.3) -> torch.Tensor:
    """Seeds of Eq. 3: pixels of class c whose activation is higher than `threshold`. Shapes as argmax_seeds."""
    return ((weight_cam > threshold) & valid).to(weight_cam.dtype)


@in_float32
def masked_average(feature: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
    """Prototypes P (Eq. 3): the mean feature over the seeds of each class; 0 for a class without seeds.

    feature  (N, D, h, w)
    seeds    (N, C+1, h, w)
    Returns  (N, C+1, D).
    """
    total = torch.einsum("nkhw,ndhw->nkd", seeds, feature)
    return total / (seeds.sum((2, 3)).unsqueeze(2) + EPS)


@in_float32
def cosine_cam(feature: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
    """M_P (Eq. 4): ReLU of the cosine similarity of every pixel and every prototype.

    feature     (N, D, h, w)
    prototypes  (N, C+1, D); a zero prototype gives a zero map
    Returns     (N, C+1, h, w).
    """
    directions = F.normalize(prototypes, dim=2, eps=1e-8)
    length = feature.norm(dim=1, keepdim=True).clamp_min(1e-8)          # of each pixel; divides K maps, not D
    return F.relu(torch.einsum("nkd,ndhw->nkhw", directions, feature) / length)
