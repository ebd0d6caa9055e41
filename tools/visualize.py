"""Write one PNG an image: what every stage made of it. See report/pictures.py."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])     # the repository, also for python tools/visualize.py

from report.pictures import main  # noqa: E402

if __name__ == "__main__":
    main()
