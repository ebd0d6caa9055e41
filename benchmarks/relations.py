"""IRN's grid: the random walk of stage 6, and the path maxima that its training takes."""

import functools
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import plain
from benchmarks.measure import Row, Setup, core_seconds, peak_mb, seconds
from net.irn import PathIndex
from refine.random_walk import propagate, transition_matrix


def random_walk(setup: Setup) -> list[Row]:
    """The whole walk on IRN's grid of an image of 375 x 500 pixels. The dense power of that grid would take minutes:
    it is measured on a grid of half the sides and multiplied by the cube of the ratio of the cells."""
    cam, edge = walk_input(94, 125)
    memory = peak_mb(lambda: propagate(cam, edge))
    ours = core_seconds(lambda: propagate(cam, edge), 5)

    small_cam, small_edge = walk_input(47, 62)
    transition = plain.dense_transition(small_edge[0]).float()            # as IRN multiplies
    small = core_seconds(lambda: plain.dense_power(transition), 2)
    dense = small * (edge.size / small_edge.size) ** 3

    two_matrices = 2 * 4 * edge.size ** 2 / 1e6                          # a power and its square, float32
    small_gap = label_gap(propagate(small_cam, small_edge), plain.dense_walk(small_cam, small_edge))
    gap = label_gap(propagate(cam, edge), walk_step_by_step(cam, edge))
    return [Row("seconds; dense from 47x62 by n^3", ours, dense, dense / ours, ">= 400x", dense / ours >= 400),
            Row("other labels than the dense power, 47x62 (%)", small_gap, None, None, "0", small_gap == 0),
            Row("other labels than 256 steps, 94x125 (%)", gap, None, None, "0", gap == 0),
            Row("peak memory (MB)", memory, two_matrices, two_matrices / memory, "< 100",
                memory < 100)]


def walk_input(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth CAMs (4, h, w), and an edge map (1, h, w) with ridges between the regions of four others."""
    rng = torch.Generator().manual_seed(0)
    fields = F.interpolate(torch.rand(1, 8, 6, 8, generator=rng), (height, width), mode="bicubic")[0].clamp(0, 1)
    first, second = fields[4:].topk(2, dim=0).values
    return fields[:4].numpy(), torch.exp((second - first) / 0.05)[None].numpy()


def walk_step_by_step(cam: np.ndarray, edge: np.ndarray, steps: int = 256) -> np.ndarray:
    transition = transition_matrix(edge[0], beta=10, radius=5)
    x = (cam * (1 - edge)).reshape(len(cam), -1).T.astype(np.float64)
    for _ in range(steps):
        x = transition @ x
    return x.T.reshape(cam.shape)


def label_gap(one: np.ndarray, other: np.ndarray) -> float:
    """Per cent of the pixels with different arg-max."""
    return 100 * float((one.argmax(0) != other.argmax(0)).mean())


def path_maxima(setup: Setup) -> list[Row]:
    """Strongest boundary on every path of IRN's radius 10, forward and backward, on crops of 512 pixels."""
    crops = 16 if setup.device.type == "cuda" else 2
    edge = torch.rand(crops, 128, 128, generator=torch.Generator().manual_seed(0)).to(setup.device).requires_grad_()
    path_index = PathIndex()

    def both_ways(path_maximum: Callable) -> float:
        gradient, = torch.autograd.grad(path_maximum(edge).sum(), edge)
        return gradient.sum().item()                                    # waits for the device

    time_of = [seconds(functools.partial(both_ways, function), setup.device, 3)
               for function in (path_index.path_maximum, functools.partial(plain.path_maximum, path_index))]
    return [Row(f"seconds, {crops} crops of 512 px", *time_of, time_of[1] / time_of[0])]
