"""Each stage's inner work beside a plain reading of the same equations: same inputs, same results, one run.

    python -m benchmarks                                            # all; under 5 minutes on two CPU cores
    python -m benchmarks --only train_step --device cuda            # real sizes on a GPU
    python -m benchmarks --only cam_record --voc12_root VOCdevkit/VOC2012
    python -m benchmarks --floors                                   # operations each stage cannot do without

A row is "met" when its number reaches the target; rows without a target inform. Work on one core is timed by
the processor time it takes, so that other programs on the machine count as little as possible.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.cam_record import cam_record
from benchmarks.evaluation import evaluation
from benchmarks.floors import floors
from benchmarks.ir_labels import ir_labels
from benchmarks.loader import loader
from benchmarks.measure import Row, Setup
from benchmarks.relations import path_maxima, random_walk
from benchmarks.start_up import start_up
from benchmarks.train_step import train_step
from data import mini_voc
from runtime import progress
from runtime.command import exit_with_message, positive_int
from runtime.device import AUTO, hardware, prepare_device, processor
from voc12.voc import Voc12

BENCHMARKS = {"random_walk": random_walk, "train_step": train_step, "path_maxima": path_maxima, "loader": loader,
              "cam_record": cam_record, "ir_label": ir_labels, "evaluation": evaluation, "start_up": start_up}
TEXT_WIDTH = 46


def open_images(root: str | None, images: int, folder: Path) -> tuple[Voc12, list[str]]:
    """The data set under `root`, or a generated one of 48 images about as large as VOC's; ids that have masks."""
    root = root or mini_voc.generate(folder / "images", 48, 1, image_size=432, num_classes=16, workers=1)
    data_set = Voc12(root)
    ids, _ = data_set.split("train")
    return data_set, np.random.default_rng(0).permutation(ids)[:max(48, images)].tolist()


def machine(device: torch.device) -> dict:
    """What the numbers were measured on."""
    name = hardware(device) if device.type == "cuda" else "cpu"
    return {"cpu": processor(), "cores": os.cpu_count(), "device": name, "torch": torch.__version__,
            "load_average": round(os.getloadavg()[0], 1)}


def line_of(row: Row) -> str:
    numbers = "".join(f"{'-' if value is None else f'{value:.4g}':>11}" for value in (row.ours, row.plain))
    ratio = "-" if row.ratio is None else f"{row.ratio:.4g}x"
    met = {None: "", True: "yes", False: "NO"}[row.met]
    return f"  {row.name:<{TEXT_WIDTH}}{numbers}{ratio:>9}{row.target:>10}{met:>5}"


def run_benchmarks(names: list[str], setup: Setup) -> dict[str, list[Row]]:
    """Run and print them one after the other."""
    print(f"  {'':<{TEXT_WIDTH}}{'ours':>11}{'plain':>11}{'ratio':>9}{'target':>10}{'met':>5}")
    rows = {}
    for name in names:
        start = time.perf_counter()
        rows[name] = BENCHMARKS[name](setup)
        print(f"{name}  ({time.perf_counter() - start:.0f} s)")
        print("\n".join(map(line_of, rows[name])), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--only", choices=list(BENCHMARKS), help="run this one alone")
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks.json"), help="file to write the numbers to")
    parser.add_argument("--device", default=AUTO, help="torch device of train_step, path_maxima and cam_record")
    parser.add_argument("--voc12_root", help="real images instead of generated ones")
    parser.add_argument("--images", type=positive_int, default=8, help="images of cam_record and ir_label")
    parser.add_argument("--checkpoint", help="cam_record: trained SFC network of backbone efficientnet_lite0")
    parser.add_argument("--floors", action="store_true", help="print the operations of each stage and end")
    args = parser.parse_args()
    if args.floors:
        for name, count in floors().items():
            print(f"{name:<40}{count / 1e9:>12.1f} G operations")
        return
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    progress.quiet = True
    device = prepare_device(args.device)
    before = machine(device)
    print(before)
    with tempfile.TemporaryDirectory() as folder:
        data_set, ids = open_images(args.voc12_root, args.images, Path(folder))
        rows = run_benchmarks([args.only] if args.only else list(BENCHMARKS),
                              Setup(device, Path(folder), data_set, ids, args.images, args.checkpoint))
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps({"machine": before, "rows": {key: [row._asdict() for row in value]
                                                                 for key, value in rows.items()}}, indent=2) + "\n")


if __name__ == "__main__":
    exit_with_message(main)
