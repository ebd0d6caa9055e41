"""Write RUN/report.html, or the comparison of several runs.

    python -m tools.report runs/sfc                            # writes runs/sfc/report.html
    python -m tools.report runs/sfc runs/no_ibr --out a.html   # compares further runs with the first
"""

import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])     # the repository, also for python tools/report.py

from runtime.command import exit_with_message, require_place


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", metavar="RUN", nargs="+", help="work directory; others are compared with the first")
    parser.add_argument("--out", metavar="FILE", default="comparison.html", help="file of the comparison (%(default)s)")
    args = parser.parse_args(argv)

    def write() -> None:
        # Late, so that --help and the refusal of a folder without a run are quick.
        from report.finished_run import FinishedRun
        if len(args.runs) > 1:
            require_place(args.out, "--out")
        for path in args.runs:
            FinishedRun(path)
        from report.page import write_comparison, write_report
        print(write_report(args.runs[0]) if len(args.runs) == 1 else write_comparison(args.runs, args.out))

    exit_with_message(write, "--out")


if __name__ == "__main__":
    main()
