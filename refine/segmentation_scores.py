"""Scores of label maps against the ground truth, as they stand in metrics.json."""

from typing import Any

import numpy as np

from data.sample import IGNORE
from refine.metrics import ConfusionMatrix


def summary(confusion: ConfusionMatrix, class_names) -> dict:
    """mIoU, mean precision and recall in per cent, and the same per class (background first; null: class absent).

    class_area_ratio: predicted pixels / true pixels of each class; above 1 it is over-activated, below under-activated.
    """
    names = ("background", *class_names)
    per_class = {"iou": confusion.iou(), "precision": confusion.precision(), "recall": confusion.recall()}
    out: dict[str, Any] = {"miou": 100 * confusion.miou()}
    for key, values in per_class.items():
        finite = values[~np.isnan(values)]
        if key != "iou":
            out[key] = 100 * float(finite.mean()) if len(finite) else None
        out[f"class_{key}"] = {name: None if np.isnan(v) else 100 * float(v) for name, v in zip(names, values)}
    true, predicted = confusion.matrix.sum(1).tolist(), confusion.matrix.sum(0).tolist()
    out["class_area_ratio"] = {name: p / t if t else None for name, p, t in zip(names, predicted, true)}
    return out


class ThresholdSweep:
    """mIoU of `foreground above a threshold` for every threshold at once, from one histogram.

    num_classes  C
    bins         thresholds are 0, 1/bins, ..., 1
    """

    def __init__(self, num_classes: int, bins: int = 100):
        self.num_classes = num_classes
        self.bins = bins
        self.counts = np.zeros((num_classes + 1, num_classes + 1, bins + 1), np.int64)   # truth, class, activation

    def update(self, cam: np.ndarray, keys: np.ndarray, ground_truth: np.ndarray) -> None:
        """cam (K+1, H, W) with foreground in [0, 1], keys (K+1,) class of each channel, ground_truth (H, W)."""
        counted = ground_truth != IGNORE
        foreground = cam[1:, counted]
        predicted = keys[1:][foreground.argmax(0)]
        level = np.clip((foreground.max(0) * self.bins).astype(np.int64), 0, self.bins)
        index = (ground_truth[counted].astype(np.int64) * (self.num_classes + 1) + predicted) * (self.bins + 1) + level
        self.counts += np.bincount(index, minlength=self.counts.size).reshape(self.counts.shape)

    def merge(self, other: "ThresholdSweep") -> None:
        self.counts += other.counts

    def confusion(self, step: int) -> ConfusionMatrix:
        """Counts at the threshold step / bins: pixels whose activation is below it are background."""
        below = self.counts[..., :step].sum(-1)
        confusion = ConfusionMatrix(self.num_classes + 1)
        confusion.matrix = self.counts.sum(-1) - below
        confusion.matrix[:, 0] += below.sum(1)
        return confusion

    def miou(self) -> list[tuple[float, float]]:
        """[(threshold, mIoU in per cent)] of every threshold."""
        return [(step / self.bins, 100 * self.confusion(step).miou()) for step in range(self.bins + 1)]
