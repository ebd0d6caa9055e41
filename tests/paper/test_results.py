"""The paper's tables from finished runs: numbers, gains, class sets."""

import csv
import json
import re
from pathlib import Path

from paper import results
from paper.results import Series
from report.finished_run import FinishedRun


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


def test_a_balanced_twin_is_divided_like_its_long_tailed_set(tmp_path):
    twins = [make_series(tmp_path, results.LONG_TAILED, 4.0), make_series(tmp_path, results.BALANCED, 0.0)]
    for found in twins[1].runs.values():
        found.metrics["train_sfc"]["class_counts"] = [40, 40, 40]
    for seed in (0, 1):
        twins[1].runs["V", "", seed].metrics["eval_cam"]["scores"]["final_cam 1 +step"]["class_iou"]["a"] += 5
    text = text_of(results.write_table(7, twins, tmp_path, "x", "")[0])
    assert "| V many | 9.5 | 6.0 ± 2.8 (2) | 5.0 ± 0.0 (2) | 1.0 ± 2.8 (2) |" in text
