"""Tables and figures of the paper as commands."""

import csv
import json
import re
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
from paper.results import Series
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


# --- numbers --------------------------------------------------------------------------------------------------

def write_run(path: Path, classes: dict[str, float], final: float = 0, counts=(90, 10, 20)) -> FinishedRun:
    """A run whose M_W has the given class IoUs (plain: half of them) and whose M_final is `final` higher in each."""
    iou = {"background": 80.0, **classes}
    shifted = {name: value + final for name, value in iou.items()}
    halved = {name: value / 2 for name, value in iou.items()}
    scores = {name: {"miou": sum(values.values()) / len(values), "class_iou": values, "class_area_ratio": {}}
              for name, values in (("weight_cam +step", iou), ("final_cam 1 +step", shifted), ("weight_cam", halved))}
    machine = {"hardware": "cpu", "torch": "2", "finished": "2026-01-02 00:00:00"}
    metrics = {"train_sfc": {"class_counts": list(counts)},
               "eval_cam": {"split": "train (9 images)", "scores": scores}}
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"eval_cam": {"settings": {}, "machine": machine}}))
    (path / "metrics.json").write_text(json.dumps(metrics))
    return FinishedRun(path)


def test_mean_and_spread():
    assert results.spread([]) == "-" and results.spread([3.0]) == "3.0 (1)"
    assert results.spread([1.0, 3.0]) == "2.0 ± 1.4 (2)"                       # sample standard deviation: sqrt 2


def text_of(path) -> str:
    """A Markdown file without the spaces that align its tables."""
    return re.sub(" +", " ", path.read_text())


def make_series(folder, data, gain):
    """Two seeds; Base has 40, 50, 60; the others' M_final is `gain` higher in seed 0 and twice that in seed 1."""
    base = {"a": 40.0, "b": 50.0, "c": 60.0}
    return Series(data, {
        (setting, "", seed): write_run(folder / data / f"{setting}{seed}", base, of_setting * (seed + 1))
        for setting, of_setting in (("Base", 0), ("V", gain), ("VI", gain)) for seed in (0, 1)})


def test_tables_hold_the_runs_numbers(tmp_path, capsys):
    paths = results.write_table(4, [make_series(tmp_path, "mini", 4.0)], tmp_path, "x", "the command")
    text = text_of(paths[0])
    assert "| row | on | scored | paper | mini, scored as the paper | mini, plain |" in text
    assert "| Base | none | weight_cam +step | 55.1 | 57.5 ± 0.0 (2) | 28.8 ± 0.0 (2) |" in text
    assert "| V | IBR, L_DW^P, L_DW^W | final_cam 1 +step | 64.7 | 63.5 ± 2.8 (2) | - |" in text         # 61.5 and 65.5
    assert "| I | IBR | weight_cam +step | 55.9 | - | - |" in text                                      # not run
    assert "train (9 images)" in text and "2026-01-02" in text and "`the command`" in text
    with open(paths[1], newline="") as file:
        rows = list(csv.DictReader(file))
    line = next(row for row in rows if row["row"] == "V" and row["quantity"] == "scored as the paper")
    assert (line["map"], line["mean"], line["seeds"], line["values"]) == (
        "final_cam 1 +step", "63.5", "2", "0:61.500 1:65.500")
    assert [(row["map"], row["mean"]) for row in rows if row["row"] == "Base" and row["quantity"] == "plain"] == [
        ("weight_cam", "28.75")]


def test_a_table_says_whose_numbers_are_whose(tmp_path):
    """The paper's numbers of CAMs belong to those after the background step; CRF and masks have one variant."""
    runs = make_series(tmp_path, "voc12", 4.0)
    found = runs.runs["V", "", 0].metrics
    found["eval_cam"]["scores"] |= {"final_cam 1": {"miou": 50.0}, "final_cam CRF": {"miou": 69.0}}
    text = text_of(results.write_table(1, [runs], tmp_path, "x", "")[0])
    assert "| CAM | IBR, L_DW^P, L_DW^W | final_cam 1 +step | 64.7 | 63.5 ± 2.8 (2) | 50.0 (1) |" in text
    assert "| CRF | IBR, L_DW^P, L_DW^W | final_cam CRF | 69.4 | 69.0 (1) | - |" in text
    assert "after the background step (+step)" in text and '"plain": without the step' in text
    assert "background step" not in text_of(results.write_table(3, [runs], tmp_path, "x", "")[0])


def test_twins_are_compared_seed_by_seed(tmp_path):
    twins = [make_series(tmp_path, results.LONG_TAILED, 4.0), make_series(tmp_path, results.BALANCED, 1.0)]
    text = text_of(results.write_table(4, twins, tmp_path, "x", "")[0])
    assert "| V | scored as the paper | +9.6 | 6.0 ± 2.8 (2) | 1.5 ± 0.7 (2) | 4.5 ± 2.1 (2) |" in text


def test_gains_on_class_sets(tmp_path):
    series = make_series(tmp_path, "mini", 4.0)
    for seed in (0, 1):                                         # V: class a (90 images) gains 9 more, b 3 less
        scores = series.runs["V", "", seed].metrics["eval_cam"]["scores"]["final_cam 1 +step"]["class_iou"]
        scores["a"], scores["b"] = scores["a"] + 9, scores["b"] - 3
    text = text_of(results.write_table(7, [series], tmp_path, "x", "", (50, 15))[0])
    assert "| VI many | 5.6 | 6.0 ± 2.8 (2) |" in text
    assert "| V many | 9.5 | 15.0 ± 2.8 (2) |" in text                        # n_c 90
    assert "| V medium | 6.5 | 6.0 ± 2.8 (2) |" in text                       # n_c 20
    assert "| V few | 12.9 | 3.0 ± 2.8 (2) |" in text                         # n_c 10
    assert "many n_c > 50, few n_c < 15" in text


def test_a_seed_without_class_counts_has_no_sets(tmp_path):
    """Base of the long-tailed set failed in one seed; its balanced runs did not."""
    twins = [make_series(tmp_path, results.LONG_TAILED, 4.0), make_series(tmp_path, results.BALANCED, 0.0)]
    del twins[0].runs["Base", "", 1]
    lines = {(line.row, line.data, line.quantity): line.values
             for line in results.gain_lines(twins[1], results.sets_by_seed(twins[0], None))}
    assert lines["V many", results.BALANCED, results.AS_PAPER].keys() == {0}
    assert lines["V overall", results.BALANCED, results.AS_PAPER].keys() == {0, 1}


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


def test_a_balanced_twin_is_divided_like_its_long_tailed_set(tmp_path):
    twins = [make_series(tmp_path, results.LONG_TAILED, 4.0), make_series(tmp_path, results.BALANCED, 0.0)]
    for found in twins[1].runs.values():
        found.metrics["train_sfc"]["class_counts"] = [40, 40, 40]
    for seed in (0, 1):
        twins[1].runs["V", "", seed].metrics["eval_cam"]["scores"]["final_cam 1 +step"]["class_iou"]["a"] += 5
    text = text_of(results.write_table(7, twins, tmp_path, "x", "")[0])
    assert "| V many | 9.5 | 6.0 ± 2.8 (2) | 5.0 ± 0.0 (2) | 1.0 ± 2.8 (2) |" in text


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
