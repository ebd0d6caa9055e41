"""Reports and pictures of a run made by hand: two stages' worth of files, no training."""

import base64
import html
import io
import json
import re
import shutil

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

import run_sample
from data.cam_store import CamRecord, write_record
from data.sample import InputError, read_list, write_mask
from frame.engine import save_model
from frame.settings.common import Run
from net.backbone import build_backbone
from net.irn import IRN
from refine.metrics import ConfusionMatrix
from refine.segmentation_scores import summary
from report import page as report
from report.finished_run import FinishedRun
from report.pictures import PANELS
from report.scores_table import rows
from tools import report as report_command
from tools import visualize as visualize_command
from voc12.voc import Voc12

EVIL = "<img src=x onerror=alert(1)> & $x$"             # a class name that must not get into the page as it is


@pytest.fixture(scope="module")
def made(mini, tmp_path_factory):
    """A work directory as the stages leave it; its masks are ground truth moved to the right."""
    root = shutil.copytree(mini, tmp_path_factory.mktemp("report") / "data")
    names = [*(root / "classes.txt").read_text().split()[:3], EVIL]
    last = (root / "classes.txt").read_text().split()[3]
    (root / "classes.txt").write_text("\n".join(names) + "\n")
    for path in (root / "Annotations").glob("*.xml"):
        path.write_text(path.read_text().replace(f"<name>{last}</name>", f"<name>{html.escape(EVIL)}</name>"))
    return make_run(root, tmp_path_factory.mktemp("runs") / "first")


def make_run(root, path):
    data_set = Voc12(root)
    ids = read_list(root / "ImageSets/Segmentation/train.txt")
    for folder in ("cam", "ir_label", "sem_seg"):
        (path / folder).mkdir(parents=True)
    confusion = ConfusionMatrix(data_set.num_classes + 1)
    labels = data_set.image_labels(ids)
    rng = np.random.default_rng(0)
    for name, label in zip(ids, labels):
        truth = data_set.read_mask(name)
        mask = np.roll(np.where(truth == 255, 0, truth), int(rng.integers(0, 20)), axis=1)
        classes = np.flatnonzero(label) + 1
        maps = [rng.random((len(classes) + 1, 8, 8), np.float32)]
        write_record(path / "cam" / f"{name}.npz", CamRecord(classes, truth.shape, maps, maps), data_set.num_classes)
        write_mask(path / "ir_label" / f"{name}.png", mask)
        write_mask(path / "sem_seg" / f"{name}.png", mask)
        confusion.update(mask, truth)
    torch.manual_seed(0)
    save_model(path / "irn.pth", IRN(build_backbone("mini")), backbone="mini")
    save_model(path / "sfc.pth", torch.nn.Linear(1, 1), class_names=list(data_set.class_names))
    write_curves(path)
    write_entries(path, root, summary(confusion, data_set.class_names), labels.sum(0).tolist())
    return path


def write_curves(path):
    with SummaryWriter(str(path / "tensorboard/train_sfc")) as writer:
        for step in (10, 20, 30):
            writer.add_scalar("train_sfc/total", 1 / step, step)
            writer.add_scalar("train_sfc/lr", 0.1 - step / 1000, step)
            writer.add_scalar("train_sfc/seeds/no_background_prototype", step / 30, step)


def write_entries(path, root, scores, counts):
    cams = {name: scores for cam in ("weight_cam", "prototype_cam", "final_cam 1") for name in (cam, f"{cam} +step")}
    metrics = {
        "train_sfc": {"class_counts": counts, "distribution_coefficient": [1.0] * len(counts)},
        "make_cam": {"images": 24},
        "eval_cam": {"split": "train (24 images)", "images": 24, "scores": cams,
                     "threshold_sweep": {"weight_cam": {"oracle_threshold": 0.25, "oracle_miou": 43.21, "curve": []}}},
        "eval_sem_seg": {"split": "train (24 images)", "images": 24, "scores": {"pseudo mask": scores}}}
    machine = {"python": "3.11.0", "torch": "2.6.0", "hardware": "a machine", "seconds": 75.0,
               "finished": "2026-01-02 03:04:05", "commit": "0123456789abcdef0123456789abcdef01234567-dirty"}
    settings = {"voc12_root": str(root), "labels": "xml", "dataset": "voc12", "seed": 7, "backbone": "mini",
                "irn_crop_size": 64, "pcm_steps": 2}
    config = {stage: {"settings": settings, "upstream": {}, "complete": True, "machine": machine} for stage in metrics}
    config["train_sfc"]["machine"] = machine | {"images_per_second": 12.5}
    (path / "metrics.json").write_text(json.dumps(metrics))
    (path / "config.json").write_text(json.dumps(config))


@pytest.fixture
def copied(made, tmp_path):
    return shutil.copytree(made, tmp_path / "second")


@pytest.fixture(scope="module")
def page(made):
    return report.write_report(made, workers=1).read_text(encoding="utf-8")


def images_of(page):
    return [Image.open(io.BytesIO(base64.b64decode(data)))
            for data in re.findall(r'<img src="data:image/(?:png|jpeg);base64,([^"]+)"', page)]


