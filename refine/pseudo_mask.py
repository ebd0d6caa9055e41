"""Pseudo masks: the random walks of M_final along IRN's edges, added up, and their arg-max.

The release walks twice with one transition matrix: the foreground CAM, against a constant background, and all channels
with the CAM's own background. IRN has the first walk alone.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from refine.random_walk import propagate


class Walk(NamedTuple):
    """Settings of the walks; the defaults are the release's.

    beta          exponent of the affinity along edges
    exp_times     a walk has 2^exp_times steps
    radius        reach of a step in cells of the edge map, exclusive
    power         exponent of the foreground CAM before its walk (IRN 1)
    background    score of the background beside the walked foreground, whose maximum is 1
    all_channels  add the walk of all channels
    all_power     exponent of the CAM before that walk
    """
    beta: float = 10.0
    exp_times: int = 8
    radius: int = 5
    power: float = 1.3
    background: float = 0.25
    all_channels: bool = True
    all_power: float = 1.69


def pseudo_mask(cam: torch.Tensor, edge: np.ndarray, stride: int, walk: Walk = Walk()) -> np.ndarray:
    """Arg-max of the walked CAM.

    cam     (K+1, H, W) M_final at full size, background first
    edge    (1, h, w) edge probability
    stride  pixels a cell of the edge map covers
    Returns (H, W) channel indices.
    """
    walked = walk_along_edges(walk_starts(on_edge_grid(cam, edge), walk), edge, walk)
    size = (cam.shape[1], cam.shape[2])
    at_full_size = [over_maximum(upsampled(part, stride, size)) for part in walked]
    return walk_scores(at_full_size, walk).argmax(0).numpy()


def on_edge_grid(cam: torch.Tensor, edge: np.ndarray) -> np.ndarray:
    """cam (K+1, H, W) -> (K+1, h, w) float32 on the grid of edge (1, h, w)."""
    return F.interpolate(cam[None], edge.shape[1:], mode="bilinear", align_corners=False)[0].numpy()


def walk_starts(cam: np.ndarray, walk: Walk) -> list[np.ndarray]:
    """What the walks start from: the foreground (K, h, w), and with all_channels all of the CAM (K+1, h, w)."""
    foreground = cam[1:] ** walk.power
    return [foreground, cam ** walk.all_power] if walk.all_channels else [foreground]


def walk_along_edges(starts: list[np.ndarray], edge: np.ndarray, walk: Walk) -> list[np.ndarray]:
    """The starts (K_i, h, w) after their walks, float32; one transition matrix walks all of them."""
    walked = propagate(np.concatenate(starts), edge, walk.beta, walk.exp_times, walk.radius)
    return np.split(walked, np.cumsum([len(start) for start in starts])[:-1])


def upsampled(walked: np.ndarray, stride: int, size: tuple[int, int]) -> torch.Tensor:
    """(K, h, w) -> (K, H, W) at `size`: up-sampled by the stride, and cut."""
    maps = F.interpolate(torch.from_numpy(walked)[None], scale_factor=stride, mode="bilinear", align_corners=False)
    return maps[0, :, :size[0], :size[1]]


def over_maximum(maps: torch.Tensor) -> torch.Tensor:
    """Maps (K, H, W) over the largest value of all of them; zeros stay zeros."""
    return maps / maps.max().clamp(min=1e-5)


def walk_scores(maps: list[torch.Tensor], walk: Walk) -> torch.Tensor:
    """Scores of all channels (K+1, H, W): the walked foreground with its constant background, plus the other walk.

    maps  the walks at full size, each over its maximum: (K, H, W), and with all_channels (K+1, H, W)
    """
    foreground, *all_channels = maps
    return sum(all_channels, start=F.pad(foreground, (0, 0, 0, 0, 1, 0), value=walk.background))
