"""Do the paper's Conclusions 1 to 3 hold in a run? Shared features, over- and under-activation against class frequency.

    python -m tools.analyse RUN [--ids_list FILE] [--limit N]                   # writes RUN/analysis/
    python -m tools.analyse runs/reproduce/mini/Base_seed* --out base.md        # and the mean of several runs
"""

import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])     # the repository, also for python tools/analyse.py

from data.sample import write_text
from runtime.command import default_workers, exit_with_message, positive_int, require_place
from runtime.device import AUTO


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", metavar="RUN", nargs="+",
                        help="work directory of a run with sfc.pth and cam/; of several runs, such as seeds, the mean "
                             "is printed too")
    parser.add_argument("--out", metavar="FILE", type=Path, help="Markdown file for the table that is printed last")
    parser.add_argument("--ids_list", metavar="FILE",
                        help="images to score; default: those of the train split with a CAM record")
    parser.add_argument("--train_list", metavar="FILE",
                        help="list the run was trained on; default train_aug of the data set")
    parser.add_argument("--limit", metavar="N", type=positive_int,
                        help="at most N images of each list, evenly spaced")
    parser.add_argument("--num_workers", type=int, default=default_workers(), help="processes (%(default)s)")
    parser.add_argument("--device", default=AUTO, help="torch device (%(default)s)")
    return parser


def main(argv=None) -> None:
    args = build_parser().parse_args(argv)

    def run() -> None:
        # Late, so that --help is quick.
        from paper.analysis import analyse
        from paper.analysis_page import across_runs, summary
        if args.out:
            require_place(args.out, "--out")
        results = []
        for path in args.runs:
            results.append(analyse(path, args.ids_list, args.train_list, args.limit, args.num_workers, args.device))
            print(f"{summary(results[-1])}\ndetails: {Path(path) / 'analysis' / 'analysis.md'}")
        text = across_runs(results) if len(results) > 1 else summary(results[0])
        if len(results) > 1:
            print(f"mean of {len(results)} runs\n{text}")
        if args.out:
            write_text(args.out, f"{text}\n")

    exit_with_message(run, "--out")


if __name__ == "__main__":
    main()
