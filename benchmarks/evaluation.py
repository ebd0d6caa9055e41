"""Scoring of pseudo masks, stage 7."""

import functools
import tracemalloc
from collections.abc import Callable

import numpy as np

from benchmarks import plain
from benchmarks.measure import Row, Setup, core_seconds
from data.sample import image_size, read_mask, write_mask
from refine.metrics import ConfusionMatrix


def evaluation(setup: Setup, images: int = 48) -> list[Row]:
    """mIoU of pseudo masks (the ground truth, moved by 8 pixels) from files, against all masks kept in memory."""
    names = (setup.ids * images)[:images]
    for name in set(names):
        mask = setup.data_set.read_mask(name)
        write_mask(setup.folder / f"{name}.png", np.roll(np.where(mask == 255, 0, mask), 8, axis=1))
    ours, theirs = (functools.partial(score, setup) for score in (our_miou, plain_miou))
    rate = [images / core_seconds(functools.partial(score, names)) for score in (ours, theirs)]
    growth = [traced_peak(functools.partial(score, names * 4)) / traced_peak(functools.partial(score, names))
              for score in (ours, theirs)]
    return [Row("images/s on one core", *rate, rate[0] / rate[1], ">= 200", rate[0] >= 200),
            Row("peak memory at 4x the images, times", *growth, growth[1] / growth[0], "<= 1.05", growth[0] <= 1.05)]


def mask_pairs(setup: Setup, names: list[str]):
    """Pseudo mask and ground truth of each image, read and checked as stage 7 does."""
    for name in names:
        size = image_size(setup.data_set.image_path(name))
        prediction = read_mask(setup.folder / f"{name}.png", setup.data_set.num_classes, size)
        yield prediction, setup.data_set.read_mask(name, size)


def our_miou(setup: Setup, names: list[str]) -> float:
    confusion = ConfusionMatrix(setup.data_set.num_classes + 1)
    for prediction, truth in mask_pairs(setup, names):
        confusion.update(prediction, truth)
    return confusion.miou()


def plain_miou(setup: Setup, names: list[str]) -> float:
    return plain.miou(*zip(*mask_pairs(setup, names)), setup.data_set.num_classes + 1)


def traced_peak(function: Callable) -> int:
    """Bytes of Python and NumPy at the peak of a call."""
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak
