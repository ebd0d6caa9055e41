"""Classifier weights and prototypes beside the mean features of parts, and the gradients of L_cls (Eq. 10-12)."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from data.mini_voc import DISCRIMINATIVE, SHARED
from net.prototype import masked_average
from net.sfc import SFCNet, normalise_cam, with_background
from report.numbers import ratio

OWN, SHARED_PART, DISCRIMINATIVE_PART = range(3)          # regions of a class: all its pixels, and its two parts

REGIONS = {
    "own": "the class's own pixels", "others": "objects of other classes", "background": "background",
    "shared": "shared part of the class", "discriminative": "discriminative part of the class",
    "f0": "f0: shared part of all classes that have it",
    "f0_others": "f0 on other classes' objects: shared part of the other classes that have it",
}
PART_REGIONS = ("shared", "discriminative", "f0", "f0_others")


class Observation(NamedTuple):
    score: torch.Tensor             # (N, C) logits
    top_features: torch.Tensor      # (N, D, h, w) of the last stage, which the classifier reads
    side_features: torch.Tensor     # (N, 768, h, w), in which prototypes live
    prototypes: torch.Tensor        # (N, C+1, 768)
    seeded: torch.Tensor            # (N, C+1) bool: the class has a seed, and so a prototype


@torch.no_grad()
def observe(model: SFCNet, images: torch.Tensor, labels: torch.Tensor, mask_cam: bool = False) -> Observation:
    """What the network makes of whole images at scale 1, without their mirror images.

    images (N, 3, H, W) uint8, labels (N, C) 0/1, mask_cam as SFCNet.infer
    """
    images = model.backbone.prepare(images)
    features = model.backbone(images)
    top_features, side_features = features[3], model.side_features(features)
    logits = model.classifier(top_features)
    coarse = normalise_cam(logits * labels[:, :, None, None] if mask_cam else logits)
    small = F.interpolate(images, logits.shape[2:], mode="bilinear", align_corners=True)
    present = with_background(labels.bool())[:, :, None, None]
    weight_cam, _ = model.calibrated_cams(coarse, small, top_features, side_features, present)
    seeds = model.seeds(weight_cam, present)
    return Observation(logits.mean((2, 3)), top_features, side_features, masked_average(side_features, seeds),
                       seeds.flatten(2).any(2))


class RegionMeans:
    """Mean feature of the pixels of every class and part, added up image by image.

    sums     (3, C+1, D) float64; first index: OWN, SHARED_PART, DISCRIMINATIVE_PART; class 0 is the background
    weights  (3, C+1) cells added up

    A pixel has the feature of the cell it lies in; a cell counts by its share of pixels of the region.
    """

    def __init__(self, num_classes: int, width: int):
        self.sums = torch.zeros(3, num_classes + 1, width, dtype=torch.float64)
        self.weights = torch.zeros(3, num_classes + 1, dtype=torch.float64)

    def update(self, features: torch.Tensor, truth: np.ndarray, parts: np.ndarray) -> None:
        """Add one image: features (D, h, w), truth (H, W) class indices with 255 ignored, parts (H, W)."""
        num_classes, (height, width) = self.weights.shape[1] - 1, features.shape[1:]
        classes = [int(index) for index in np.unique(truth) if index <= num_classes]
        regions = np.stack([(truth == index) & part for part in (True, parts == SHARED, parts == DISCRIMINATIVE)
                            for index in classes]).astype(np.float32)
        share = F.adaptive_avg_pool2d(torch.from_numpy(regions).to(features.device), (height, width)).flatten(1)
        self.sums[:, classes] += (share @ features.flatten(1).T).cpu().double().view(3, len(classes), -1)
        self.weights[:, classes] += share.sum(1).cpu().double().view(3, -1)

    def mean(self, region: int, classes: list[int]) -> torch.Tensor | None:
        """(D,) mean feature of the region over the given classes (1-based, 0 background); None without pixels."""
        weight = self.weights[region, classes].sum()
        return self.sums[region, classes].sum(0) / weight if weight > 0 else None


class PrototypeMeans:
    """P_c: the mean over images of the image-wise prototypes, (C+1, 768) float64, and the images of each."""

    def __init__(self, num_classes: int, width: int):
        self.sums = torch.zeros(num_classes + 1, width, dtype=torch.float64)
        self.images = torch.zeros(num_classes + 1, dtype=torch.int64)

    def update(self, prototypes: torch.Tensor, seeded: torch.Tensor) -> None:
        """Add a batch: prototypes (N, C+1, D), seeded (N, C+1) bool."""
        self.sums += (prototypes * seeded[:, :, None]).sum(0).cpu().double()
        self.images += seeded.sum(0).cpu()

    def mean(self, index: int) -> torch.Tensor | None:
        """(D,) of a class (1-based); None if no image has a seed of it."""
        return self.sums[index] / self.images[index] if self.images[index] else None


class GradientSums:
    """Sums over images of |dL_cls / ds_c|, which is |sigmoid(s_c) - y_c| / C (Eq. 10), by the label of the class.

    kin  (C, C) bool: classes that share a part; negatives are summed once more over images that show kin of the class,
         which are the images of Eq. 11 and 12: there the shared feature is seen
    """

    def __init__(self, kin: torch.Tensor):
        self.kin = kin.float()
        self.sums = torch.zeros(3, len(kin), dtype=torch.float64)         # positive, negative, negative with kin
        self.images = torch.zeros(3, len(kin), dtype=torch.int64)

    def update(self, score: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a batch: score (N, C) logits, labels (N, C) 0/1."""
        labels = labels.cpu().float()
        magnitude = (torch.sigmoid(score.cpu().double()) - labels).abs() / labels.shape[1]
        kinds = torch.stack([labels, 1 - labels, (1 - labels) * (labels @ self.kin > 0)])
        self.sums += (kinds * magnitude).sum(1)
        self.images += kinds.sum(1).long()

    def of_class(self, index: int) -> dict[str, float | None]:
        """Means, sums and positive / negative ratios of a class (0-based); *_at_start: all scores 0, so counts alone.

        A ratio is None without positives or without negatives.
        """
        n_positive, n_negative, n_kin = counts = [count or None for count in self.images[:, index].tolist()]
        positive, negative, kin = (total if count else None
                                   for total, count in zip(self.sums[:, index].tolist(), counts))
        return {"positives": n_positive or 0, "negatives": n_negative or 0, "kin_negatives": n_kin or 0,
                "mean_positive": ratio(positive, n_positive), "mean_negative": ratio(negative, n_negative),
                "sum_positive": positive, "sum_negative": negative,
                "ratio": ratio(positive, negative), "ratio_at_start": ratio(n_positive, n_negative),
                "ratio_kin": ratio(positive, kin), "ratio_kin_at_start": ratio(n_positive, n_kin)}


def projection(vector: torch.Tensor | None, feature: torch.Tensor | None) -> tuple[float | None, float | None]:
    """Inner product and cosine of two (D,) vectors; None where one is missing, or has no direction."""
    if vector is None or feature is None:
        return None, None
    product = float(vector.double() @ feature.double())
    return product, ratio(product, float(vector.double().norm() * feature.double().norm()))
