"""Confusion matrix of semantic segmentation and the scores that follow from it (chainercv's definitions)."""

import numpy as np

from data.sample import IGNORE


def as_prediction(mask: np.ndarray) -> np.ndarray:
    """A pseudo mask as it is scored: unknown pixels (255), which IR labels have, count as background (IRN's script)."""
    return np.where(mask == IGNORE, 0, mask)


class ConfusionMatrix:
    """Pixel counts of (ground truth, prediction), added up image by image.

    matrix: (C, C) int64; row: class of the ground truth, column: predicted class.
    A class in neither ground truth nor prediction has no IoU: it is nan, and left out of the mean.
    """

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        self.matrix = np.zeros((num_classes, num_classes), np.int64)

    def update(self, prediction: np.ndarray, ground_truth: np.ndarray) -> None:
        """Count one image; both (H, W) integer. Pixels with ground truth 255 are not counted.

        Raises ValueError for different shapes, or a class outside [0, num_classes) in a counted pixel (chainercv
        would enlarge the matrix).
        """
        if prediction.shape != ground_truth.shape:
            raise ValueError(f"prediction {prediction.shape} and ground truth {ground_truth.shape} differ in shape")
        counted = ground_truth != IGNORE
        truth, predicted = ground_truth[counted].astype(np.int64), prediction[counted].astype(np.int64)
        for name, labels in (("ground truth", truth), ("prediction", predicted)):
            if labels.size and not 0 <= labels.min() <= labels.max() < self.num_classes:
                raise ValueError(f"{name} holds classes {labels.min()} to {labels.max()}, expected 0 to "
                                 f"{self.num_classes - 1}")
        pairs = np.bincount(truth * self.num_classes + predicted, minlength=self.num_classes ** 2)
        self.matrix += pairs.reshape(self.matrix.shape)

    def merge(self, other: "ConfusionMatrix") -> None:
        """Add the counts of another matrix, for example another process's."""
        self.matrix += other.matrix

    def iou(self) -> np.ndarray:
        """Intersection over union (C,): TP / (TP + FP + FN)."""
        return self._ratio(self.matrix.sum(axis=0) + self.matrix.sum(axis=1) - self.matrix.diagonal())

    def miou(self) -> float:
        """Mean of the IoU over the classes that occur; nan if none does."""
        iou = self.iou()
        return float(np.nanmean(iou)) if not np.isnan(iou).all() else float("nan")

    def precision(self) -> np.ndarray:
        """TP / (TP + FP) of each class (C,); nan for a class never predicted."""
        return self._ratio(self.matrix.sum(axis=0))

    def recall(self) -> np.ndarray:
        """TP / (TP + FN) of each class (C,); nan for a class not in the ground truth."""
        return self._ratio(self.matrix.sum(axis=1))

    def _ratio(self, pixels: np.ndarray) -> np.ndarray:
        return np.divide(self.matrix.diagonal(), pixels, out=np.full(self.num_classes, np.nan), where=pixels > 0)
