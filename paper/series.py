"""Runs of the chain that differ in setting and seed: which are needed, their commands and folders, what is complete."""

import json
import shlex
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from data.sample import write_text
from frame.chain import STAGES
from frame.data_sets import KINDS
from paper import results
from paper.data_sources import SOURCES, DataSource
from report.finished_run import FinishedRun
from report.published import SETTINGS, compared_rows, figure_settings
from runtime.command import default_workers
from runtime.work_dir import read_json

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Choices:
    """What is wanted, where it comes from and where it goes. The flags of tools/reproduce.py say what each field is."""
    table: tuple[int, ...]
    figure: int | None
    ids: str | None
    settings: tuple[str, ...]
    seeds: tuple[int, ...]
    twin: bool
    class_sets: tuple[int, int] | None
    dry_run: bool
    dataset: str
    voc12_root: str | None
    coco_root: str | None
    coco_prepared: str | None
    mini: str
    flags: str
    resnet38_init: str | None
    name: str | None
    runs_dir: Path
    out: Path
    jobs: int

    @property
    def source(self) -> DataSource:
        return SOURCES[self.dataset]

    @property
    def folders(self) -> dict[str, str | None]:
        """Flag -> folder of the data set."""
        return {flag: getattr(self, flag) for flag in self.source.flags}

    @property
    def series_name(self) -> str:
        return self.name or self.dataset


class Run(NamedTuple):
    """One run of the chain."""
    setting: str               # of report.published.SETTINGS
    seed: int
    last_stage: str
    seg_net: str = ""          # "": the default; another one trains on the masks of the default's run

    @property
    def stages(self) -> tuple[str, ...]:
        return ("train_deeplab", "eval_deeplab") if self.seg_net else STAGES[:STAGES.index(self.last_stage) + 1]


