"""Tables and figures of the paper as commands."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frame.flags import build_parser
from frame.flags import parse as parse_flags
from frame.presets import overrides
from frame.settings import GROUPS
from paper import figures as paper_figures
from paper import reproduce, results
from paper.series import Choices, RunSeries
from report.finished_run import FinishedRun
from report.published import GAINS, SETTINGS, TABLES, tables_of
from tools import reproduce as command

ROOT = Path(__file__).resolve().parents[2]
TINY_DATA = "--num_train 24 --num_val 8 --image_size 64 --num_classes 4 --workers 1"
TINY_RUN = ("--crop_size 64 --resize_long 48,80 --epochs 1 --batch_size 6 --ibr_images 2 --scales 1.0 --no-eval_crf "
            "--num_workers 0 --device cpu")


def planned(*flags) -> RunSeries:
    """The series that the flags ask for."""
    return RunSeries(Choices(**vars(command.build_parser().parse_args(list(map(str, flags))))))


def call(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *map(str, flags)])
    try:
        command.main()
    except SystemExit as stop:
        return stop.code
    return 0


# --- the paper ------------------------------------------------------------------------------------------------

def test_published_numbers_agree_with_each_other():
    by_label = {number: {row.label: row.paper for row in table.rows} for number, table in TABLES.items()}
    assert by_label[1]["CAM"] == by_label[4]["V"] == by_label[5]["V"] == by_label[6]["V"] == 64.7
    for setting, gains in GAINS.items():
        score = {**by_label[4], **by_label[5]}[setting]
        assert gains[0] == pytest.approx(score - by_label[4]["Base"])


@pytest.mark.parametrize("setting, differences", [
    ("Base", {"ibr": False, "dw_p_weight": 0, "dw_w_weight": 0}), ("I", {"dw_p_weight": 0, "dw_w_weight": 0}),
    ("II", {"ibr": False}), ("III", {"dw_w_weight": 0}), ("IV", {"dw_p_weight": 0}), ("V", {}),
    ("VI", {"dc_p": False, "dc_w": False}), ("VII", {"dc_w": False}), ("VIII", {"dc_p": False})])
def test_a_setting_switches_what_the_paper_says(setting, differences):
    parser = build_parser(GROUPS, "")
    full, args = (parse_flags(parser, overrides, [*flags]).values for flags in ((), SETTINGS[setting]))
    assert {name: args[name] for name in args if args[name] != full[name]} == differences


def test_settings_are_named_by_what_is_on():
    assert {setting: results.switched_on(setting) for setting in ("Base", "I", "III", "V", "VII")} == {
        "Base": "none", "I": "IBR", "III": "IBR, L_DW^P", "V": "IBR, L_DW^P, L_DW^W",
        "VII": "IBR, L_DW^P, L_DW^W without DC"}


# --- the plan -------------------------------------------------------------------------------------------------

def test_tables_share_their_runs():
    runs = planned("--table", "4,5,6,7", "--seeds", "0,1").runs
    assert sorted((run.setting, run.seed) for run in runs) == sorted((s, seed) for s in SETTINGS for seed in (0, 1))
    assert {run.last_stage for run in runs} == {"eval_cam"}


def test_chosen_settings_alone():
    runs = planned("--table", "4,5", "--settings", "Base,VI").runs
    assert sorted(run.setting for run in runs) == ["Base", "VI"]


def test_a_run_goes_as_far_as_any_table_needs():
    runs = {(run.setting, run.seg_net): run.last_stage for run in planned("--table", "1,4").runs}
    assert runs["V", ""] == "eval_sem_seg" and runs["Base", ""] == "eval_cam"
    series = planned("--table", "2", "--resnet38_init", "w.pth")
    assert [(run.seg_net, run.last_stage) for run in series.runs] == [
        ("", "eval_deeplab"), ("deeplabv1_resnet38", "eval_deeplab")]
    words = series.run_command(series.runs[1])
    assert words[words.index("--label_dir") + 1].endswith("V_seed0/sem_seg")
    assert words[words.index("--seg_init") + 1] == "w.pth"


def test_flags_cannot_undo_the_setting():
    series = planned("--table", "4", "--flags", "--dw_w_weight 0.5 --seed 9")
    run = next(run for run in series.runs if run.setting == "III")
    words = [word for word in series.run_command(run)[2:] if word not in ("--no-report", "--to", "eval_cam")]
    parsed = parse_flags(build_parser(GROUPS, ""), overrides, words).values
    assert parsed["dw_w_weight"] == 0 and parsed["seed"] == 0


def test_every_table_can_be_planned(monkeypatch, capsys, tmp_path):
    flags = ["--table", "all", "--dry_run", "--runs_dir", tmp_path]
    assert call(monkeypatch, *flags) == 0
    printed = capsys.readouterr().out.splitlines()
    assert sum("run_sample.py" in line for line in printed) == 10 and "10 of 10 runs are missing" in printed[-1]
    voc = ("--dataset", "voc12", "--voc12_root", "V")
    assert call(monkeypatch, "--table", "all", "--dry_run", *voc, "--runs_dir", tmp_path) == 0
    assert "one GPU" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_number_of_processes_makes_no_other_run():
    one, two, other = (planned("--table", "6", *more) for more in ((), ("--jobs", 2), ("--flags", "--epochs 1")))
    run = one.runs[0]
    assert one.identity(run) == two.identity(run) != other.identity(run)


def test_what_is_complete_does_not_depend_on_how_programs_are_started():
    """The commands as command.json of earlier versions holds them."""
    series = planned("--table", "6", "--mini", "--num_train 9", "--flags", "--epochs 1", "--runs_dir", "runs")
    assert series.identity(series.runs[0]) == [
        ["mini_voc.py", "runs/mini/data_seed0", "--seed", "0", "--num_train", "9"],
        ["run_sample.py", "--voc12_root", "runs/mini/data_seed0", "--preset", "mini", "--work_dir", "runs/mini/V_seed0",
         "--quiet", "--no-report", "--threshold_sweep", "--epochs", "1", "--seed", "0", "--to", ""]]
    coco = planned("--table", "3", "--dataset", "coco14", "--coco_root", "C", "--coco_prepared", "P")
    assert coco.identity(coco.runs[0])[0][:7] == ["run_sample.py", "--dataset", "coco14", "--coco_root", "C",
                                                  "--coco_prepared", "P"]


def test_the_data_set_can_be_generated_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    series = planned("--table", "6", "--mini", TINY_DATA, "--runs_dir", "runs")
    assert reproduce.call(series.data_command(0), 1, cwd=ROOT) == ""
    assert (tmp_path / "runs/mini/data_seed0/JPEGImages").is_dir()


def test_hours_come_from_finished_runs_that_took_every_stage(tmp_path):
    series = planned("--table", "4", "--settings", "V", "--runs_dir", tmp_path)
    folder = tmp_path / "mini/IV_seed3"
    folder.mkdir(parents=True)
    times = {"train_sfc": 7200.0, "make_cam": 1800.0}
    for expected in ((pytest.approx(0.03 + 0.01 + 0.006), False), (3.0, True)):            # guessed, then known
        config = {stage: {"settings": {}, "machine": {"seconds": seconds}} for stage, seconds in times.items()}
        (folder / "config.json").write_text(json.dumps(config))
        assert series.expected_hours(series.runs) == [expected]
        times["eval_cam"] = 1800.0


@pytest.mark.parametrize("flags", [
    ("--table", "8"), ("--table", "four"), ("--table", "4", "--settings", "XI"), (),
    ("--table", "4", "--class_sets", "1,2")])
def test_unusable_flags(monkeypatch, flags):
    assert call(monkeypatch, *flags) == 2


def test_a_data_set_needs_its_folder(monkeypatch, capsys, tmp_path):
    assert call(monkeypatch, "--table", "4", "--dataset", "voc12", "--dry_run") == 2
    assert "--voc12_root" in capsys.readouterr().err
    assert call(monkeypatch, "--table", "4", "--dataset", "voc12", "--voc12_root", tmp_path / "absent") == 2
    assert "absent" in capsys.readouterr().err


def test_no_twin_of_real_data(monkeypatch, capsys, mini):
    assert call(monkeypatch, "--table", "4", "--dataset", "voc12", "--voc12_root", mini, "--twin") == 2
    assert "balanced twin" in capsys.readouterr().err


@pytest.mark.parametrize("visible, count, jobs, dealt", [
    (None, 2, 3, ["0", "1", "0"]), ("5,7", 2, 2, ["5", "7"]), (None, 2, 1, [None]), (None, 0, 2, [None, None]),
    ("", 0, 2, [None, None])])
def test_runs_are_spread_over_the_gpus(monkeypatch, visible, count, jobs, dealt):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(reproduce.torch.cuda, "device_count", lambda: count)
    free = reproduce.shared_gpus(jobs)
    assert [free.get() for _ in range(jobs)] == dealt and free.empty()


def test_a_run_sees_its_gpu_alone():
    see = "import os, sys; sys.exit(os.environ['CUDA_VISIBLE_DEVICES'])"
    assert reproduce.call([sys.executable, "-c", see], 2, gpu="5") == "5"


def test_tables_of_a_data_set():
    assert tables_of("voc12") == (1, 2, 4, 5, 6, 7) and tables_of("coco14") == (3,)
    assert tables_of("mini") == (1, 2, 3, 4, 5, 6, 7)


def test_another_command_in_a_run_folder_makes_the_one_before_incomplete(tmp_path):
    series, other = (planned("--table", "6", "--runs_dir", tmp_path, "--flags", flags) for flags in ("", "--epochs 1"))
    run = series.runs[0]
    series.run_folder(run).mkdir(parents=True)
    series.mark_complete(run)
    series.forget_other(run)
    assert series.is_complete(run)
    other.forget_other(run)                                              # and is interrupted
    assert not series.is_complete(run)


def test_hours_without_irn(tmp_path):
    coco = planned("--table", "3", "--dataset", "coco14", "--coco_root", "C", "--coco_prepared", "P")
    with_irn = planned("--table", "3", "--dataset", "coco14", "--coco_root", "C", "--coco_prepared", "P",
                       "--flags=--with_irn")
    (hours, _), (more, _) = (series.expected_hours(series.runs)[0] for series in (coco, with_irn))
    assert more - hours == pytest.approx(coco.choices.source.hours["train_irn"])


# --- from the command to the files ----------------------------------------------------------------------------

@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Flags of a small series of which table 6 and figure 3 were made."""
    folder = tmp_path_factory.mktemp("reproduce")
    flags = ["--runs_dir", folder / "runs", "--out", folder / "out", "--mini", TINY_DATA, "--flags", TINY_RUN]
    with pytest.MonkeyPatch.context() as patch:
        assert call(patch, "--table", "6", "--figure", "3", *flags) == 0
    return folder, flags


