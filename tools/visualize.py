"""Write one PNG an image: what every stage made of it.

    python -m tools.visualize RUN --ids 2007_000032,2007_000039 [--out DIR]
"""

import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])     # the repository, also for python tools/visualize.py

from runtime.command import exit_with_message, name_list


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", metavar="RUN", help="work directory of a run")
    parser.add_argument("--ids", type=name_list, required=True, help="comma-separated image ids")
    parser.add_argument("--out", metavar="DIR", help="folder to write; default: RUN/pictures")
    args = parser.parse_args(argv)

    def write() -> None:
        # Late, so that --help is quick.
        from report.finished_run import FinishedRun
        from report.pictures import write_strips
        for path in write_strips(FinishedRun(args.run), args.ids, args.out):
            print(path)

    exit_with_message(write, "--out")


if __name__ == "__main__":
    main()
