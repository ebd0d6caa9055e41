"""Start-up of a command: what a user waits for before the first image."""

import resource
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import Row, Setup

ROOT = Path(__file__).resolve().parents[1]


def start_up(setup: Setup, rounds: int = 3) -> list[Row]:
    """Processor time of the help and of a refusal, beside importing PyTorch alone: in turns, the least of each."""
    run_sample = str(ROOT / "run_sample.py")
    missing = ["--voc12_root", str(setup.folder / "none"), "--work_dir", str(setup.folder / "run")]
    commands = {"import torch": (["-c", "import torch"], 0), "run_sample.py --help": ([run_sample, "--help"], 0),
                "refusal of a missing data set": ([run_sample, *missing], 2)}
    times = {name: [] for name in commands}
    for _ in range(rounds):
        for name, (arguments, status) in commands.items():
            times[name].append(child_seconds(arguments, status))
    floor, *ours = (min(measured) for measured in times.values())
    return [Row(f"seconds, {name}; import torch", taken, floor, taken / floor, "<= 1.3x", taken / floor <= 1.3)
            for name, taken in zip([*commands][1:], ours)]


def child_seconds(arguments: list[str], status: int) -> float:
    """Processor time of a Python process. Raises RuntimeError if it ends with another exit status."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != status:
        raise RuntimeError(f"{arguments} ended with {done.returncode} instead of {status}: {done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
