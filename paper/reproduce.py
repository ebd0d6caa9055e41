"""The paper's tables and figures: run what is missing, then print them with our numbers beside.

Several tables share runs; each runs once, is skipped when complete, and goes on when it was interrupted.
"""

import os
import shlex
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

import torch

from data.sample import InputError
from paper import data_sources, results
from paper.series import ROOT, Choices, Run, RunSeries
from report.finished_run import FinishedRun
from report.published import figure_settings
from runtime import interrupt
from runtime.command import default_workers, name_list
from runtime.progress import progress


class Reproduction:
    """All that one command asks for.

    series  the runs; with a twin, the second is the balanced twin of the first
    Raises InputError when the data set is missing.
    """

    def __init__(self, choices: Choices):
        data_sources.check(choices.dataset, choices.folders, choices.twin, choices.dry_run)
        self.choices = choices
        self.free_gpus = shared_gpus(choices.jobs)
        self.series = [RunSeries(choices, balanced) for balanced in ((False, True) if choices.twin else (False,))]

    def run(self, command: str) -> None:
        """Do it. command: how it was started, for the tables. Raises InputError when a run failed."""
        if self.choices.dry_run:
            self.print_plan()
            return
        failures = self.run_missing()
        for number in self.choices.table:
            for path in results.write_table(number, [part.finished() for part in self.series], self.choices.out,
                                            self.choices.series_name, command, self.choices.class_sets):
                print(path)
        if self.choices.figure and not failures:
            print(self.draw_figure(self.choices.figure))
        if failures:
            raise InputError("these runs failed; the same command tries them again:\n" + "\n".join(failures))

    def missing(self) -> list[tuple[RunSeries, Run]]:
        return [(series, run) for series in self.series for run in series.missing()]

    def data_commands(self) -> list[list[str]]:
        """The commands that generate the data sets of the missing runs, each once."""
        if not self.choices.source.generated:
            return []
        return [series.data_command(seed) for series, seed in dict.fromkeys((s, run.seed) for s, run in self.missing())]

    def print_plan(self) -> None:
        """Commands, time and disk of what is still to run."""
        missing, source = self.missing(), self.choices.source
        for command in self.data_commands():
            print(f"(cd {shlex.quote(str(ROOT))} && {shlex.join(command)})")
        for series, run in missing:
            print(shlex.join(series.run_command(run)))
        hours = [found for series in self.series for found in series.expected_hours(series.missing())]
        measured = sum(known for _, known in hours)
        total = sum(time for time, _ in hours) / self.choices.jobs
        wanted = sum(len(series.runs) for series in self.series)
        print(f"# {len(missing)} of {wanted} runs are missing: about {total:.2g} hours ({measured} runs by the times "
              f"of finished ones, {len(missing) - measured} guessed for {source.hardware}), "
              f"{len(missing) * source.gigabytes:.2g} GB")

    def draw_figure(self, number: int) -> Path:
        """A figure of the paper from the runs of the first seed."""
        from paper.figures import write_figure
        series = self.series[0]
        runs = {setting: FinishedRun(series.run_folder(Run(setting, self.choices.seeds[0], "make_cam")))
                for setting in figure_settings(number)}
        ids = name_list(self.choices.ids) if self.choices.ids else []
        return write_figure(number, runs, ids, self.choices.out / f"{self.choices.series_name}_figure{number}.png")

    # --- running --------------------------------------------------------------------------------------------

    def run_missing(self) -> list[str]:
        """Run what is missing, `jobs` at a time; a line for every run that failed."""
        missing = self.missing()
        failures = [problem for command in self.data_commands() if (problem := call(command, 1, cwd=ROOT))]
        # A network that trains on the masks of another run waits for it.
        for waits in (False, True):
            group = [(series, run) for series, run in missing if bool(run.seg_net) == waits]
            if failures or not group:
                break
            bar = progress(total=len(group), desc="runs", unit="run")
            with ThreadPoolExecutor(self.choices.jobs) as pool, bar:
                for problem in pool.map(lambda pair: self.run_one(*pair), group):
                    failures += [problem] if problem else []
                    bar.update()
                    interrupt.check()
        return failures

    def run_one(self, series: RunSeries, run: Run) -> str:
        """Run the chain and note the command that did it; "" or what went wrong."""
        series.forget_other(run)
        gpu = self.free_gpus.get()
        try:
            problem = call(series.run_command(run), self.choices.jobs, gpu=gpu)
        finally:
            self.free_gpus.put(gpu)
        if not problem and not interrupt.requested():
            series.mark_complete(run)
        return f"{series.run_folder(run)}: {problem}" if problem else ""


def shared_gpus(jobs: int) -> Queue[str | None]:
    """For each of the runs at a time the GPU that it sees, as CUDA_VISIBLE_DEVICES names it; None: all visible ones.

    The visible GPUs are dealt out in turn, so that runs share one only where there are more runs than GPUs.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
    free: Queue[str | None] = Queue()
    for number in range(jobs):
        free.put(gpus[number % len(gpus)] if jobs > 1 and gpus else None)
    return free


def call(command: list[str], jobs: int, cwd: Path | None = None, gpu: str | None = None) -> str:
    """Run a command with its share of the cores; "" or why it failed. A signal is handed on to it.

    gpu  the only one that it sees; None: those that this process sees
    """
    if interrupt.requested():
        return ""
    threads = {"OMP_NUM_THREADS": str(max(1, default_workers() // jobs)), "OMP_WAIT_POLICY": "passive"}
    seen = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(command, cwd=cwd, env=os.environ | threads | seen, stdout=subprocess.DEVNULL,
                                 stderr=errors, start_new_session=True)
        while child.poll() is None:
            if interrupt.requested():
                child.terminate()
                child.wait()
                return ""
            time.sleep(0.2)
        errors.seek(0)
        text = errors.read().strip()
    # What the program says of bad input; of a crash, the last line of its traceback.
    message = text.rpartition("error: ")[2] if "\nerror: " in f"\n{text}" else text.rpartition("\n")[2]
    return (message or f"exit status {child.returncode}") if child.returncode else ""
