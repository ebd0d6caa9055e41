"""Label maps on the grids of networks."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate, repeat

import torch

IGNORE_LABEL = 255


def downsample_label(label: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """label (N, H, W) -> (N, h, w), the pixel at each cell's centre, as PIL's nearest resizing takes it."""
    rows, columns = (nearest_index(length, cells, label.device) for length, cells in zip(label.shape[1:], size))
    return label[:, rows[:, None], columns]


@lru_cache(maxsize=256)
def nearest_index(length: int, cells: int, device: torch.device) -> torch.Tensor:
    """(cells,) the pixel of `length` at each cell's centre.

    PIL sums steps of length / cells in double precision; a centre on the border of two pixels falls to the one that
    the sum's rounding says, so this sums in the same order.
    """
    step = length / cells
    centres = accumulate(repeat(step, cells - 1), initial=step / 2)
    return torch.tensor([int(centre) for centre in centres], device=device)
