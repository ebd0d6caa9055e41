"""The whole chain on a tiny generated data set, as a user runs it."""

import json
import re
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

import run_sample
from data.cam_store import read_record
from data.sample import InputError, read_list
from frame import engine, network
from frame.chain import STAGES, UPSTREAM
from frame.flags import build_parser, parse
from frame.presets import overrides
from frame.selection import final_cam_miou
from frame.settings import GROUPS
from frame.settings.cams import Network, SfcTraining
from frame.stage import read_best_checkpoint
from parity.networks import sfc_authors_name
from refine.metrics import ConfusionMatrix
from runtime import device
from runtime.work_dir import WorkDir
from tests.helpers import TINY, files_of, scores_of
from voc12.voc import Voc12


def test_every_stage_leaves_what_the_next_one_needs(finished, mini):
    ids = read_list(mini / "ImageSets/Segmentation/train.txt")
    config = json.loads((finished / "config.json").read_text())
    assert list(config) == list(STAGES[:7]) and all(entry["complete"] for entry in config.values())
    for name in ids:
        record = read_record(finished / f"cam/{name}.npz", 4)
        assert len(record.weight_maps) == 2 and record.weight_maps[0].dtype == np.float32
        assert np.isfinite(record.weight_maps[0]).all()
        size = Image.open(mini / f"JPEGImages/{name}.jpg").size
        for folder in ("ir_label", "sem_seg"):
            mask = Image.open(finished / f"{folder}/{name}.png")
            assert mask.mode == "P" and mask.size == size
            allowed = {0, *record.classes.tolist()} | ({255} if folder == "ir_label" else set())
            assert set(np.unique(mask).tolist()) <= allowed
    metrics = json.loads((finished / "metrics.json").read_text())
    assert {"weight_cam", "prototype_cam", "final_cam 1", "final_cam 0.7 +step", "final_cam CRF"} <= set(
        metrics["eval_cam"]["scores"])
    assert metrics["eval_cam"]["split"] == "train (24 images)"
    assert metrics["train_sfc"]["class_counts"] and 0 < metrics["eval_sem_seg"]["scores"]["pseudo mask"]["miou"] <= 100
    assert not list(finished.glob("*checkpoint*")) and not list(finished.rglob("*.tmp"))


def test_two_runs_with_one_seed_are_identical(finished, command, tmp_path):
    assert command("run_sample", "--work_dir", tmp_path / "again", "--num_workers", "2") == 0
    assert files_of(tmp_path / "again") == files_of(finished)
    assert scores_of(tmp_path / "again") == scores_of(finished)


def test_another_seed_differs(finished, command, tmp_path):
    assert command("train_sfc", "--work_dir", tmp_path / "seed", "--seed", "1") == 0
    weights = [torch.load(folder / "sfc.pth", weights_only=True)["model"]["classifier.weight"]
               for folder in (finished, tmp_path / "seed")]
    assert not torch.equal(*weights)


def test_complete_stages_are_skipped_and_overwrite_repeats_them(copy, command, capsys):
    before = files_of(copy)
    assert command("run_sample", "--work_dir", copy) == 0
    assert capsys.readouterr().out.count("complete, skipped") == 7
    assert command("eval_sem_seg", "--work_dir", copy, "--overwrite") == 0
    assert "eval_sem_seg: started" in capsys.readouterr().out and files_of(copy) == before


def test_a_changed_setting_is_refused_and_then_repeats_what_depends_on_it(copy, command, capsys):
    before = files_of(copy)
    assert command("run_sample", "--work_dir", copy, "--crf_iterations", "3") == 2
    error = capsys.readouterr().err
    assert "--crf_iterations: was 2, is 3" in error and "--overwrite" in error and files_of(copy) == before
    assert command("run_sample", "--work_dir", copy, "--crf_iterations", "3", "--overwrite") == 0
    out = capsys.readouterr().out
    assert [name for name in UPSTREAM if f"{name}: complete, skipped" in out] == ["train_sfc", "make_cam"]


