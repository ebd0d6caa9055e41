"""Start-up time and memory of a stage against the number of images, on a generated COCO index.

    python -m benchmarks.coco_scale [--images 20000,82081,200000]

What a stage does before its first image: open the data set, read the list, check that every image file exists,
look up all labels. Files are empty; nothing is decoded.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from coco14.coco import CLASS_NAMES, Coco14, labels_path, write_labels
from frame.lists import require_images


def generate(root: Path, images: int) -> None:
    """A prepared COCO of `images` empty files and random labels of 80 classes."""
    ids = [f"COCO_train2014_{i:012d}" for i in range(images)]
    (root / "train2014").mkdir(parents=True)
    (root / "prepared/ImageSets").mkdir(parents=True)
    for name in ids:
        (root / f"train2014/{name}.jpg").touch()
    (root / "prepared/ImageSets/train2014.txt").write_text("\n".join(ids) + "\n")
    labels = (np.random.default_rng(0).random((images, 80)) < 0.04).astype(np.uint8)
    path = labels_path(root / "prepared", "train2014")
    write_labels(path, ids, labels, list(CLASS_NAMES), list(range(1, 81)), "annotations")


def measure(root: Path) -> None:
    """Print seconds of each step and the peak memory of this process beyond its imports."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    marks = [time.perf_counter()]
    data_set = Coco14(root, root / "prepared")
    marks.append(time.perf_counter())
    ids, _ = data_set.split("train_aug")
    marks.append(time.perf_counter())
    require_images(data_set, ids)
    marks.append(time.perf_counter())
    data_set.image_labels(ids)
    marks.append(time.perf_counter())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    steps = "  ".join(f"{seconds:6.2f}" for seconds in np.diff(marks))
    print(f"{len(ids):>8}  {steps}  {marks[-1] - marks[0]:6.2f}  {1e6 * (marks[-1] - marks[0]) / len(ids):8.1f}"
          f"  {memory / 1024:8.1f}  {1024 * memory / len(ids):10.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--images", default="20000,82081,200000", help="numbers of images, comma-separated")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args.measure)
        return
    print("  images    open    list   files  labels   all s  us/image        MB     B/image")
    for images in map(int, args.images.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder), images)
            # Its own process each, so that one size's memory does not show in the next.
            subprocess.run([sys.executable, "-m", "benchmarks.coco_scale", "--measure", folder], check=True)


if __name__ == "__main__":
    main()
