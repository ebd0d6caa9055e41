"""How the commands are started."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SLOW = {"matplotlib", "jinja2", "tensorboard", "scipy", "torchvision"}            # seconds that --help must not cost


@pytest.mark.parametrize("name", ["analyse", "export", "predict", "report", "reproduce", "visualize"])
def test_help_is_quick_and_works_from_any_folder(name, tmp_path):
    done = subprocess.run([sys.executable, "-X", "importtime", str(ROOT / f"tools/{name}.py"), "--help"], cwd=tmp_path,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "usage:" in done.stdout
    imported = set(re.findall(r"\|\s+(\w+)$", done.stderr, re.MULTILINE))
    assert "torch" in imported and imported & SLOW == set()
