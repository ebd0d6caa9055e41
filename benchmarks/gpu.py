"""The GPU path in one go: tests, benchmarks, every stage at real sizes, a run stopped and resumed, two processes.

    python -m benchmarks.gpu                        # minutes on one GPU; needs no network
    python -m benchmarks.gpu --device cpu --tiny    # small sizes, to try the command where there is no GPU

Writes a log a step, gpu.json and gpu.md into --out, and exits with 1 if a step failed. Weights are random, so the
scores say nothing; times and memory are those of trained ones.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch

from data import mini_voc
from data.sample import write_atomically, write_text
from runtime.command import exit_with_message
from runtime.device import AUTO, hardware, prepare_device

REAL_IMAGES = {"num_train": 64, "num_val": 8, "image_size": 448}
TINY_IMAGES = {"num_train": 24, "num_val": 8, "image_size": 64}
REAL_FLAGS = ["--epochs", "5", "--irn_epochs", "1", "--seg_iterations", "20"]
TINY_FLAGS = ["--preset", "mini", "--crop_size", "64", "--epochs", "1", "--batch_size", "6", "--ibr_images", "2",
              "--scales", "1.0,0.5", "--irn_crop_size", "64", "--irn_radius", "3", "--seg_iterations", "2"]
SECONDS = 240                      # of a step at most


class Step(NamedTuple):
    """A command, and the exit status that it must have."""
    words: list[str]
    stop: Path | None = None       # SIGTERM as soon as this file or folder is there
    status: int = 0


def random_weights(folder: Path) -> list[str]:
    """Flags of initial weights. Residual blocks start as the identity, so that deep random networks stay finite."""
    from torchvision.models import resnet50, resnet101

    flags = []
    for flag, network in (("--weights", resnet50), ("--seg_init", resnet101)):
        path = folder / f"{network.__name__}.pth"
        weights = network(weights=None, zero_init_residual=True).state_dict()
        write_atomically(path, lambda file, weights=weights: torch.save(weights, file))
        flags += [flag, str(path)]
    return flags


def steps(out: Path, device: str, tiny: bool) -> dict[str, Step]:
    """Name -> step, in the order in which they run."""
    root = mini_voc.generate(out / "images", **(TINY_IMAGES if tiny else REAL_IMAGES))
    flags = ["--voc12_root", str(root), "--device", device, *(TINY_FLAGS if tiny else REAL_FLAGS + random_weights(out))]
    python = [sys.executable]

    def stage(script: str, folder: str, *more: str) -> list[str]:
        return [f"{script}.py", *flags, "--work_dir", str(out / folder), *more]

    def training(name: str, *more: str) -> Step:
        return Step(python + stage("train_sfc", name, *more))

    found = {
        "chain": Step(python + stage("run_sample", "chain", "--to", "eval_deeplab")),
        "bf16": training("bf16", "--amp", "bf16"),
        "bf16 channels_last": training("channels_last", "--amp", "bf16", "--channels_last"),
        "four passes": training("passes", "--grad_accum", "4"),
        "stopped": training("stopped")._replace(stop=out / "stopped/tensorboard/train_sfc", status=143),
        "resumed": training("stopped"),
    }
    if device == "cuda":
        found["fp16"] = training("fp16", "--amp", "fp16")
    if device == "cpu" or torch.cuda.device_count() > 1:
        found["two processes"] = Step([*python, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
                                       *stage("train_sfc", "processes")])
    return found | {               # the longest ones last
        "benchmarks": Step([*python, "-m", "benchmarks", "--device", device, "--json", str(out / "benchmarks.json")]),
        "tests": Step([*python, "-m", "pytest", "-q", "-n", "4", "--dist", "loadfile", "tests"]),
    }


def run(step: Step, log: Path) -> tuple[int, float]:
    """Exit status and seconds of a step; -9 where it took too long. Its output goes to `log`."""
    start = time.perf_counter()
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen(step.words, stdout=file, stderr=subprocess.STDOUT,
                                   cwd=Path(__file__).resolve().parents[1])
        while step.stop and process.poll() is None and not step.stop.exists():
            time.sleep(0.05)
        if step.stop:
            process.terminate()
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode, round(time.perf_counter() - start, 1)


def stages_of(out: Path) -> list[dict]:
    """What config.json of the runs under `out` says of each stage: time, rate, memory."""
    rows = []
    for path in sorted(out.glob("*/config.json")):
        for stage, entry in json.loads(path.read_text()).items():
            rows.append({"run": path.parent.name, "stage": stage, **entry.get("machine", {})})
    return rows


def as_markdown(device: str, results: list[dict], stages: list[dict]) -> str:
    lines = [f"{device}, PyTorch {torch.__version__}", "", "| step | | seconds |", "|---|---|--:|"]
    lines += [f"| {row['step']} | {'ok' if row['ok'] else 'FAILED'} | {row['seconds']} |" for row in results]
    lines += ["", "| run | stage | seconds | images/s | GPU memory, MB |", "|---|---|--:|--:|--:|"]
    lines += [f"| {row['run']} | {row['stage']} | {row.get('seconds', '-')} | {row.get('images_per_second', '-')} | "
              f"{row.get('gpu_mb', '-')} |" for row in stages]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"), help="new folder to write")
    parser.add_argument("--device", default=AUTO, help="torch device; auto: a GPU where there is one")
    parser.add_argument("--tiny", action="store_true", help="small networks and images")
    parser.add_argument("--only", help="comma-separated steps")
    args = parser.parse_args()
    device = prepare_device(args.device)
    out = args.out.absolute()
    if out.exists():
        parser.error(f"{out} is there already; delete it or choose another --out")
    out.mkdir(parents=True)
    known = steps(out, device.type, args.tiny)
    chosen = args.only.split(",") if args.only else list(known)
    if unknown := [name for name in chosen if name not in known]:
        parser.error(f"--only {unknown[0]}: the steps are {', '.join(known)}")
    results = []
    for name in chosen:
        status, seconds = run(known[name], out / f"{name.replace(' ', '_')}.log")
        results.append({"step": name, "ok": status == known[name].status, "status": status, "seconds": seconds})
        print(f"{name:<20}{'ok' if results[-1]['ok'] else 'FAILED':<8}{seconds:>8} s", flush=True)
    name = f"{hardware(device)}, {os.cpu_count()} cores"
    rows = stages_of(out)
    write_text(out / "gpu.json", json.dumps({"device": name, "torch": torch.__version__, "steps": results,
                                             "stages": rows}, indent=2) + "\n")
    write_text(out / "gpu.md", as_markdown(name, results, rows))
    print(out / "gpu.md")
    sys.exit(0 if all(row["ok"] for row in results) else 1)


if __name__ == "__main__":
    exit_with_message(main)