def test_what_read_the_result_of_a_stage_is_not_complete_once_it_was_made_again(copy, command, capsys):
    assert command("train_irn", "--work_dir", copy, "--overwrite") == 0    # the same settings, but on a GPU it differs
    assert command("run_sample", "--work_dir", copy) == 2
    assert "make_sem_seg_labels of another configuration\n  input from train_irn: made again" in capsys.readouterr().err
    assert command("run_sample", "--work_dir", copy, "--overwrite") == 0
    out = capsys.readouterr().out
    assert [name for name in UPSTREAM if f"{name}: started" in out] == ["make_sem_seg_labels", "eval_sem_seg"]


def test_a_label_table_that_was_corrected_under_its_name(copy, command, mini, tmp_path, capsys):
    data_set, table = Voc12(mini), tmp_path / "labels.csv"
    names, ids = data_set.class_names, data_set.split("train")[0]
    rows = [f"{name},{';'.join(names[k] for k in row.nonzero()[0])}"
            for name, row in zip(ids, data_set.image_labels(ids))]
    table.write_text("\n".join(["image,labels", *rows]))
    flags = ("--work_dir", copy, "--labels", table, "--sfc_epochs", "1")
    assert command("train_sfc", *flags, "--overwrite") == 0
    assert command("train_sfc", *flags) == 0 and "complete, skipped" in capsys.readouterr().out
    table.write_text("\n".join(["image,labels", f"{ids[0]},{names[0]}", *rows[1:]]))
    assert command("train_sfc", *flags) == 2
    assert "content of --labels: was checksum" in capsys.readouterr().err
    assert command("run_sample", "--check", *flags) == 2
    assert "content of --labels: was checksum" in capsys.readouterr().out


def test_a_path_is_one_however_it_is_spelt(copy, command, mini, capsys):
    assert command("train_sfc", "--work_dir", copy, root=f"{mini.parent}/./{mini.name}/") == 0
    assert "complete, skipped" in capsys.readouterr().out


@pytest.mark.parametrize("stage, missing", [
    ("make_cam", "train_sfc"), ("eval_cam", "make_cam"), ("cam_to_ir_label", "make_cam"),
    ("train_irn", "cam_to_ir_label"), ("make_sem_seg_labels", "make_cam"), ("eval_sem_seg", "make_sem_seg_labels")])
def test_a_missing_input_names_the_command_that_makes_it(command, capsys, tmp_path, stage, missing):
    assert command(stage, "--work_dir", tmp_path / "empty") == 2
    assert f"python {missing}.py --work_dir" in capsys.readouterr().err


def test_interrupted_images_are_made_again(copy, command):
    """Stages that work image by image go on where they stopped."""
    before = files_of(copy)
    config = json.loads((copy / "config.json").read_text())
    for stage, folder in (("make_cam", "cam"), ("cam_to_ir_label", "ir_label"), ("make_sem_seg_labels", "sem_seg")):
        config[stage]["complete"] = False
        for path in sorted((copy / folder).iterdir())[3:17]:
            path.unlink()
    (copy / "config.json").write_text(json.dumps(config))
    assert command("run_sample", "--work_dir", copy) == 0
    assert files_of(copy) == before
    machines = {stage: entry["machine"] for stage, entry in json.loads((copy / "config.json").read_text()).items()}
    assert {stage for stage, machine in machines.items() if "earlier" in machine} == {
        "make_cam", "cam_to_ir_label", "make_sem_seg_labels"}


@pytest.mark.parametrize("stage, result", [("train_sfc", "sfc.pth"), ("train_irn", "irn.pth")])
def test_interrupted_training_ends_in_the_same_weights(copy, command, monkeypatch, stage, result):
    before = files_of(copy)

    class Stop(Exception):
        pass

    def stop_after_save(*arguments, save=engine._save):
        save(*arguments)
        raise Stop

    monkeypatch.setattr(engine, "LOG_EVERY", 3)
    monkeypatch.setattr(engine, "_save", stop_after_save)
    monkeypatch.setattr(engine.fit, "__defaults__", (0.0,))                       # save at every look
    with pytest.raises(Stop):
        command(stage, "--work_dir", copy, "--overwrite")
    monkeypatch.undo()
    assert (copy / f"{stage}_checkpoint.pth").exists() and not (copy / result).exists()
    assert command(stage, "--work_dir", copy) == 0
    assert files_of(copy) == before


