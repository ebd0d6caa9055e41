"""Write RUN/report.html, or the comparison of several runs. See report/page.py."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])     # the repository, also for python tools/report.py

from report.page import main  # noqa: E402

if __name__ == "__main__":
    main()
