"""The paper's tables and figures: run what is missing, then print them with our numbers beside.

    python -m tools.reproduce --table 4 --seeds 0,1,2                              # on the generated data set
    python -m tools.reproduce --table 4 --twin --seeds 0,1,2,3,4                   # and on its balanced twin
    python -m tools.reproduce --table all --dataset voc12 --voc12_root VOCdevkit/VOC2012 --dry_run
    python -m tools.reproduce --figure 3 --dataset voc12 --voc12_root VOCdevkit/VOC2012 --ids 2007_000032,2007_000039

Several tables share runs; each runs once, is skipped when complete, and goes on when it was interrupted.
"""

import argparse
import shlex
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])     # the repository, also for python tools/reproduce.py

from paper.data_sources import SOURCES
from report.published import FIGURES, SETTINGS, TABLE_NUMBERS, tables_of
from runtime.command import exit_with_message, flag, positive_int


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.reproduce", description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    what = parser.add_argument_group("what")
    what.add_argument("--table", type=table_numbers, default=(),
                      help="numbers of tables, such as 4,5,6, or all: those that the paper has of the data set")
    what.add_argument("--figure", type=int, choices=sorted(FIGURES), help="draw this comparison of CAMs")
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
    where.add_argument("--dataset", choices=tuple(SOURCES), default="mini", help="mini is generated")
    where.add_argument("--voc12_root", help="data set of --dataset voc12")
    where.add_argument("--coco_root", help="images of --dataset coco14")
    where.add_argument("--coco_prepared", help="what coco14/prepare.py wrote")
    where.add_argument("--mini", default="", help="flags of data.mini_voc, such as '--num_classes 16 --num_train 800'")
    where.add_argument("--flags", default="", help="flags of run_sample.py for every run, such as '--crop_size 96'; "
                                                   "a single word as --flags=--with_irn")
    where.add_argument("--resnet38_init", help="ImageNet weights of the ResNet38 rows of table 2 (--seg_init)")
    where.add_argument("--name", help="name of this series of runs; default: that of the data set")
    where.add_argument("--runs_dir", type=Path, default=Path("runs/reproduce"), help="folder of the runs")
    where.add_argument("--out", type=Path, default=Path("results"), help="folder of the tables and figures")
    where.add_argument("--jobs", type=positive_int, default=1,
                       help="runs at a time; they share the cores, and are spread over the visible GPUs")
    return parser


def table_numbers(text: str) -> tuple[int, ...] | str:
    if text == "all":
        return text
    numbers = tuple(int(part) for part in text.split(","))
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


def main(argv=None) -> None:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.table == "all":
        args.table = tables_of(args.dataset)
    if not args.table and not args.figure:
        parser.error("give --table or --figure")

    def run() -> None:
        # Late, so that --help is quick.
        from paper.reproduce import Reproduction
        from paper.series import Choices
        Reproduction(Choices(**vars(args))).run(shlex.join(["python", "-m", "tools.reproduce", *sys.argv[1:]]))

    exit_with_message(run, "--out")


if __name__ == "__main__":
    main()
