"""The loader of stage 1."""

from torch.utils.data import default_collate

from benchmarks import plain
from benchmarks.measure import Row, Setup, core_seconds
from data.loader import TrainCrops


def loader(setup: Setup, crop: int = 512, batch: int = 16) -> list[Row]:
    """Decoding, augmenting and stacking a batch in one process."""
    labels = setup.data_set.image_labels(setup.ids)
    augmentation = {"crop": crop, "resize_long": (320, 640), "flip": True, "seed": 0}
    ours, theirs = (kind(setup.ids, labels, setup.data_set.image_path, **augmentation)
                    for kind in (TrainCrops, plain.FloatCrops))
    keys = [(0, i % len(setup.ids)) for i in range(batch)]
    rate = [batch / core_seconds(lambda data=data: default_collate([data[key] for key in keys]))
            for data in (ours, theirs)]
    size = [sum(part.numel() * part.element_size() for part in data[keys[0]]) / 1e6 for data in (ours, theirs)]
    return [Row(f"MB a sample, crop {crop}", *size, size[1] / size[0], "<= 0.8", size[0] <= 0.8),
            Row("samples/s on one core", *rate, rate[0] / rate[1], ">= 3x", rate[0] / rate[1] >= 3)]
