"""From a CAM record to maps at full size: fusion of scales, background step, M_final (Eq. 9)."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from data.cam_store import CamRecord, read_record
from net.precision import EPS


def fuse_scales(maps: list[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
    """Sum over scales at full size, divided by the maximum of each channel.

    maps     per scale (K+1, h_s, w_s) float
    Returns  (K+1, H, W) float32.
    """
    resized = [F.interpolate(cam[None].float(), size, mode="bilinear", align_corners=False)[0] for cam in maps]
    total = sum(resized[1:], start=resized[0])
    return total / (total.amax((1, 2), keepdim=True) + EPS)


def background_step(cam: torch.Tensor, offset: float = 0.4) -> torch.Tensor:
    """Release: add to a map (K+1, H, W) a copy whose background is the constant `offset`.

    The foreground is doubled, the background raised by `offset`.
    """
    return torch.cat([cam[:1] + offset, 2 * cam[1:]])


def full_size_cams(record: CamRecord, offset: float | None = 0.4) -> tuple[torch.Tensor, torch.Tensor]:
    """M_W and M_P of a record at full size, each (K+1, H, W).

    offset  of the background step; None leaves the step out (paper)
    """
    cams = [fuse_scales([torch.from_numpy(cam) for cam in maps], record.size)
            for maps in (record.weight_maps, record.prototype_maps)]
    if offset is not None:
        cams = [background_step(cam, offset) for cam in cams]
    return cams[0], cams[1]


def final_cam(weight_cam: torch.Tensor, prototype_cam: torch.Tensor, prototype_weight: float = 1.0) -> torch.Tensor:
    """M_final = M_W + prototype_weight * M_P (Eq. 9: weight 1)."""
    return weight_cam + prototype_weight * prototype_cam


def read_final_cam(path: str | Path, num_classes: int, prototype_weight: float, offset: float | None,
                   size: tuple[int, int] | None = None) -> tuple[torch.Tensor, np.ndarray]:
    """M_final (K+1, H, W) of a record at full size, and the class index of each channel.

    Arguments as read_record, final_cam and full_size_cams.
    """
    record = read_record(path, num_classes, size)
    return final_cam(*full_size_cams(record, offset), prototype_weight), record.keys