def test_presets(mini, command, tmp_path):
    """Each preset runs; the paper's differs in what it says it does."""
    flags = [*TINY[2:], "--backbone", "mini", "--work_dir", tmp_path / "paper", "--epochs", "1"]
    assert command("run_sample", "--preset", "paper", *flags) == 0
    metrics = json.loads((tmp_path / "paper/metrics.json").read_text())
    assert "final_cam 0.7" not in metrics["eval_cam"]["scores"]                   # Eq. 9 everywhere
    settings = json.loads((tmp_path / "paper/config.json").read_text())["train_sfc"]["settings"]
    assert settings["pcm_steps"] == 1 and settings["dc_scale"] == "total_demand" and settings["dw_p_weight"] == 1


def test_the_paper_preset_trains(command, tmp_path):
    """L_cls starts at log 2 and falls: L_DW, whose distances are means over pixels, does not drown it (with sums over
    pixels it ends at 0.47 here instead of 0.16)."""
    folder = tmp_path / "paper"
    assert command("train_sfc", "--preset", "paper", "--backbone", "mini", "--epochs", "12", "--work_dir", folder) == 0
    losses = json.loads((folder / "metrics.json").read_text())["train_sfc"]["losses"]
    assert losses["cls"] < 0.25 and losses["total"] < 0.5
    assert json.loads((folder / "config.json").read_text())["train_sfc"]["settings"]["background_after_pcm"] is True


def test_augmentation_follows_the_data_sets_own_loader():
    """VOC's only released loader neither resizes nor flips, COCO's does both; the paper: crops alone."""
    def augmentation(*argv):
        settings = parse(build_parser(GROUPS, ""), overrides, argv)[SfcTraining]
        return settings.resize_long, settings.flip

    assert augmentation() == augmentation("--preset", "paper", "--dataset", "coco14") == (None, False)
    assert augmentation("--dataset", "coco14") == ((320, 640), True)
    assert augmentation("--resize_long", "320,640", "--flip") == ((320, 640), True)


def test_the_best_checkpoint_is_kept_and_every_score_says_so(command, mini, tmp_path):
    """--keep_best chooses with pixel labels, as the release does; the last checkpoint stays beside it."""
    folder = tmp_path / "best"
    flags = ["--work_dir", folder, "--keep_best", "--best_every", "3", "--lr", "1.0", "--no-report"]
    assert command("run_sample", *flags, "--no-with_irn") == 0
    metrics = json.loads((folder / "metrics.json").read_text())
    looks = [float(found) for found in re.findall(r"M_W \+ M_P ([\d.]+) mIoU", (folder / "log.txt").read_text())]
    assert len(looks) == 3 and metrics["train_sfc"]["best_miou"] == pytest.approx(max(looks), abs=0.01)
    assert metrics["train_sfc"]["best_step"] == (3, 6, 8)[looks.index(max(looks))]
    for stage in ("eval_cam", "eval_sem_seg"):
        assert "selected with pixel labels" in metrics[stage]["split"]

    model = network.load_sfc(Network(), "mini", 4, folder / "sfc_best.pth").eval()
    data_set = Voc12(mini)
    ids, _ = data_set.split("train_aug")
    miou = final_cam_miou(model, device.prepare("cpu"), data_set, ids)
    assert miou == pytest.approx(metrics["train_sfc"]["best_miou"])
    best, last = (torch.load(folder / name, weights_only=True)["model"] for name in ("sfc_best.pth", "sfc.pth"))
    same = all(torch.equal(best[name], last[name]) for name in last)
    assert same == (metrics["train_sfc"]["best_step"] == 8)


def test_a_score_of_the_last_checkpoint_does_not_say_that_it_is_of_the_best(copy):
    """Whether CAMs are those of the best checkpoint is a setting of make_cam, not of the training before."""
    def of_best(training, cams, checkpoint=None):
        config = {"train_sfc": {"settings": {"keep_best": training}},
                  "make_cam": {"settings": {"keep_best": cams, "checkpoint": checkpoint}}}
        return read_best_checkpoint(mock.Mock(config=lambda: config), "eval_sem_seg")

    assert of_best(True, True) and not of_best(True, False) and not of_best(True, True, "authors.pth")


