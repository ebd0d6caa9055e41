"""Unusable input: a message that names the file and the fix, exit status 2, no traceback, nothing else touched."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from data.cam_store import CamRecord, write_record
from tests.helpers import files_of


@pytest.fixture
def broken(mini, tmp_path):
    """A copy of the data set to break, and its first training id."""
    root = shutil.copytree(mini, tmp_path / "broken")
    return root, (root / "ImageSets/Segmentation/train.txt").read_text().split()[0]


def refused(capsys, status, *words):
    captured = capsys.readouterr()
    assert status == 2 and captured.err.count("error: ") == 1 and "Traceback" not in captured.err + captured.out
    for word in words:
        assert word in captured.err, captured.err


def test_roots(command, capsys, tmp_path):
    (tmp_path / "empty/JPEGImages").mkdir(parents=True)
    for root, words in ((None, ["--voc12_root"]), (tmp_path / "absent", ["absent", "JPEGImages"]),
                        (tmp_path / "empty", ["train.txt", "--train_list"])):
        refused(capsys, command("run_sample", "--work_dir", tmp_path / "run", root=root), *words)


def test_lists(command, capsys, tmp_path):
    (tmp_path / "one.txt").write_text("mini_train_0000_not_there\n")
    refused(capsys, command("train_sfc", "--work_dir", tmp_path / "run", "--train_list", tmp_path / "one.txt"),
            "mini_train_0000_not_there")
    (tmp_path / "blank.txt").write_text("\n")
    refused(capsys, command("train_sfc", "--work_dir", tmp_path / "run", "--train_list", tmp_path / "blank.txt"),
            "blank.txt", "empty", "one image id a line")


def test_a_split_without_images_says_where_it_came_from(broken, command, capsys, tmp_path):
    """Every mask of the augmented set is held out for val: nothing is left to train on."""
    root, _ = broken
    names = [path.stem for path in (root / "SegmentationClassAug").glob("*.png")]
    (root / "ImageSets/Segmentation/val.txt").write_text("\n".join(names))
    (root / "ImageSets/Segmentation/train_aug.txt").unlink(missing_ok=True)
    refused(capsys, command("train_sfc", "--work_dir", tmp_path / "run", root=root),
            "SegmentationClassAug without val", "empty", "--train_list")


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_images_stop_training_with_their_name(broken, command, capsys, tmp_path, workers):
    root, name = broken
    path = root / f"JPEGImages/{name}.jpg"
    path.write_bytes(path.read_bytes()[:300])
    status = command("train_sfc", "--work_dir", tmp_path / "run", "--num_workers", workers, root=root)
    refused(capsys, status, f"{name}.jpg", "damaged image")
    assert not (tmp_path / "run/sfc.pth").exists()


def test_images_without_file(broken, command, capsys, tmp_path, copy):
    root, name = broken
    (root / f"JPEGImages/{name}.jpg").unlink()
    for stage in ("train_sfc", "make_cam", "cam_to_ir_label"):
        status = command(stage, "--work_dir", copy, "--overwrite", root=root)
        refused(capsys, status, f"{name}.jpg", "missing")


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colour_modes_are_no_error(broken, command, tmp_path, mode):
    root, name = broken
    path = root / f"JPEGImages/{name}.jpg"
    Image.open(path).convert(mode).save(path)
    assert command("run_sample", "--to", "make_cam", "--epochs", "1", "--work_dir", tmp_path / "run", root=root) == 0


def test_tiny_images_are_no_error(broken, command, tmp_path):
    root, name = broken
    Image.new("RGB", (5, 3), (90, 20, 40)).save(root / f"JPEGImages/{name}.jpg")
    for folder in ("SegmentationClass", "SegmentationClassAug"):
        Image.new("L", (5, 3)).save(root / f"{folder}/{name}.png")
    assert command("run_sample", "--epochs", "1", "--work_dir", tmp_path / "run", root=root) == 0


def test_annotations(broken, command, capsys, tmp_path):
    root, name = broken
    (root / f"Annotations/{name}.xml").write_text("<annotation><object><name>unicorn</name></object></annotation>")
    refused(capsys, command("train_sfc", "--work_dir", tmp_path / "run", root=root), f"{name}.xml", "unicorn")
    (root / f"Annotations/{name}.xml").write_text("<annotation/>")
    refused(capsys, command("train_sfc", "--work_dir", tmp_path / "run", root=root), f"{name}.xml", "no object")


def test_a_class_that_no_image_shows_is_said(broken, command, capsys, tmp_path):
    root, _ = broken
    (root / "classes.txt").write_text((root / "classes.txt").read_text() + "unicorn\n")
    assert command("train_sfc", "--epochs", "1", "--work_dir", tmp_path / "run", root=root) == 0
    assert "no training image shows unicorn" in capsys.readouterr().out


def test_masks(broken, command, capsys, copy):
    root, name = broken
    mask = Image.open(root / f"SegmentationClass/{name}.png")
    for bad, reason in ((mask.convert("RGB"), "not colours"), (mask.resize((32, 32)), "size of their image"),
                        (Image.fromarray(np.full((64, 64), 99, np.uint8)), "class indices [99]")):
        bad.save(root / f"SegmentationClass/{name}.png")
        for stage in ("eval_cam", "eval_sem_seg"):
            refused(capsys, command(stage, "--work_dir", copy, "--overwrite", root=root), f"{name}.png", reason)


def test_records(copy, mini, command, capsys):
    name = (mini / "ImageSets/Segmentation/train.txt").read_text().split()[0]
    path = copy / f"cam/{name}.npz"
    whole = path.read_bytes()
    maps = [np.zeros((2, 4, 4), np.float32)]
    before = files_of(copy)
    for write, reason in ((lambda: path.write_bytes(whole[:200]), "damaged CAM record"),
                          (lambda: write_record(path, CamRecord(np.array([1]), (64, 64), maps, maps), 9),
                           "of 9 classes"),
                          (lambda: write_record(path, CamRecord(np.array([1]), (9, 7), maps, maps), 4), "7x9")):
        write()
        refused(capsys, command("eval_cam", "--work_dir", copy, "--overwrite"), f"{name}.npz", reason, "make_cam.py")
        (copy / "ir_label").mkdir(exist_ok=True)
        refused(capsys, command("cam_to_ir_label", "--work_dir", copy, "--overwrite"), f"{name}.npz", reason)
    after = files_of(copy)
    assert all(after[file] == before[file] for file in before if file.startswith(("sfc", "irn", "sem_seg")))


def test_checkpoints(copy, command, capsys, tmp_path):
    for flags, reason in ((("--backbone", "resnet18"), "backbone mini, but resnet18"),):
        refused(capsys, command("make_cam", "--work_dir", copy, "--overwrite", *flags), "sfc.pth", reason)
    content = torch.load(copy / "sfc.pth", weights_only=True)
    torch.save(content | {"num_classes": 20}, tmp_path / "other.pth")
    refused(capsys, command("make_cam", "--work_dir", tmp_path / "a", "--checkpoint", tmp_path / "other.pth"),
            "other.pth", "num_classes 20, but 4")
    torch.save({"model": slice(3)}, tmp_path / "pickled.pth")
    (tmp_path / "other.pth").write_bytes(b"no checkpoint")
    for name in ("pickled.pth", "other.pth"):
        status = command("make_cam", "--work_dir", tmp_path / "a", "--checkpoint", tmp_path / name)
        error = capsys.readouterr().err
        assert status == 2 and name in error and "state dict" in error and "weights_only" not in error
    status = command("train_sfc", "--work_dir", tmp_path / "a", "--weights", tmp_path / "absent.pth")
    refused(capsys, status, "absent.pth")


def test_a_refused_run_puts_back_what_it_was_to_replace(copy, command, capsys):
    def everything():
        return {path: json.loads(path.read_text()) if path.suffix == ".json" else path.read_bytes()
                for path in copy.rglob("*") if path.is_file() and path.name not in ("log.txt", "lock", "report.html")}

    before = everything()
    record = next((copy / "cam").iterdir())
    for stage, flags, name in (("train_sfc", ["--weights", copy / "absent.pth"], "absent.pth"),
                               ("make_cam", ["--backbone", "resnet18"], "sfc.pth"),
                               ("train_irn", ["--device", "cuda:77"], "cuda:77"),
                               ("train_irn", ["--irn_radius", "99"], "--irn_radius")):
        refused(capsys, command(stage, "--work_dir", copy, "--overwrite", *flags), name)
        assert everything() == before
    torn = {record: before[record][:50]}
    record.write_bytes(torn[record])
    refused(capsys, command("eval_cam", "--work_dir", copy, "--overwrite"), record.name)
    assert everything() == before | torn                                          # the scores are those of before
    record.write_bytes(before[record])
    assert command("eval_cam", "--work_dir", copy, "--overwrite") == 0 and everything().keys() == before.keys()


def test_wrong_weights_are_refused_before_the_labels_are_read(command, capsys, tmp_path, monkeypatch):
    def read(*_):
        raise AssertionError("labels were read")

    monkeypatch.setattr("voc12.voc.Voc12.image_labels", read)
    (tmp_path / "junk.pth").write_bytes(b"junk")
    refused(capsys, command("train_sfc", "--work_dir", tmp_path / "a", "--weights", tmp_path / "junk.pth"), "junk.pth")


def test_work_directories(command, capsys, tmp_path, copy):
    (tmp_path / "file").write_text("in the way")
    refused(capsys, command("train_sfc", "--work_dir", tmp_path / "file" / "run"), "file/run", "--work_dir")
    status = command("train_sfc", "--work_dir", copy, "--lr", "0.5")
    refused(capsys, status, "--sfc_lr: was 0.08, is 0.5", "--overwrite")
    for name in ("config.json", "metrics.json"):
        kept = (copy / name).read_text()
        (copy / name).write_text(kept[:50])
        refused(capsys, command("eval_sem_seg", "--work_dir", copy, "--overwrite"), name, "damaged")
        (copy / name).write_text(kept)


def test_a_loss_that_is_not_finite_stops_the_run(command, capsys, tmp_path):
    flags = ["--lr", "1e30", "--clip_norm", "1e30", "--epochs", "5"]
    refused(capsys, command("train_sfc", "--work_dir", tmp_path / "run", *flags), "not finite at step", "checkpoint")
    assert not (tmp_path / "run/sfc.pth").exists()


def test_too_little_disk_is_said_before_the_work(copy, command, capsys, monkeypatch):
    monkeypatch.setattr("runtime.disk.shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000, "total": 1e12}))
    refused(capsys, command("make_cam", "--work_dir", copy, "--overwrite"), "CAM records need about", "make room")


def test_numbers_out_of_range(command, capsys, tmp_path):
    for flags in (("--crop_size", "0"), ("--lr", "-1"), ("--scales", "1.0,zero"), ("--resize_long", "9,3"),
                  ("--batch_size", "500"), ("--device", "abacus"), ("--seed", "-1"), ("--num_workers", "-1"),
                  ("--walk_exp", "-1"), ("--crf_gaussian_sxy", "0"), ("--crf_bilateral_srgb", "0"),
                  ("--crf_gt_prob", "1"), ("--seg_crf_bilateral_sxy", "0")):
        assert command("train_sfc", "--work_dir", tmp_path / "run", *flags) == 2
        error = capsys.readouterr().err
        assert flags[0].lstrip("-") in error and "Traceback" not in error


@pytest.mark.parametrize("radius", ["1", "17"])
def test_pixel_pairs_need_a_radius_that_fits_the_crops(radius, command, copy, capsys):
    flags = ["--work_dir", copy, "--overwrite", "--irn_crop_size", "64", "--irn_radius"]
    refused(capsys, command("train_irn", *flags, radius), f"--irn_radius {radius}", "2 to 16", "--irn_crop_size")
    assert command("train_irn", *flags, "16") == 0