def without_data(page):
    return re.sub(r"data:image/[a-z]+;base64,[^\"]+", "", page)


def assert_self_contained(page):
    text = without_data(page)
    assert "http:" not in text and "https:" not in text and "<script" not in text and "url(http" not in text
    assert all(source.startswith("data:image/") for source in re.findall(r'<[^>]*\bsrc="([^"]*)"', page))
    assert re.findall(r'<link[^>]*href="([^"]*)"', page) == ["data:,"]        # the icon browsers would look for
    assert EVIL not in page


def test_the_page_needs_no_other_file_and_no_network(page):
    assert_self_contained(page)
    assert len(page) < 6e6


def test_every_class_score_and_setting_is_there(made, page):
    text = without_data(page)
    run = FinishedRun(made)
    for name in (*run.class_names, "background"):
        assert html.escape(name) in text, name
    for scores in run.scores.values():
        assert f"{scores['miou']:.2f}" in text
        for values, digits in ((scores["class_iou"], 1), (scores["class_area_ratio"], 2)):
            assert all(f"{value:.{digits}f}" in text for value in values.values() if value is not None)
    for expected in ("--irn_crop_size", "0123456789ab-dirty", "1 min 15 s", "12.5", "a machine", "43.21",
                     "learning rate"):
        assert expected in text, expected


def test_the_papers_numbers_stand_beside_stepped_maps(made, tmp_path):
    """On a data set of VOC's classes; the plain maps come after them, without a number."""
    root = shutil.copytree(FinishedRun(made).data_set.root, tmp_path / "data")
    (root / "classes.txt").unlink()                                     # then the classes are VOC's
    table = rows(json.loads((made / "metrics.json").read_text()), "voc12")
    assert [(row[1], row[5]) for row in table] == [
        ("weight_cam +step", "64.2"), ("prototype_cam +step", "62.5"), ("final_cam 1 +step", "64.7"),
        ("weight_cam", "-"), ("prototype_cam", "-"), ("final_cam 1", "-"),
        ("weight_cam oracle > 0.25", "-"), ("pseudo mask", "73.7")]
    run = shutil.copytree(made, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    for entry in config.values():
        entry["settings"]["voc12_root"] = str(root)
    (run / "config.json").write_text(json.dumps(config))
    shutil.rmtree(run / "sem_seg")
    text = without_data(report.write_report(run, workers=1).read_text(encoding="utf-8"))
    shown = re.findall(r"<tr><td>([^\n]*?)</td><td class=\"n\"><b>[\d.]+</b></td><td class=\"n\">([\d.-]+)</td>", text)
    cams = ["M<sub>W</sub>", "M<sub>P</sub>", "M<sub>final</sub>"]
    assert shown[:7] == [*zip((f"{cam} +step" for cam in cams), ("64.2", "62.5", "64.7")), ("pseudo mask", "73.7"),
                         *((f"{cam}, plain", "-") for cam in cams)]
    assert "M<sub>W</sub> +step</small>" in text and "paper 64.2" in text


def test_pictures_decode_and_stand_in_the_order_of_figure_3(page):
    images = images_of(page)
    panels = re.findall(r'alt="(\w+) of (\w+)"', page)
    assert len(images) == len(panels) > 0 and all(max(image.size) == 64 for image in images)
    names = [name for _, name in panels[::len(PANELS)]]
    assert [panel for panel, _ in panels] == list(PANELS) * len(names)
    assert len(set(names)) == len(names), "an image stands there twice"


def test_charts_are_text_in_the_pages_own_colours(page):
    charts = re.findall(r"<svg .*?</svg>", page, re.DOTALL)
    assert len(charts) == 4
    assert ["no background prototype" in chart for chart in charts] == [False, False, False, True]
    for chart in charts:
        assert "<text" in chart and "currentColor" in chart and "<style" not in chart
        assert not any(colour in chart for colour in ("#010203", "#010204"))


def test_the_same_run_gives_the_same_page(made, page):
    assert report.write_report(made, workers=1).read_text(encoding="utf-8") == page


def test_classes_are_sorted_by_frequency(made):
    run = FinishedRun(made)
    counts = [run.class_counts[name] for name in run.classes_by_frequency()]
    assert counts == sorted(counts, reverse=True) and len(counts) == 4


def test_area_ratio_by_hand():
    confusion = ConfusionMatrix(3)
    confusion.update(np.uint8([[0, 1, 1, 1]]), np.uint8([[0, 0, 1, 255]]))
    ratios = summary(confusion, ("a", "b"))["class_area_ratio"]
    assert ratios == {"background": 0.5, "a": 2.0, "b": None}


def test_chosen_images():
    images = [report.ScoredImage(f"i{k:02}", float(k), ("head",) if k % 2 else ("tail",)) for k in range(60)]
    images.append(report.ScoredImage("nothing counted", float("nan"), ()))
    groups = dict(report.choose_images(images, ["head", "mid", "third", "tail"]))
    best, worst, head, tail = groups.values()
    assert [image.miou for image in best] == [59, 58, 57, 56, 55, 54]
    assert [image.miou for image in worst] == [0, 1, 2, 3, 4, 5]
    assert {image.classes for image in head} == {("head",)} and {image.classes for image in tail} == {("tail",)}
    assert [image.miou for image in head] == sorted((image.miou for image in head), reverse=True)
    assert len({image.name for group in groups.values() for image in group}) == 24


def test_large_pictures_become_small():
    noise = np.random.default_rng(0).integers(0, 256, (375, 500, 3), np.uint8)
    photo = cv2.GaussianBlur(noise, (0, 0), 2)
    assert images_of(f'<img src="{report.data_uri(photo)}"')[0].size == (320, 240)
    assert 24 * 8 * len(report.data_uri(photo)) < 6e6


def test_comparison(made, copied, tmp_path):
    metrics = json.loads((copied / "metrics.json").read_text())
    metrics["eval_sem_seg"]["scores"]["pseudo mask"]["miou"] += 1.5
    config = json.loads((copied / "config.json").read_text())
    config["train_sfc"]["settings"] |= {"pcm_steps": 1}
    for entry in config.values():
        entry["settings"]["pcm_steps"] = 1
    (copied / "metrics.json").write_text(json.dumps(metrics))
    (copied / "config.json").write_text(json.dumps(config))
    page = report.write_comparison([made, copied, made], tmp_path / "c.html").read_text(encoding="utf-8")
    assert_self_contained(page)
    assert "+1.5" in page and "--pcm_steps" in page and "--seed" not in page
    assert html.escape(EVIL) in page and len(re.findall("<svg ", page)) == 4

    names = dict(metrics["eval_sem_seg"]["scores"]["pseudo mask"])
    names["class_iou"] = {"other": 1.0}
    shutil.rmtree(copied / "cam")
    (copied / "sfc.pth").unlink()
    config = {k: v | {"settings": v["settings"] | {"voc12_root": "gone"}} for k, v in config.items()}
    (copied / "config.json").write_text(json.dumps(config))
    (copied / "metrics.json").write_text(json.dumps({"eval_sem_seg": {"split": "s", "scores": {"pseudo mask": names}}}))
    with pytest.raises(InputError, match="other classes"):
        report.write_comparison([made, copied], tmp_path / "c.html")


def test_without_the_data_set_there_are_no_pictures_and_the_page_says_so(copied):
    config = json.loads((copied / "config.json").read_text())
    for entry in config.values():
        entry["settings"]["voc12_root"] = "gone/VOC2012"
    (copied / "config.json").write_text(json.dumps(config))
    page = report.write_report(copied, workers=1).read_text(encoding="utf-8")
    assert "No pictures: gone/VOC2012" in page and not images_of(page)
    assert "training images" in page                                    # class names come from sfc.pth


def test_a_run_that_has_only_begun(copied):
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({"train_sfc": config["train_sfc"] | {"complete": False}}))
    (copied / "metrics.json").unlink()
    for folder in ("sem_seg", "tensorboard"):
        shutil.rmtree(copied / folder)
    page = report.write_report(copied, workers=1).read_text(encoding="utf-8")
    assert "Nothing was scored yet" in page and "not complete" in page and "No pictures" in page


