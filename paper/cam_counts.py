"""What M_W, M_P and M_final of CAM records say of every pixel, counted apart for shared and discriminative parts."""

from pathlib import Path

import numpy as np

from data.cam_store import read_record, record_path
from data.mini_voc import DISCRIMINATIVE, SHARED
from data.sample import IGNORE, image_size
from paper.part_masks import has_parts, read_parts
from refine.fusion import full_size_cams
from refine.metrics import ConfusionMatrix
from refine.scored_maps import CAMS
from refine.segmentation_scores import ThresholdSweep

ARGMAX, ORACLE = "argmax", "oracle"                                # background rules
PARTS = ("rest", "shared", "shared beside head", "discriminative")


class CamCounts:
    """Pixel counts of every map, by part of the object.

    confusion   map -> part -> ConfusionMatrix of the arg-max with the background channel
    sweep       map -> part -> ThresholdSweep of the foreground
    Parts are PARTS; without part masks (has_parts False) every pixel is "rest". Maps are without background step.
    """

    def __init__(self, num_classes: int, has_parts: bool):
        self.parts = PARTS if has_parts else PARTS[:1]
        self.confusion = {name: {part: ConfusionMatrix(num_classes + 1) for part in self.parts} for name in CAMS}
        self.sweep = {name: {part: ThresholdSweep(num_classes) for part in self.parts} for name in CAMS}

    def update(self, record, truth: np.ndarray, parts: np.ndarray) -> None:
        """Count one image. truth (H, W) class indices, parts (H, W) indices of PARTS."""
        weight_cam, prototype_cam = full_size_cams(record, None)
        truths = {PARTS[index]: np.where(parts == index, truth, IGNORE) for index in np.unique(parts)}
        for name, weights in CAMS.items():
            cam = weights.mean(weight_cam, prototype_cam).numpy()
            labels = record.keys[cam.argmax(0)]
            for part, truth_there in truths.items():
                self.confusion[name][part].update(labels, truth_there)
                self.sweep[name][part].update(cam, record.keys, truth_there)

    def merge(self, other: "CamCounts") -> None:
        """Add the counts of another process."""
        for name in CAMS:
            for part in self.parts:
                self.confusion[name][part].merge(other.confusion[name][part])
                self.sweep[name][part].merge(other.sweep[name][part])

    def oracle_step(self, name: str) -> int:
        """The step of the foreground threshold with the highest mIoU: an oracle, it reads pixel labels."""
        whole = ThresholdSweep(self.sweep[name]["rest"].num_classes)
        for sweep in self.sweep[name].values():
            whole.merge(sweep)
        return int(np.argmax([miou for _, miou in whole.miou()]))

    def labelled(self, name: str, step: int | None) -> dict[str, ConfusionMatrix]:
        """part -> counts of a map: of the arg-max (step None), or of the foreground above a threshold."""
        if step is None:
            return self.confusion[name]
        return {part: sweep.confusion(step) for part, sweep in self.sweep[name].items()}


def count_images(folder: Path, data_set, head: int, names: list[str]) -> CamCounts:
    """Counts of a few images. folder: the CAM records; head: 1-based index of the most frequent class."""
    counts = CamCounts(data_set.num_classes, has_parts(data_set))
    for name in names:
        size = image_size(data_set.image_path(name))
        record = read_record(record_path(folder, name), data_set.num_classes, size)
        parts = part_index(read_parts(data_set, name, size), head in record.classes)
        counts.update(record, data_set.read_mask(name, size), parts)
    return counts


def part_index(parts: np.ndarray, beside_head: bool) -> np.ndarray:
    """Part mask -> indices of PARTS. beside_head: the image shows the head class."""
    index = np.zeros(parts.shape, np.uint8)
    index[parts == SHARED] = PARTS.index("shared beside head" if beside_head else "shared")
    index[parts == DISCRIMINATIVE] = PARTS.index("discriminative")
    return index
