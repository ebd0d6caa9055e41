"""Do the paper's Conclusions 1 to 3 hold in a run? See paper/analysis.py."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])     # the repository, also for python tools/analyse.py

from paper.analysis import main  # noqa: E402

if __name__ == "__main__":
    main()
