"""Inter-pixel relation network (Ahn et al., CVPR 2019): class boundaries and displacements from confident labels.

The edge branch gives the probability that a class boundary passes through a cell; two pixels belong together when
no boundary lies on the straight path between them. The displacement branch points to the centroid of a pixel's
object. All maps lie on the grid of the backbone's first stage (stride 4 for ResNet-50).
"""

import functools
from collections.abc import Callable, Iterator
from typing import cast

import torch
import torch.nn as nn
import torch.nn.functional as F

from net.labels import IGNORE_LABEL, downsample_label
from net.precision import EPS
from net.resnet import Backbone


class MeanShift(nn.Module):
    """Subtracts the mean displacement of the training images, at inference only.

    The displacement loss sees differences of two pixels, which leaves a constant offset undetermined.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.running_mean: torch.Tensor
        self.register_buffer("running_mean", torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.training else x - self.running_mean[:, None, None]


class IRN(nn.Module):
    """Edge and displacement branches on a frozen backbone.

    The entries `fc_edge1..6` and `fc_dp1..7` have IRN's names and shapes. The backbone stays in evaluation mode and
    gets no gradient.
    """

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        widths = (backbone.stem_width, *backbone.widths)

        # Factors bring the five maps, of strides 1, 1, 2, 4 and 4 grid cells, to the grid.
        self.fc_edge1 = conv_block(widths[0], 32, groups=4)
        self.fc_edge2 = conv_block(widths[1], 32, groups=4)
        self.fc_edge3 = conv_block(widths[2], 32, groups=4, upsample=2)
        self.fc_edge4 = conv_block(widths[3], 32, groups=4, upsample=4)
        self.fc_edge5 = conv_block(widths[4], 32, groups=4, upsample=4)
        self.fc_edge6 = nn.Conv2d(5 * 32, 1, 1)

        # Top-down: maps 3 to 5 meet at stride 2 (fc_dp6), then all meet at the grid (fc_dp7).
        self.fc_dp1 = conv_block(widths[0], 64, groups=8)
        self.fc_dp2 = conv_block(widths[1], 128, groups=16)
        self.fc_dp3 = conv_block(widths[2], 256, groups=16)
        self.fc_dp4 = conv_block(widths[3], 256, groups=16, upsample=2)
        self.fc_dp5 = conv_block(widths[4], 256, groups=16, upsample=2)
        self.fc_dp6 = conv_block(3 * 256, 256, groups=16, upsample=2)
        self.fc_dp7 = conv_block(64 + 128 + 256, 256, groups=16)
        self.fc_dp7.extend([nn.Conv2d(256, 2, 1, bias=False), MeanShift(2)])

    @property
    def stride(self) -> int:
        """Pixels of the input that a cell of the outputs covers."""
        return self.backbone.stride // 4

    @property
    def mean_shift(self) -> MeanShift:
        """The layer whose `running_mean` (2,) is set to the mean displacement after training."""
        return cast(MeanShift, self.fc_dp7[-1])

    def train(self, mode: bool = True) -> "IRN":
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """image (N, 3, H, W) normalised -> edge logit (N, 1, h, w), displacement (N, 2, h, w) in cells (y, x)."""
        features = self._features(image)
        return self._edge(*features), self._displacement(*features)

    def displacement(self, image: torch.Tensor) -> torch.Tensor:
        """The displacement of `forward` without the edges."""
        return self._displacement(*self._features(image))

    @torch.no_grad()
    def predict_edge(self, image: torch.Tensor, pad_to: int | None = 512) -> torch.Tensor:
        """Edge probability, averaged over the flips of an image: all that a random walk needs.

        image: (3, H, W) normalised.
        pad_to: zero-pad right and bottom to at least this many pixels a side (IRN: 512, its training crop), because
            GroupNorm takes its statistics over the padded map. None pads to whole cells of the backbone only.
            Larger images are never cropped.
        Returns (1, h, w) in [0, 1], h = ceil(H / stride). Call in evaluation mode.
        """
        edge = self._crop(self._edge(*self._features(self._padded_flips(image, pad_to))), image)
        return torch.sigmoid((edge[0] + edge[1].flip(-1)) / 2)

    @torch.no_grad()
    def predict_displacement(self, image: torch.Tensor, pad_to: int | None = 512) -> torch.Tensor:
        """Displacement (2, h, w) in cells (y, x); arguments as predict_edge."""
        padded = self._padded_flips(image, pad_to)[:1]
        return self._crop(self.displacement(padded), image)[0]

    def _padded_flips(self, image: torch.Tensor, pad_to: int | None) -> torch.Tensor:
        pad_y, pad_x = (self._padding(length, pad_to) for length in image.shape[1:])
        return F.pad(torch.stack([image, image.flip(-1)]), (0, pad_x, 0, pad_y))

    def _crop(self, maps: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        h, w = (-(-length // self.stride) for length in image.shape[1:])
        return maps[..., :h, :w]

    def parameter_groups(self, edge_lr: float = 0.1, displacement_lr: float = 1.0) -> list[dict]:
        """Optimiser groups of the two branches; the defaults are IRN's learning rates."""
        return [
            {"params": list(self.edge_parameters()), "lr": edge_lr},
            {"params": list(self.displacement_parameters()), "lr": displacement_lr},
        ]

    def edge_parameters(self) -> Iterator[nn.Parameter]:
        return self._branch_parameters("fc_edge")

    def displacement_parameters(self) -> Iterator[nn.Parameter]:
        return self._branch_parameters("fc_dp")

    def _branch_parameters(self, prefix: str) -> Iterator[nn.Parameter]:
        return (parameter for name, parameter in self.named_parameters() if name.startswith(prefix))

    def _padding(self, length: int, pad_to: int | None) -> int:
        target = max(length, pad_to or 0)
        return target + -target % self.backbone.stride - length

    @torch.no_grad()
    def _features(self, image: torch.Tensor) -> list[torch.Tensor]:
        """The stem's map and the four stages' maps."""
        net = self.backbone
        features = [net.stem(image)]
        for stage in (net.stage1, net.stage2, net.stage3, net.stage4):
            features.append(stage(features[-1]))
        return features

    def _edge(self, x1, x2, x3, x4, x5):
        maps = [self.fc_edge1(x1), self.fc_edge2(x2), self.fc_edge3(x3), self.fc_edge4(x4), self.fc_edge5(x5)]
        return self.fc_edge6(concatenate(maps, x2.shape[2:]))

    def _displacement(self, x1, x2, x3, x4, x5):
        coarse = concatenate([self.fc_dp3(x3), self.fc_dp4(x4), self.fc_dp5(x5)], x3.shape[2:])
        return self.fc_dp7(concatenate([self.fc_dp1(x1), self.fc_dp2(x2), self.fc_dp6(coarse)], x2.shape[2:]))