def test_table_and_figure_are_written(finished):
    folder, _ = finished
    text = (folder / "out/mini_table6.md").read_text()
    assert text.count("(1)") == 9 and "train (24 images)" in text              # three rows in three variants
    with Image.open(folder / "out/mini_figure3.png") as picture:
        assert np.asarray(picture).std() > 10
    assert {path.name for path in (folder / "runs/mini").iterdir()} == {"data_seed0", "Base_seed0", "V_seed0"}


def test_a_figure_names_its_columns_and_classes(finished):
    folder, _ = finished
    runs = {setting: FinishedRun(folder / f"runs/mini/{setting}_seed0") for setting in ("Base", "V")}
    axes = paper_figures.draw(3, runs, []).axes
    assert [a.get_title() for a in axes[:5]] == ["image", "$M_W$", "$M_P$", "$M_{final}$ of SFC", "ground truth"]
    counts = runs["Base"].class_counts
    assert axes[0].get_ylabel() == f"{(head := max(counts, key=counts.get))} ({counts[head]})"


def test_complete_runs_are_not_run_again(finished, monkeypatch, capsys):
    _, flags = finished
    monkeypatch.setattr(reproduce, "call", lambda *_: pytest.fail("ran again"))
    assert call(monkeypatch, "--table", "6", *flags, "--jobs", "2") == 0
    assert call(monkeypatch, "--table", "6", "--dry_run", *flags) == 0
    assert "0 of 1 runs are missing" in capsys.readouterr().out


