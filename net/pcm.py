"""Pixel Correlation Module: the refinement f(.) of Eq. 2 (Wang et al. 2020, SEAM)."""

import torch
import torch.nn.functional as F

from net.precision import EPS, in_float32


@in_float32
def pixel_correlation(cam: torch.Tensor, feature: torch.Tensor, steps: int = 2) -> torch.Tensor:
    """Average the CAM of each pixel over the pixels with similar features.

    cam      (N, K, h, w)
    feature  (N, D, h, w)
    steps    times the affinity is applied: 2 in the release, 1 in SEAM, which the paper cites
    Returns  (N, K, h, w).
    """
    n, k, h, w = cam.shape
    feature = feature.flatten(2)                                        # (N, D, hw)
    feature = feature * (1 / (feature.norm(dim=1, keepdim=True) + EPS))
    affinity = F.relu(feature.transpose(1, 2) @ feature)                # (N, hw, hw), symmetric
    column_sum = affinity.sum(dim=1, keepdim=True) + EPS
    cam = cam.flatten(2)
    for _ in range(steps):
        cam = (cam @ affinity) / column_sum                            # dividing the product spares an hw x hw copy
    return cam.view(n, k, h, w)