@pytest.mark.parametrize("name, content", [
    ("config.json", None), ("config.json", "{"), ("config.json", '{"train_sfc": 1}'), ("metrics.json", "[]"),
    ("metrics.json", '{"eval_cam": {"scores": {"weight_cam": {"miou": 1}}}}')])
def test_damaged_runs_are_named(copied, name, content, capsys):
    (copied / name).unlink() if content is None else (copied / name).write_text(content)
    with pytest.raises(SystemExit) as stop:
        report_command.main([str(copied)])
    assert stop.value.code == 2 and f"{copied / name}"[:-5] in capsys.readouterr().err


def test_strips_as_png(made, tmp_path, capsys):
    visualize_command.main([str(made), "--ids", "mini_train_0001, mini_train_0002", "--out", str(tmp_path / "out")])
    paths = capsys.readouterr().out.split()
    assert [path.rsplit("/", 1)[1] for path in paths] == ["mini_train_0001.png", "mini_train_0002.png"]
    assert Image.open(paths[0]).size[0] > 8 * 200


@pytest.mark.parametrize("name", ["absent", "../mini_train_0001", "/etc/x", ""])
def test_ids_that_are_none_are_refused(made, tmp_path, capsys, name):
    with pytest.raises(SystemExit) as stop:
        visualize_command.main([str(made), "--ids", name, "--out", str(tmp_path / "out")])
    assert stop.value.code == 2 and "--ids" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_chain_keeps_its_results_when_the_report_fails(made, monkeypatch):
    def fail(*_):
        raise InputError("no space")

    monkeypatch.setattr(report, "write_report", fail)
    with pytest.raises(InputError, match=r"(?s)complete.*no space.*tools.report"):
        run_sample.make_report(Run(work_dir=str(made), num_workers=1))
