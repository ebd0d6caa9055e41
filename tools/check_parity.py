"""Recompute every quantity of the reference vectors and compare. See parity/check.py."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])     # the repository, also for python tools/check_parity.py

from parity.check import main

if __name__ == "__main__":
    sys.exit(main())
