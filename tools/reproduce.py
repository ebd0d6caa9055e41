"""The paper's tables and figures: run what is missing, then print them with our numbers beside. See paper/reproduce.py."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])     # the repository, also for python tools/reproduce.py

from paper.reproduce import main  # noqa: E402

if __name__ == "__main__":
    main()