def conv_block(width_in: int, width: int, groups: int, upsample: int = 1) -> nn.Sequential:
    """1x1 convolution, GroupNorm, bilinear up-sampling by an integer factor, ReLU."""
    layers = [nn.Conv2d(width_in, width, 1, bias=False), nn.GroupNorm(groups, width)]
    if upsample > 1:
        layers.append(nn.Upsample(scale_factor=upsample, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


def concatenate(maps: list[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
    """Channels of maps cropped to `size`: an up-sampled map can be up to a coarse cell larger than the grid."""
    return torch.cat([x[..., :size[0], :size[1]] for x in maps], dim=1)


class PathIndex:
    """All pairs of pixels closer than `radius`, and the straight paths between them.

    A pair is a source pixel and the destination at an offset (dy, dx) from it, dy >= 0, so that every unordered pair
    occurs once. Its path holds the pixels in the pair's bounding box less than one pixel off the connecting line.

    destinations   D offsets (dy, dx), ordered by path length as in IRN
    paths          D lists of offsets from the source, from the destination back to the source
    pieces         what each path is put together from, see assemble_paths

    Maps (..., h, w) lose `margin` = radius - 1 rows at the bottom and columns at both sides, where sources have
    destinations outside: source grid (h - margin, w - 2 margin).
    """

    def __init__(self, radius: int = 10):
        self.margin = radius - 1
        reach = range(-self.margin, radius)
        offsets = [(dy, dx) for dy in range(radius) for dx in reach
                   if (dy > 0 or dx > 0) and dy ** 2 + dx ** 2 < radius ** 2]
        self.paths = sorted((straight_path(*offset) for offset in offsets), key=len)   # stable within a length
        self.destinations = [path[0] for path in self.paths]
        self.pieces = assemble_paths(self.paths)

    def source(self, x: torch.Tensor) -> torch.Tensor:
        """The view (..., h', w') of the source pixels of x (..., h, w)."""
        return self._shifted(x, (0, 0))

    def destination(self, x: torch.Tensor) -> torch.Tensor:
        """x at every source's destinations: (..., h, w) -> (..., D, h', w')."""
        return torch.stack([self._shifted(x, offset) for offset in self.destinations], dim=-3)

    def path_maximum(self, edge: torch.Tensor) -> torch.Tensor:
        """Largest value of edge (N, h, w) float32, >= 0, on every path: (N, D, h', w').

        The maxima are located without a graph and then gathered at once: the graph holds one index a pair instead of
        the values of whole paths. A cell's key is its value (the bits of floats >= 0 are ordered as the floats are)
        and, in the lower half, its pixel; of equal maxima the last pixel counts. Maps of keys are flat, so that every
        shift is a slice; what runs over the end of a row belongs to no source.
        """
        height, width = edge.shape[1:]
        grid = self.source(edge).shape
        with torch.no_grad():
            keys = edge.float().flatten(1).view(torch.int32).long() << 32
            maxima = [keys | torch.arange(height * width, device=edge.device)]
            for path, pieces in zip(self.paths, self.pieces):
                extent = flat(max(path), width) - flat(min(path), width)
                views = [maxima[i][:, flat(offset, width):][:, :height * width - extent] for i, offset in pieces]
                maxima.append(functools.reduce(torch.maximum, views))
            starts = [self.margin + flat(min(path), width) for path in self.paths]
            index = torch.stack([best[:, start:].as_strided(grid, (best.stride(0), width, 1))
                                 for best, start in zip(maxima[1:], starts)], dim=1)
            index &= 2 ** 32 - 1
        return edge.flatten(1).gather(1, index.flatten(1)).view(index.shape)

    def _shifted(self, x: torch.Tensor, offset: tuple[int, int]) -> torch.Tensor:
        (dy, dx), margin = offset, self.margin
        height, width = x.shape[-2] - margin, x.shape[-1] - 2 * margin
        if height < 1 or width < 1:
            raise ValueError(f"a map of {tuple(x.shape[-2:])} cells has no pixel pairs of radius {margin + 1}")
        return x[..., dy:dy + height, margin + dx:margin + dx + width]


def straight_path(dy: int, dx: int) -> list[tuple[int, int]]:
    """Offsets less than one pixel off the line from (dy, dx) to (0, 0), in this order."""
    length = dy ** 2 + dx ** 2
    box = [(y, x) for y in range(min(0, dy), max(0, dy) + 1) for x in range(min(0, dx), max(0, dx) + 1)]
    near = [(y, x) for y, x in box if (dy * x - dx * y) ** 2 < length]
    return sorted(near, key=lambda offset: -abs(offset[0]) - abs(offset[1]))


def assemble_paths(paths: list[list[tuple[int, int]]]) -> list[list[tuple[int, tuple[int, int]]]]:
    """How to put each path together from few shorter ones: at radius 10, 325 pieces instead of 2134 cells.

    paths    ordered by length
    Returns  for each path its pieces (i, offset), which may overlap: path i - 1, or a single cell for i = 0, with its
             first cell (the smallest (y, x)) at this offset from the path's first cell. The piece that covers most of
             what is missing comes next.
    """
    # Sets of cells are bits of a number, on a map so wide that none meet.
    stride = 4 * (1 + max(max(map(abs, path[0])) for path in paths))
    sets, assembled = [1], []
    for path in paths:
        y0, x0 = min(path)
        offsets = [(y - y0, x - x0) for y, x in path]
        whole = missing = sum(1 << flat(offset, stride) for offset in offsets)
        fitting = [(i, offset, piece) for i, cells in enumerate(sets) for offset in offsets
                   if not (piece := cells << flat(offset, stride)) & ~whole]
        pieces = []
        while missing:
            i, offset, piece = max(fitting, key=lambda one: (one[2] & missing).bit_count())
            pieces.append((i, offset))
            missing &= ~piece
        sets.append(whole)
        assembled.append(pieces)
    return assembled


def flat(offset: tuple[int, int], width: int) -> int:
    """Distance of two cells in a flattened map of this width."""
    return offset[0] * width + offset[1]


def affinity_labels(label: torch.Tensor, path_index: PathIndex) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which pixel pairs belong together, and which do not.

    label: (N, h, w) class of each cell, 0 background, 255 unknown.
    Returns three masks (N, D, h', w'): both background, both the same foreground class, different classes.
    """
    source, destination = path_index.source(label).unsqueeze(1), path_index.destination(label)
    known = (source != IGNORE_LABEL) & (destination != IGNORE_LABEL)
    same = known & (source == destination)
    return same & (source == 0), same & (source != 0), known & (source != destination)


def irn_loss(edge_logit: torch.Tensor, displacement: torch.Tensor, label: torch.Tensor,
             path_index: PathIndex, count: Callable = torch.sum) -> dict[str, torch.Tensor]:
    """IRN's affinity and displacement losses (Ahn et al. 2019, section 4).

    edge_logit (N, 1, h, w), displacement (N, 2, h, w); label (N, H, W) class ids at image or grid size, 255 unknown.
    count: mask (N, ...) -> the pairs that a sum over the true ones is divided by.
    Returns scalars `loss_pos`, `loss_neg` (affinity), `loss_dp_fg`, `loss_dp_bg` (displacement), `loss_total`.
    """
    label = downsample_label(label, edge_logit.shape[2:])
    background, foreground, different = affinity_labels(label, path_index)

    # Affinity is 1 - the strongest boundary on the path, so the boundary itself is the probability to differ.
    boundary = path_index.path_maximum(torch.sigmoid(edge_logit[:, 0]))
    affinity_loss = -torch.log(torch.where(different, boundary, 1 - boundary) + EPS)

    # Pixels of an object point to one centroid: their displacements differ by their offset. In the background by 0.
    # No pair is both, so one L1 map (summed over y and x) serves the two.
    offset = as_map(tuple(path_index.destinations), displacement.dtype, displacement.device)
    difference = path_index.source(displacement).unsqueeze(2) - path_index.destination(displacement)
    difference -= offset * foreground.unsqueeze(1)
    l1 = difference.abs().sum(1)

    losses = {
        "loss_pos": (masked_mean(affinity_loss, background, count) + masked_mean(affinity_loss, foreground, count)) / 2,
        "loss_neg": masked_mean(affinity_loss, different, count),
        "loss_dp_fg": masked_mean(l1, foreground, count) / 2,
        "loss_dp_bg": masked_mean(l1, background, count) / 2,
    }
    losses["loss_total"] = (losses["loss_pos"] + losses["loss_neg"] + losses["loss_dp_fg"] + losses["loss_dp_bg"]) / 2
    return losses


@functools.lru_cache(maxsize=8)
def as_map(offsets: tuple[tuple[int, int], ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """D offsets (dy, dx) as (2, D, 1, 1). Kept, because the host waits for the copy to a GPU."""
    return torch.tensor(offsets, dtype=dtype, device=device).T[:, :, None, None]


def masked_mean(x: torch.Tensor, mask: torch.Tensor, count: Callable = torch.sum) -> torch.Tensor:
    """Mean of x where mask is true; 0 for an empty mask. count: see irn_loss."""
    return (x * mask).sum() / (count(mask) + EPS)
