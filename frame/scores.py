"""The scoring pass of stages 3, 7 and 9: counts of every image, over processes, as metrics.json has them."""

from collections.abc import Callable, Hashable, Iterable
from typing import Any

from refine.segmentation_scores import summary
from runtime import distributed
from runtime.parallel import map_images
from runtime.work_dir import log

Counts = dict[Hashable, Any]      # name of what is scored -> ConfusionMatrix or ThresholdSweep


def total_counts(count: Callable[[list[str]], Counts], ids: list[str], chunk: int, num_workers: int,
                 name: str) -> Counts:
    """Counts of all images, on all processes.

    count  counts of a few images
    chunk  images a worker counts before it hands its counts back
    name   of the stage, for the bar
    """
    chunks = distributed.shard(ids[i:i + chunk] for i in range(0, len(ids), chunk))
    return merged_over_processes(map_images(count, chunks, num_workers, name, images_of=len))


def merged_over_processes(parts: Iterable[Counts]) -> Counts:
    """The sum of this process's parts and of those of all others."""
    total: Counts = {}
    for own in distributed.gather(merged(parts)):
        total = merged([total, own])
    return total


def merged(parts: Iterable[Counts]) -> Counts:
    total: Counts = {}
    for part in parts:
        for key, counts in part.items():
            if key in total:
                total[key].merge(counts)
            else:
                total[key] = counts
    return total


def metrics(total: Counts, list_name: str, ids: list[str], class_names: tuple[str, ...]) -> dict[str, Any]:
    """What metrics.json keeps, and the log says, of the scores on a list."""
    split = f"{list_name} ({len(ids)} images)"
    scores = {name: summary(confusion, class_names) for name, confusion in total.items()}
    log.info("mIoU on %s", split)
    for name, score in scores.items():
        log.info("  %-32s %6.2f", name, score["miou"])
    return {"split": split, "images": len(ids), "scores": scores}