def test_a_failed_run_is_named(finished, monkeypatch, capsys):
    _, flags = finished
    flags = [*flags[:-1], TINY_RUN + " --epochs 2"]                            # other settings on the same folders
    assert call(monkeypatch, "--table", "6", *flags) == 2
    message = capsys.readouterr().err
    assert "V_seed0" in message and "--sfc_epochs: was 1, is 2" in message and "--overwrite" in message


def test_figure_of_an_unknown_image(finished, monkeypatch, capsys):
    _, flags = finished
    assert call(monkeypatch, "--figure", "3", "--ids", "nobody", *flags) == 2
    assert "nobody" in capsys.readouterr().err


def test_a_signal_says_how_to_go_on(finished, tmp_path):
    """The running chain is told too, and the message names the module as it was started."""
    _, flags = finished
    flags = ["--table", "6", *map(str, flags), "--runs_dir", str(tmp_path / "runs")]
    process = subprocess.Popen([sys.executable, "-m", "tools.reproduce", *flags], cwd=ROOT, stderr=subprocess.PIPE,
                               text=True)
    while not list(tmp_path.glob("runs/mini/V_seed0/config.json")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert "to go on:\n  python -m tools.reproduce --table 6" in errors
    assert not (tmp_path / "runs/mini/V_seed0/command.json").exists()
