"""The paper's tables and figures: run what is missing, then print them with our numbers beside.

    python -m tools.reproduce --table 4 --seeds 0,1,2                              # on the generated data set
    python -m tools.reproduce --table 4 --twin --seeds 0,1,2,3,4                   # and on its balanced twin
    python -m tools.reproduce --table all --dataset voc12 --voc12_root VOCdevkit/VOC2012 --dry_run
    python -m tools.reproduce --figure 3 --dataset voc12 --voc12_root VOCdevkit/VOC2012 --ids 2007_000032,2007_000039

Several tables share runs; each runs once, is skipped when complete, and goes on when it was interrupted.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from data.sample import InputError, write_atomically
from frame.chain import STAGES
from frame.data_sets import open_data_set
from frame.flags import Flags
from frame.settings.common import Data
from paper import figures as paper_figures
from paper import results
from report.finished_run import FinishedRun
from report.published import SETTINGS, TABLE_NUMBERS, compared_rows
from runtime import interrupt
from runtime.command import default_workers, exit_with_message, flag, positive_int
from runtime.progress import progress
from runtime.work_dir import read_json

ROOT = Path(__file__).resolve().parents[1]
# Hours of each stage on one GPU, and GB of a run, before any run has finished: training at the release's 20 images/s,
# the other stages by their operations relative to it. Rough, not measured. The generated set: two CPU cores.
GUESSED_HOURS = {
    "mini": {"train_sfc": 0.03, "make_cam": 0.01, "eval_cam": 0.006, "cam_to_ir_label": 0.006, "train_irn": 0.013,
             "make_sem_seg_labels": 0.008, "eval_sem_seg": 0.001, "train_deeplab": 0.03, "eval_deeplab": 0.01},
    "voc12": {"train_sfc": 1.1, "make_cam": 0.5, "eval_cam": 0.05, "cam_to_ir_label": 0.2, "train_irn": 0.5,
              "make_sem_seg_labels": 0.3, "eval_sem_seg": 0.01, "train_deeplab": 4.0, "eval_deeplab": 0.2},
    "coco14": {"train_sfc": 8.5, "make_cam": 4.0, "eval_cam": 0.4, "cam_to_ir_label": 1.5, "train_irn": 4.0,
               "make_sem_seg_labels": 2.0, "eval_sem_seg": 0.1, "train_deeplab": 20.0, "eval_deeplab": 5.0},
}
GUESSED_GB = {"mini": 0.03, "voc12": 0.9, "coco14": 3.0}
ROOT_FLAGS = {"mini": (), "voc12": ("voc12_root",), "coco14": ("coco_root", "coco_prepared")}


class Run(NamedTuple):
    """One run of the chain."""
    setting: str               # of paper_tables.SETTINGS
    seed: int
    balanced: bool             # on the balanced twin of the generated data set
    last_stage: str
    seg_net: str = ""          # "": the default; another one trains on the masks of the default's run


def main(argv=None) -> None:
    args = build_parser().parse_args(argv)
    if not args.table and not args.figure:
        build_parser().error("give --table or --figure")
    exit_with_message(lambda: reproduce(args))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.reproduce", description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    what = parser.add_argument_group("what")
    what.add_argument("--table", type=table_numbers, default=(), help="numbers of tables, such as 4,5,6, or all")
    what.add_argument("--figure", type=int, choices=sorted(paper_figures.COLUMNS), help="draw this comparison of CAMs")
    what.add_argument("--ids", help="comma-separated images of the figure; default: the first ones that show a single "
                                    "class, of the two most frequent and the two rarest classes")
    what.add_argument("--settings", type=setting_names, default=tuple(SETTINGS),
                      help="comma-separated settings to run; rows of others stay empty")
    what.add_argument("--seeds", type=seed_list, default=(0,), help="comma-separated seeds; on the generated data set "
                      "a seed also permutes which class is how frequent, and draws new images")
    flag(what, "twin", False, "mini: the same on a balanced data set; what the long tail does is the difference")
    what.add_argument("--class_sets", type=thresholds,
                      help="table 7: MANY,FEW - classes in more than MANY training images are many, in fewer than FEW "
                           "few; default: thirds of the classes")
    flag(what, "dry_run", False, "list commands, time and disk, and run nothing")
    where = parser.add_argument_group("data and runs")
    where.add_argument("--dataset", choices=("mini", "voc12", "coco14"), default="mini", help="mini is generated")
    where.add_argument("--voc12_root", help="data set of --dataset voc12")
    where.add_argument("--coco_root", help="images of --dataset coco14")
    where.add_argument("--coco_prepared", help="what coco14/prepare.py wrote")
    where.add_argument("--mini", default="", help="flags of data.mini_voc, such as '--num_classes 16 --num_train 800'")
    where.add_argument("--flags", default="", help="flags of run_sample.py for every run, such as '--crop_size 96'")
    where.add_argument("--resnet38_init", help="ImageNet weights of the ResNet38 rows of table 2 (--seg_init)")
    where.add_argument("--name", help="name of this series of runs; default: that of the data set")
    where.add_argument("--runs_dir", type=Path, default=Path("runs/reproduce"), help="folder of the runs")
    where.add_argument("--out", type=Path, default=Path("docs/RESULTS"), help="folder of the tables and figures")
    where.add_argument("--jobs", type=positive_int, default=1, help="runs at a time; they share the cores")
    return parser


def table_numbers(text: str) -> tuple[int, ...]:
    numbers = TABLE_NUMBERS if text == "all" else tuple(int(part) for part in text.split(","))
    if not set(numbers) <= set(TABLE_NUMBERS):
        raise argparse.ArgumentTypeError(f"{text}: the paper has tables {TABLE_NUMBERS[0]} to {TABLE_NUMBERS[-1]}")
    return numbers


def seed_list(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(int(part) for part in text.split(",")))


def setting_names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not set(names) <= set(SETTINGS):
        raise argparse.ArgumentTypeError(f"{text}: the paper has settings {', '.join(SETTINGS)}")
    return names


def thresholds(text: str) -> tuple[int, int]:
    many, few = (int(part) for part in text.split(","))
    if many < few:
        raise argparse.ArgumentTypeError(f"{text}: MANY must be at least FEW")
    return many, few


def reproduce(args) -> None:
    """Do what the flags ask for. Raises InputError when the data set is missing or a run failed."""
    check_data_set(args)
    runs = plan(args)
    if args.dry_run:
        print_plan(args, runs)
        return
    failures = run_all(args, runs)
    for number in args.table:
        for path in results.write_table(number, collect(args, runs), args.out, args.name or args.dataset,
                                        shlex.join(["python", "-m", "tools.reproduce", *sys.argv[1:]]), args.class_sets):
            print(path)
    if args.figure and not failures:
        print(draw_figure(args))
    if failures:
        raise InputError("these runs failed; the same command tries them again:\n" + "\n".join(failures))


def collect(args, runs: list[Run]) -> list[results.Series]:
    """What the complete runs wrote, as the series that the tables compare."""
    series = []
    for balanced in (False, True) if args.twin else (False,):
        data = args.dataset if args.dataset != "mini" else results.BALANCED if balanced else results.LONG_TAILED
        outcomes = {(run.setting, run.seg_net, run.seed): results.read_outcome(run_folder(args, run))
                    for run in runs if run.balanced == balanced and is_complete(args, run)}
        series.append(results.Series(data, outcomes))
    return series


def draw_figure(args) -> Path:
    """The figure from the runs of the first seed."""
    runs = {setting: FinishedRun(run_folder(args, Run(setting, args.seeds[0], False, "make_cam")))
            for setting in paper_figures.settings_of(args.figure)}
    ids = args.ids.split(",") if args.ids else []
    return paper_figures.write_figure(args.figure, runs, ids, args.out / f"{args.name or args.dataset}_figure{args.figure}.png")


def check_data_set(args) -> None:
    if args.twin and args.dataset != "mini":
        raise InputError("--twin: only the generated data set has a balanced twin; leave it out, or --dataset mini")
    for name in ROOT_FLAGS[args.dataset]:
        if getattr(args, name) is None:
            raise InputError(f"--dataset {args.dataset} needs --{name}")
    if args.dataset != "mini" and not args.dry_run:
        open_data_set(run_arguments(args)[Data])


def run_arguments(args) -> Flags:
    """The flags that name the data set, as run_sample.py's."""
    return Flags({name: getattr(args, name) for name in ("dataset", *ROOT_FLAGS[args.dataset])})