def test_a_checkpoint_that_a_training_still_changes_is_not_read(copy, command, capsys):
    config = json.loads((copy / "config.json").read_text())
    config["train_sfc"]["complete"] = False
    (copy / "config.json").write_text(json.dumps(config))
    assert command("make_cam", "--work_dir", copy, "--overwrite") == 2
    assert "sfc.pth: train_sfc is not finished" in capsys.readouterr().err


def test_the_last_checkpoint_is_the_default(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    assert not (finished / "sfc_best.pth").exists() and "pixel labels" not in json.dumps(metrics)


def test_stage_choice():
    def chosen(with_irn=True, **flags):
        return run_sample.choose_stages(run_sample.Chain(**flags), with_irn)

    assert chosen()[0] == "train_sfc" and chosen()[-1] == "eval_sem_seg"
    assert chosen(first="make_cam", last="cam_to_ir_label") == ["make_cam", "eval_cam", "cam_to_ir_label"]
    assert chosen(first="cam_to_ir_label", last="eval_sem_seg", with_irn=False) == [
        "cam_to_ir_label", "make_sem_seg_labels", "eval_sem_seg"]
    with pytest.raises(InputError, match="comes after"):
        chosen(first="make_cam", last="train_sfc")
    assert chosen(stages="eval_sem_seg,eval_cam") == ["eval_cam", "eval_sem_seg"]
    with pytest.raises(InputError, match="no stage 'bake'"):
        chosen(stages="eval_cam,bake")


def test_scores_are_the_same_to_the_last_digit(copy, command):
    before = scores_of(copy)
    assert command("eval_cam", "--work_dir", copy, "--overwrite", "--num_workers", "2") == 0
    assert scores_of(copy) == before


def test_pseudo_masks_without_irn(copy, command, mini):
    """On request, and by default on COCO: the IR labels, whose unknown pixels count as background in the score; or the
    label-CRF alone, the same labels that the column CRF scores."""
    assert command("run_sample", "--work_dir", copy, "--no-with_irn", "--overwrite") == 0
    metrics = json.loads((copy / "metrics.json").read_text())
    truth = ConfusionMatrix(5)
    for name in read_list(mini / "ImageSets/Segmentation/train.txt"):
        mask = np.array(Image.open(copy / f"sem_seg/{name}.png"))
        assert np.array_equal(mask, np.array(Image.open(copy / f"ir_label/{name}.png")))
        truth.update(np.where(mask == 255, 0, mask), np.array(Image.open(mini / f"SegmentationClass/{name}.png")))
    assert metrics["eval_sem_seg"]["scores"]["pseudo mask"]["miou"] == 100 * truth.miou()
    assert metrics["cam_to_ir_label"]["pixel_shares"]["unknown"] > 0

    assert command("run_sample", "--work_dir", copy, "--no-with_irn", "--crf_masks", "--overwrite") == 0
    metrics = json.loads((copy / "metrics.json").read_text())
    assert metrics["eval_sem_seg"]["scores"]["pseudo mask"] == metrics["eval_cam"]["scores"]["final_cam CRF"]


def test_released_names_can_be_used_for_cams(copy, command, tmp_path):
    state = torch.load(copy / "sfc.pth", weights_only=True)["model"]
    torch.save({sfc_authors_name(k): v for k, v in state.items()}, tmp_path / "best.pth")
    assert command("make_cam", "--work_dir", tmp_path / "theirs", "--checkpoint", tmp_path / "best.pth") == 0
    ours, theirs = files_of(copy), files_of(tmp_path / "theirs")
    assert {k: v for k, v in ours.items() if k.startswith("cam")} == theirs


def test_config_holds_every_flag(finished):
    settings = WorkDir(finished).config()["train_sfc"]["settings"]
    assert settings["sfc_crop_size"] == 64 and settings["sfc_flip"] is True and settings["images"].startswith("24 ids")