class RunSeries:
    """The runs that tables and figure need on one data set, each once.

    balanced  on the balanced twin of the generated data set
    runs      each goes as far as any table needs, those of the default segmentation network first
    """

    def __init__(self, choices: Choices, balanced: bool = False):
        self.choices = choices
        self.balanced = balanced
        self.folder = choices.runs_dir / f"{choices.series_name}{'_balanced' * balanced}"
        needed = sorted(self._needed().items(), key=lambda item: item[0][1])
        self.runs = [Run(setting, seed, stage, seg_net) for seed in choices.seeds
                     for (setting, seg_net), stage in needed]

    def _needed(self) -> dict[tuple[str, str], str]:
        """(setting, segmentation network) -> the last stage that any table or the figure needs."""
        needed: dict[tuple[str, str], str] = {}
        for setting, stage, seg_net in self._wanted_scores():
            if setting not in self.choices.settings:
                continue
            known = needed.setdefault((setting, seg_net), stage)
            needed[setting, seg_net] = max(known, stage, key=STAGES.index)
            if seg_net:                                      # it trains on the masks of the default network's run
                needed[setting, ""] = max(needed.get((setting, ""), STAGES[0]), "eval_sem_seg", key=STAGES.index)
        return needed

    def _wanted_scores(self):
        """Yield (setting, stage, segmentation network) of every score that is shown."""
        for number in self.choices.table:
            for row in compared_rows(number):
                yield row.setting, row.stage, row.seg_net
        for setting in figure_settings(self.choices.figure) if self.choices.figure else ():
            yield setting, "make_cam", ""

    # --- folders and commands -------------------------------------------------------------------------------

    def run_folder(self, run: Run) -> Path:
        return self.folder / f"{run.setting}{'_' * bool(run.seg_net)}{run.seg_net}_seed{run.seed}"

    def data_folder(self, seed: int) -> Path:
        """The generated data set of a seed."""
        return self.folder / f"data_seed{seed}"

    def data_command(self, seed: int) -> list[str]:
        """The command that generates the data set of a seed; to be run in ROOT."""
        return [sys.executable, "-m", "data.mini_voc", *self._data_arguments(seed, self.data_folder(seed).resolve())]

    def _data_arguments(self, seed: int, folder: Path) -> list[str]:
        return [str(folder), "--seed", str(seed), *["--balanced"] * self.balanced, *shlex.split(self.choices.mini)]

    def run_command(self, run: Run) -> list[str]:
        jobs = self.choices.jobs
        workers = ["--num_workers", str(default_workers() // jobs)] if jobs > 1 else []
        return [sys.executable, str(ROOT / "run_sample.py"), *self._run_arguments(run, workers)]

    def _run_arguments(self, run: Run, workers: list[str]) -> list[str]:
        """The flags of the setting come last, so that --flags cannot undo them."""
        if self.choices.source.generated:
            data = ["--voc12_root", str(self.data_folder(run.seed)), "--preset", "mini"]
        else:
            data = ["--dataset", self.choices.dataset]
            for flag, path in self.choices.folders.items():
                data += [f"--{flag}", str(path)]
        return [*data, "--work_dir", str(self.run_folder(run)), "--quiet", "--no-report", "--threshold_sweep", *workers,
                *shlex.split(self.choices.flags), "--seed", str(run.seed), *SETTINGS[run.setting],
                *self._stage_arguments(run)]

    def _stage_arguments(self, run: Run) -> list[str]:
        if not run.seg_net:
            return ["--to", run.last_stage]
        masks = self.run_folder(run._replace(seg_net="")) / "sem_seg"
        init = ["--seg_init", self.choices.resnet38_init] if self.choices.resnet38_init else []
        return ["--stages", ",".join(run.stages), "--seg_net", run.seg_net, "--label_dir", str(masks), *init]

    # --- what is complete -----------------------------------------------------------------------------------

    def identity(self, run: Run) -> list[list[str]]:
        """The commands of a run without what changes no result: interpreter, number of processes, last stage."""
        data = [["mini_voc.py", *self._data_arguments(run.seed, self.data_folder(run.seed))]]
        return data * self.choices.source.generated + [
            ["run_sample.py", *self._run_arguments(run._replace(last_stage=""), workers=[])]]

    def is_complete(self, run: Run) -> bool:
        """Whether this very command has finished the run, up to the last stage that is needed or a later one."""
        done = read_json(self.run_folder(run) / "command.json")
        return (bool(done) and done["command"] == self.identity(run)
                and STAGES.index(done["last_stage"]) >= STAGES.index(run.last_stage))

    def forget_other(self, run: Run) -> None:
        """Before a run: another command, whose results it may replace in part, no longer counts as complete there."""
        path = self.run_folder(run) / "command.json"
        if read_json(path).get("command") != self.identity(run):
            path.unlink(missing_ok=True)

    def mark_complete(self, run: Run) -> None:
        done = {"command": self.identity(run), "last_stage": run.last_stage}
        write_text(self.run_folder(run) / "command.json", json.dumps(done, indent=1))

    def missing(self) -> list[Run]:
        return [run for run in self.runs if not self.is_complete(run)]

    def finished(self) -> results.Series:
        """The complete runs, as the series that a table compares."""
        generated = results.BALANCED if self.balanced else results.LONG_TAILED
        return results.Series(generated if self.choices.source.generated else self.choices.dataset,
                              {(run.setting, run.seg_net, run.seed): FinishedRun(self.run_folder(run))
                               for run in self.runs if self.is_complete(run)})

    # --- time -----------------------------------------------------------------------------------------------

    def expected_hours(self, runs: list[Run]) -> list[tuple[float, bool]]:
        """Hours of each run, and whether they come from finished runs, which they do if those took its every stage."""
        seconds, hours = self._mean_seconds(), []
        for run in runs:
            stages = [stage for stage in run.stages if self.with_irn or stage != "train_irn"]
            known = set(stages) <= seconds.keys()
            total = sum(seconds[stage] for stage in stages) / 3600 if known else sum(
                self.choices.source.hours[stage] for stage in stages)
            hours.append((total, known))
        return hours

    @property
    def with_irn(self) -> bool:
        """Whether runs train IRN; on COCO, masks come from the CAMs."""
        kind = KINDS.get(self.choices.dataset)
        flags = shlex.split(self.choices.flags)
        usual = kind.defaults.get("with_irn", True) if kind else True
        return "--with_irn" in flags if "--with_irn" in flags or "--no-with_irn" in flags else usual

    def _mean_seconds(self) -> dict[str, float]:
        """Mean time of each stage in the finished runs of the series."""
        times: dict[str, list[float]] = {}
        for path in self.folder.glob("*/config.json"):
            for stage, seconds in FinishedRun(path.parent).seconds().items():
                times.setdefault(stage, []).append(seconds)
        return {stage: statistics.mean(values) for stage, values in times.items()}