# --- the plan -------------------------------------------------------------------------------------------------

def plan(args) -> list[Run]:
    """The runs that the tables and the figure need, each once, with the last stage that any of them needs."""
    needed = {}
    for setting, stage, seg_net in wanted_scores(args):
        if setting not in args.settings:
            continue
        known = needed.setdefault((setting, seg_net), stage)
        needed[setting, seg_net] = max(known, stage, key=STAGES.index)
        if seg_net:                                          # it trains on the masks of the default network's run
            needed[setting, ""] = max(needed.get((setting, ""), "train_sfc"), "eval_sem_seg", key=STAGES.index)
    return [Run(setting, seed, balanced, stage, seg_net) for balanced in ((False, True) if args.twin else (False,))
            for seed in args.seeds for (setting, seg_net), stage in sorted(needed.items(), key=lambda item: item[0][1])]


def wanted_scores(args):
    """Yield (setting, stage, segmentation network) of every score that is shown."""
    for number in args.table:
        for row in compared_rows(number):
            yield row.setting, row.stage, row.seg_net
    for setting in paper_figures.settings_of(args.figure) if args.figure else ():
        yield setting, "make_cam", ""


def series_folder(args, balanced: bool) -> Path:
    return args.runs_dir / f"{args.name or args.dataset}{'_balanced' * balanced}"


