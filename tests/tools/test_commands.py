"""How the commands are started."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import call
from tools import analyse, export, predict, report

ROOT = Path(__file__).resolve().parents[2]
SLOW = {"matplotlib", "jinja2", "tensorboard", "scipy", "torchvision"}            # seconds that --help must not cost


@pytest.mark.parametrize("name", ["analyse", "export", "predict", "report", "reproduce", "visualize"])
def test_help_is_quick_and_works_from_any_folder(name, tmp_path):
    done = subprocess.run([sys.executable, "-X", "importtime", str(ROOT / f"tools/{name}.py"), "--help"], cwd=tmp_path,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "usage:" in done.stdout
    imported = set(re.findall(r"\|\s+(\w+)$", done.stderr, re.MULTILINE))
    assert "torch" in imported and imported & SLOW == set()


def refusal(action, capsys):
    """What a command says that is refused."""
    with pytest.raises(SystemExit) as stop:
        action()
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("error: ") == 1
    return error


@pytest.mark.parametrize("main, flags", [
    (report.main, ["run", "run", "--out"]), (analyse.main, ["run", "--out"]), (export.main, ["run", "--coco"])])
def test_a_file_that_cannot_be_written_is_said_before_the_work(main, flags, tmp_path, capsys):
    """Before the run is even looked at, which is not there either."""
    gone, flag = tmp_path / "nope", flags[-1]
    for path, message in ((gone / "x", f"there is no folder {gone}; make it, or choose another {flag}"),
                          (tmp_path, f"{tmp_path}: a folder, but {flag} names a file")):
        assert message in refusal(lambda path=path: main([*flags, str(path)]), capsys)


@pytest.mark.parametrize("stage, flags", [
    ("run_sample", ["--check", "--check_json"]), ("eval_deeplab", ["--split", "test", "--zip"])])
def test_files_beside_a_run_too(stage, flags, tmp_path, capsys):
    assert call(stage, "--work_dir", tmp_path / "run", *flags, tmp_path / "nope/x") == 2
    assert f"no folder {tmp_path / 'nope'}; make it, or choose another {flags[-1]}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("main, flags", [(report.main, []), (predict.main, ["--images", "photos"])])
def test_a_file_instead_of_a_run(main, flags, tmp_path, capsys):
    (tmp_path / "sfc.pth").write_bytes(b"")
    assert "sfc.pth/config.json: missing; name the work directory of a run" in refusal(
        lambda: main([str(tmp_path / "sfc.pth"), *flags]), capsys)
