import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from parity import mutations
from parity.check import CHECKERS, check_file, files_by_kind, kind_of, main
from parity.mutations import WRONGS
from parity.mutations.run import try_all
from parity.report import Report
from parity.samples import Replay
from parity.vectors import Vectors
from tests.helpers import GOLDEN, ROOT

ELSEWHERE = {"irn", "deeplabv2", "resnet38"}                      # tests/net runs them


@pytest.mark.parametrize("name", sorted({path.stem for path in GOLDEN.glob("*.npz")} - ELSEWHERE))
def test_reference_vectors(name, capsys):
    report = Report()
    check_file(GOLDEN / f"{name}.npz", report)
    assert report.rows and report.failed == [] and report.unchecked == []


def test_every_kind_has_a_file():
    assert {path.stem for path in GOLDEN.glob("*.npz")} == set(CHECKERS)


def test_the_longest_prefix_names_the_checker():
    assert kind_of(Path("a/cam_inference_seeded_2.npz")) == "cam_inference_seeded"
    assert kind_of(Path("irn_labels.npz")) == "irn_labels" and kind_of(Path("irn_b.npz")) == "irn"
    assert kind_of(Path("sfc_train_classes7.npz")) == "sfc_train" and kind_of(Path("foreign.npz")) is None


def command(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["check_parity.py", *map(str, arguments)])
    try:
        return main()
    except SystemExit as stop:
        return stop.code


def test_a_changed_number_fails(tmp_path, monkeypatch, capsys):
    arrays = dict(np.load(GOLDEN / "random_walk.npz"))
    arrays["rw_beta10_exp4"][0, 0, 3, 3] += 0.01
    np.savez(tmp_path / "random_walk_changed.npz", **arrays)
    assert command(monkeypatch, tmp_path) == 1
    assert capsys.readouterr().out.strip().endswith("3 quantities, 1 failed")


def test_what_cannot_be_computed_is_a_failed_row(tmp_path, monkeypatch, capsys):
    """A missing array or a draw that cannot be stops one case, not the others."""
    arrays = dict(np.load(GOLDEN / "augment.npz"))
    arrays["0_y0"] = np.array(1000)
    del arrays["1_box"]
    arrays["news"] = np.array(1)
    np.savez(tmp_path / "augment.npz", **arrays)
    assert command(monkeypatch, tmp_path) == 1
    said = capsys.readouterr().out
    assert "0_crop" in said and "recorded draw 1000 is not in [0, 1)" in said and "KeyError" in said
    assert "9_valid_mask" in said and "news" in said and "not checked" in said


def test_folders_without_vectors(tmp_path, monkeypatch, capsys):
    assert command(monkeypatch, tmp_path) == 2 and "no reference vectors" in capsys.readouterr().err
    assert command(monkeypatch, tmp_path / "absent") == 2 and "no such folder" in capsys.readouterr().err


def test_runs_as_a_script_and_as_a_module():
    for start in (["tools/check_parity.py"], ["-m", "tools.check_parity"]):
        done = subprocess.run([sys.executable, *start, "--help"], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "DIR" in done.stdout and "--mutations" in done.stdout


def test_rows_of_zeros_say_so(capsys):
    Report().close("zeros", np.zeros(3), np.zeros(3))
    assert "0 everywhere" in capsys.readouterr().out


def test_replayed_draws():
    draws = Replay([3, 7], scale=0.75, flip=True)
    assert draws.integers(4) == 3 and draws.integers(5, 8) == 7
    assert draws.uniform(0.5, 1) == 0.75 and draws.random() < 0.5
    with pytest.raises(ValueError, match="recorded draw 3"):
        Replay([3]).integers(3)


def test_vectors_remember_what_was_read():
    vectors = Vectors(GOLDEN / "random_walk.npz")
    vectors["cam"]
    vectors.ignore("edge", "a reason")
    assert vectors.unread == set(vectors.names) - {"cam", "edge"} and vectors.ignored == {"edge": "a reason"}


# --- mutations ----------------------------------------------------------------------------------------------------

# The whole list takes minutes (python -m tools.check_parity --mutations tests/golden): here, what is quick, and a few
# of each slow kind.
QUICK = {"pseudo_mask", "random_walk", "augment", "image_bank", "optimizer", "chainercv_confusion"}
SLOW = {"seed factor 0.35", "PCM applied once", "L_DW^P: M_P detached", "L_DW^W without the label",
        "label-CRF: -1 iterations", "second label-CRF left out", "DeepLab crop: sizes rounded",
        "IRN: unknown pixels are background"}


def test_mutations_are_noticed(capsys):
    wrongs = [wrong for wrong in WRONGS if wrong.name in SLOW or {check.file for check in wrong.checks} <= QUICK]
    rows = try_all(wrongs, files_by_kind(list(GOLDEN.glob("*.npz"))))
    assert len(rows) > 40 and {wrong.name for wrong in wrongs} >= SLOW
    assert [row.wrong.name for row in rows if not row.noticed] == ["L_DW^W without the label"]
    assert all(row.ok for row in rows)
    # Everything is as it was: the vectors pass again.
    report = Report(show=False)
    for name in ("optimizer", "augment", "pseudo_mask", "image_bank"):
        check_file(GOLDEN / f"{name}.npz", report)
    assert report.failed == []


def test_names_of_mutations_are_their_own():
    assert len(WRONGS) >= 40 and len({wrong.name for wrong in WRONGS}) == len(WRONGS)


def test_an_unnoticed_wrong_fails_the_command(monkeypatch, capsys):
    harmless = WRONGS[-1]._replace(name="harmless", patch=nullcontext)
    optimizer = next(wrong for wrong in WRONGS if wrong.name == "SGD: momentum 0")
    monkeypatch.setattr(mutations, "WRONGS", [optimizer])
    assert command(monkeypatch, "--mutations", GOLDEN) == 0
    monkeypatch.setattr(mutations, "WRONGS", [optimizer, harmless._replace(checks=optimizer.checks)])
    assert command(monkeypatch, "--mutations", GOLDEN) == 1
    assert "harmless" in (said := capsys.readouterr().out) and "NO ROW" in said and "1 unnoticed" in said
