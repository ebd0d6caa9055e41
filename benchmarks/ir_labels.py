"""IR labels of stage 4."""

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from benchmarks import plain
from benchmarks.measure import Row, Setup, core_seconds
from data.cam_store import CamRecord, record_path, write_record
from data.sample import label_path, read_image, write_mask
from refine.crf import ir_label
from refine.fusion import read_final_cam
from runtime.parallel import map_images


def ir_labels(setup: Setup) -> list[Row]:
    """Stage 4 from CAMs made of blurred masks.

    One core, in turns with both CRFs always, each with lattices of its own; and one process against two.
    """
    names = setup.ids[:setup.images]
    for name in names:
        write_blurred_record(setup, name)
    work = functools.partial(label_image, setup.data_set, setup.folder, ir_label)
    both = functools.partial(label_image, setup.data_set, setup.folder, plain.ir_label)
    turns = [[core_seconds(lambda label=label: [label(name) for name in names], 1) for label in (work, both)]
             for _ in range(3)]
    rate = [len(names) / min(times) for times in zip(*turns)]
    return [Row("images/s on one core", *rate, rate[0] / rate[1]), *scaling(work, names)]


def scaling(work: Callable, names: list[str], rounds: int = 3) -> list[Row]:
    """One process against two, in turns, the best of each.

    Processor time says what the code itself allows, whatever else runs: on two free cores, two processes take
    half of what the workers do and, as if nothing overlapped with it, what their parent does. Wall time also holds the
    share of the cores that other programs had.
    """
    turns = [[timed_run(work, names, workers) for workers in (2, 1)] for _ in range(rounds)]
    busy, wall = ([len(names) / min(turn[one][kind] for turn in turns) for one in (0, 1)] for kind in (0, 1))
    gain, load = busy[0] / busy[1], os.getloadavg()[0]
    return [Row("images/s, processor time: 2 processes, 1", *busy, gain, ">= 1.8x", gain >= 1.8),
            Row(f"images/s, wall time at load {load:.1f}: 2, 1", *wall, wall[0] / wall[1])]


def timed_run(work: Callable, names: list[str], workers: int) -> tuple[float, float]:
    """Seconds of processor time, the workers' divided by their number, and of wall time."""
    wall, parent = time.perf_counter(), time.process_time()
    of_workers = sum(map_images(functools.partial(processor_time, work), names, workers, "ir_label"))
    parent, wall = time.process_time() - parent, time.perf_counter() - wall
    return (parent + of_workers / workers if workers > 1 else parent), wall


def processor_time(work: Callable, name: str) -> float:
    """Seconds that this process takes for an image."""
    start = time.process_time()
    work(name)
    return time.process_time() - start


def write_blurred_record(setup: Setup, name: str) -> None:
    """A record such as a good network gives: the masks of the image's classes at stride 16, blurred."""
    mask = setup.data_set.read_mask(name)
    classes = np.setdiff1d(mask, [0, 255])
    blurred = [cv2.GaussianBlur((mask == c).astype(np.float32), (0, 0), max(mask.shape) / 20) for c in (0, *classes)]
    small = np.stack([cv2.resize(cam, (-(-mask.shape[1] // 16), -(-mask.shape[0] // 16))) for cam in blurred])
    record = CamRecord(classes, mask.shape, [small], [small])
    write_record(record_path(setup.folder, name), record, setup.data_set.num_classes)


def label_image(data_set, folder: Path, label: Callable, name: str) -> None:
    image = read_image(data_set.image_path(name))
    cam, keys = read_final_cam(record_path(folder, name), data_set.num_classes, 0.7, 0.4, image.shape[:2])
    write_mask(label_path(folder, name), label(image, cam.numpy(), keys))