def run_folder(args, run: Run) -> Path:
    return series_folder(args, run.balanced) / f"{run.setting}{'_' * bool(run.seg_net)}{run.seg_net}_seed{run.seed}"


def data_folder(args, run: Run) -> Path:
    """The generated data set of a run."""
    return series_folder(args, run.balanced) / f"data_seed{run.seed}"


def data_command(args, run: Run) -> list[str]:
    """The command that generates the data set of a run."""
    return [sys.executable, str(ROOT / "data/mini_voc.py"), str(data_folder(args, run)), "--seed", str(run.seed),
            *["--balanced"] * run.balanced, *shlex.split(args.mini)]


def run_command(args, run: Run) -> list[str]:
    """The command of a run. The flags of the setting come last, so that --flags cannot undo them."""
    if args.dataset == "mini":
        data = ["--voc12_root", str(data_folder(args, run)), "--preset", "mini"]
    else:
        data = ["--dataset", args.dataset, *(word for name in ROOT_FLAGS[args.dataset] for word in (f"--{name}", getattr(args, name)))]
    workers = ["--num_workers", str(default_workers() // args.jobs)] if args.jobs > 1 else []
    return [sys.executable, str(ROOT / "run_sample.py"), *data, "--work_dir", str(run_folder(args, run)), "--quiet",
            "--no-report", "--threshold_sweep", *workers, *shlex.split(args.flags), "--seed", str(run.seed),
            *SETTINGS[run.setting], *stage_flags(args, run)]


def stage_flags(args, run: Run) -> list[str]:
    if not run.seg_net:
        return ["--to", run.last_stage]
    masks = run_folder(args, run._replace(seg_net="")) / "sem_seg"
    init = ["--seg_init", args.resnet38_init] if args.resnet38_init else []
    return ["--stages", "train_deeplab,eval_deeplab", "--seg_net", run.seg_net, "--label_dir", str(masks), *init]


def stages_of(run: Run) -> tuple[str, ...]:
    return ("train_deeplab", "eval_deeplab") if run.seg_net else STAGES[:STAGES.index(run.last_stage) + 1]


def is_complete(args, run: Run) -> bool:
    """Whether this very command has finished the run, up to the last stage that is needed or a later one."""
    done = read_json(run_folder(args, run) / "command.json")
    return bool(done) and done["command"] == identity(args, run) and STAGES.index(done["last_stage"]) >= STAGES.index(run.last_stage)


def identity(args, run: Run) -> list[list[str]]:
    """The commands of a run without what changes no result: interpreter, number of processes, last stage."""
    plain = argparse.Namespace(**vars(args) | {"jobs": 1})
    commands = [data_command(plain, run)] if args.dataset == "mini" else []
    return [[Path(command[1]).name, *command[2:]] for command in [*commands, run_command(plain, run._replace(last_stage=""))]]


def print_plan(args, runs: list[Run]) -> None:
    """Commands, time and disk of what is still to run."""
    missing = [run for run in runs if not is_complete(args, run)]
    data = [data_command(args, run) for run in missing] if args.dataset == "mini" else []
    for command in unique(data) + [run_command(args, run) for run in missing]:
        print(shlex.join(command))
    seconds = {balanced: mean_seconds(args, balanced) for balanced in (False, True)}
    hours = [expected_hours(args, run, seconds[run.balanced]) for run in missing]
    measured = sum(known for _, known in hours)
    guess = "two CPU cores" if args.dataset == "mini" else "one GPU and the full data set"
    print(f"# {len(missing)} of {len(runs)} runs are missing: about {sum(time for time, _ in hours) / args.jobs:.2g} hours "
          f"({measured} runs by the times of finished ones, {len(missing) - measured} guessed for {guess}), "
          f"{len(missing) * GUESSED_GB[args.dataset]:.2g} GB")


def mean_seconds(args, balanced: bool) -> dict[str, float]:
    """Mean time of each stage in the finished runs of the series."""
    times = {}
    for path in series_folder(args, balanced).glob("*/config.json"):
        for stage, entry in read_json(path).items():
            if "seconds" in entry["machine"]:
                times.setdefault(stage, []).append(entry["machine"]["seconds"])
    return {stage: statistics.mean(values) for stage, values in times.items()}


def expected_hours(args, run: Run, seconds: dict[str, float]) -> tuple[float, bool]:
    """Hours of a run, and whether they come from finished runs, which they do if those took every stage of it."""
    stages = stages_of(run)
    if all(stage in seconds for stage in stages):
        return sum(seconds[stage] for stage in stages) / 3600, True
    return sum(GUESSED_HOURS[args.dataset][stage] for stage in stages), False


# --- running --------------------------------------------------------------------------------------------------

def run_all(args, runs: list[Run]) -> list[str]:
    """Run what is missing, `args.jobs` at a time; a line for every run that failed."""
    missing = [run for run in runs if not is_complete(args, run)]
    failures = []
    if args.dataset == "mini":
        failures = [problem for command in unique(data_command(args, run) for run in missing) if (problem := call(command, 1))]
    # A network that trains on the masks of another run waits for it.
    for group in ([run for run in missing if not run.seg_net], [run for run in missing if run.seg_net]):
        if failures or not group:
            break
        with ThreadPoolExecutor(args.jobs) as pool, progress(total=len(group), desc="runs", unit="run") as bar:
            for problem in pool.map(lambda run: run_one(args, run), group):
                failures += [problem] if problem else []
                bar.update()
                interrupt.check()
    return failures


def unique(commands) -> list[list[str]]:
    return [list(command) for command in dict.fromkeys(tuple(command) for command in commands)]


def run_one(args, run: Run) -> str:
    """Run the chain and note the command that did it; "" or what went wrong."""
    problem = call(run_command(args, run), args.jobs)
    if not problem and not interrupt.requested():
        done = {"command": identity(args, run), "last_stage": run.last_stage}
        write_atomically(run_folder(args, run) / "command.json", lambda file: file.write(json.dumps(done, indent=1).encode()))
    return f"{run_folder(args, run)}: {problem}" if problem else ""


def call(command: list[str], jobs: int) -> str:
    """Run a command with its share of the cores; "" or why it failed. A signal is handed on to it."""
    if interrupt.requested():
        return ""
    threads = {"OMP_NUM_THREADS": str(max(1, default_workers() // jobs)), "OMP_WAIT_POLICY": "passive"}
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(command, env=os.environ | threads, stdout=subprocess.DEVNULL, stderr=errors,
                                 start_new_session=True)
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
