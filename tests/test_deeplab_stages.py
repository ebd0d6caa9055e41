"""Stages 8 and 9 on a tiny data set: training, initial weights, prediction, archive, bad input."""

import importlib
import json
import shutil
import sys
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from data.sample import InputError, read_list, write_mask
from frame import engine
from frame.stage import run_alone
from predict.folder import Request, predict_folder
from predict.predictor import Predictor
from report.scores_table import rows
from run_sample import Chain, choose_stages
from segmentation.network import Design, build, load_trained
from segmentation.prediction import Trained

NETS = ("deeplabv2_resnet101", "deeplabv1_resnet38")
SMALL = ["--seg_init", "none", "--seg_width", "4", "--seg_blocks", "1,1,1,1", "--seg_crop_size", "48",
         "--seg_batch_size", "6", "--grad_accum", "2", "--seg_iterations", "6", "--seg_lr", "0.01",
         "--seg_crf_iterations", "2"]
DESIGN = Design("deeplabv2_resnet101", 4, width=4, blocks=(1, 1, 1, 1))
DESIGN38 = Design("deeplabv1_resnet38", 4, width=2)


@pytest.fixture
def masks(mini):
    """Flags that train on the masks of the data set."""
    return [*SMALL, "--label_dir", str(mini / "SegmentationClassAug")]


@pytest.fixture(scope="module", params=NETS)
def trained(request, mini, tmp_path_factory):
    """Work directory after both stages."""
    folder = tmp_path_factory.mktemp("seg") / request.param
    flags = ["--voc12_root", mini, "--work_dir", folder, "--num_workers", "0", "--device", "cpu", "--seg_net",
             request.param, "--label_dir", mini / "SegmentationClassAug", *SMALL]
    for stage in ("train_deeplab", "eval_deeplab"):
        assert call(stage, *flags) == 0
    return folder


def call(stage, *flags):
    """Run a stage as a script would; its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{stage}.py", *map(str, flags)])
        try:
            module = importlib.import_module(stage)
            module.main() if stage == "eval_deeplab" else run_alone(module)
        except SystemExit as stop:
            return stop.code
    return 0


def predict(folder, *flags):
    return call("eval_deeplab", "--work_dir", folder, "--num_workers", "0", "--device", "cpu",
                "--seg_crf_iterations", "2", *flags)


# --- the stages -----------------------------------------------------------------------------------------------

def test_both_networks_train_and_predict(trained, mini):
    _, design, names = load_trained(trained / "deeplab.pth")
    assert design.seg_net == trained.name and design.num_classes == len(names) == 4
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["train_deeplab"]["steps"] == 6
    result = metrics["eval_deeplab"]
    assert result["split"] == "val (8 images)" and result["scores"].keys() == {"prediction", "prediction CRF"}
    for folder in ("prediction", "prediction_crf"):
        assert len(list((trained / folder).iterdir())) == 8
        for name in read_list(mini / "ImageSets/Segmentation/val.txt"):
            mask = Image.open(trained / folder / f"{name}.png")
            assert mask.mode == "P" and mask.size == (64, 64) and np.asarray(mask).max() <= 4


def test_table_sets_the_published_number_of_the_network_beside_its_score(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    published = {"deeplabv2_resnet101": "71.2", "deeplabv1_resnet38": "70.2"}[trained.name]
    assert [row[5] for row in rows(metrics, "voc12")] == [published] * 2
    assert [row[5] for row in rows(metrics, None)] == ["-"] * 2


@pytest.mark.parametrize("seg_net", NETS)
def test_interrupted_training_ends_in_the_same_weights(seg_net, command, masks, tmp_path, monkeypatch):
    flags = ["--seg_net", seg_net, *masks]
    assert command("train_deeplab", "--work_dir", tmp_path / "whole", *flags) == 0

    class Stop(Exception):
        pass

    def stop_after_save(*arguments, save=engine._save):
        save(*arguments)
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(engine, "LOG_EVERY", 4)
        patch.setattr(engine, "_save", stop_after_save)
        patch.setattr(engine.fit, "__defaults__", (0.0,))                         # save at every look
        with pytest.raises(Stop):
            command("train_deeplab", "--work_dir", tmp_path / "cut", *flags)
    assert command("train_deeplab", "--work_dir", tmp_path / "cut", *flags) == 0
    assert (tmp_path / "cut/deeplab.pth").read_bytes() == (tmp_path / "whole/deeplab.pth").read_bytes()


def test_an_interrupted_prediction_goes_on(trained, mini, tmp_path, monkeypatch):
    folder = shutil.copytree(trained, tmp_path / "copy")
    config, metrics = (json.loads((folder / name).read_text()) for name in ("config.json", "metrics.json"))
    config["eval_deeplab"]["complete"] = False
    (folder / "config.json").write_text(json.dumps(config))
    ids = read_list(mini / "ImageSets/Segmentation/val.txt")
    for kind, name in (("prediction", ids[2]), ("prediction_crf", ids[2]), ("prediction_crf", ids[5])):
        (folder / kind / f"{name}.png").unlink()
    predicted = []
    monkeypatch.setattr(Trained, "predict", lambda *args, predict=Trained.predict: (
        predicted.append(args[1]) or predict(*args)))
    assert predict(folder, "--voc12_root", mini) == 0
    assert predicted == [ids[2], ids[5]] and json.loads((folder / "metrics.json").read_text()) == metrics
    for kind in ("prediction", "prediction_crf"):
        assert all((folder / kind / path.name).read_bytes() == path.read_bytes() for path in (trained / kind).iterdir())


def test_run_sample_knows_the_stages_but_stops_before_them(command, masks, tmp_path, capsys):
    assert command("run_sample", "--work_dir", tmp_path / "run", *masks, "--from", "train_deeplab") == 0
    assert (tmp_path / "run/prediction_crf").is_dir() and "prediction CRF" in capsys.readouterr().out
    assert choose_stages(Chain(), with_irn=True)[-1] == "eval_sem_seg"


def test_bf16_trains_in_float32_weights(command, masks, tmp_path):
    assert command("train_deeplab", "--work_dir", tmp_path, *masks, "--amp", "bf16", "--balanced_ce") == 0
    weights = torch.load(tmp_path / "deeplab.pth", weights_only=True)["model"]
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32, torch.int64}


# --- own images -----------------------------------------------------------------------------------------------

def test_images_of_any_size_are_predicted_whole_without_cam_network_and_data_set(trained, tmp_path):
    (tmp_path / "in").mkdir()
    sizes = {"flat": (17, 300), "tall": (70, 33), "large": (600, 40)}
    for name, (height, width) in sizes.items():
        Image.new("RGB", (width, height), (90, 120, 30)).save(tmp_path / f"in/{name}.png")
    folder = predict_folder(Predictor(trained, "cpu"), Request(tmp_path / "in", None, 0.5, tmp_path / "out"), 0).parent
    assert {path.stem: np.asarray(Image.open(path)).shape for path in (folder / "deeplab").iterdir()} == sizes
    assert not (folder / "label_crf").exists() and json.loads((folder / "scores.json").read_text())["flat"] == {
        "classes": [], "scores": {}}


# --- archive for the test server ------------------------------------------------------------------------------

@pytest.fixture
def with_test_split(mini, tmp_path):
    root = shutil.copytree(mini, tmp_path / "with_test")
    lists = root / "ImageSets/Segmentation"
    shutil.copy(lists / "val.txt", lists / "test.txt")
    return root


def test_archive_is_what_the_server_takes(trained, with_test_split, tmp_path):
    name = read_list(with_test_split / "ImageSets/Segmentation/test.txt")[0]
    path = with_test_split / f"JPEGImages/{name}.jpg"
    Image.open(path).resize((50, 71)).save(path)
    flags = ["--voc12_root", with_test_split, "--split", "test", "--zip", tmp_path / "test.zip"]
    assert predict(trained, *flags, "--competition", "comp5") == 0
    with zipfile.ZipFile(tmp_path / "test.zip") as archive:
        assert len(archive.namelist()) == 8
        with Image.open(archive.open(f"results/VOC2012/Segmentation/comp5_test_cls/{name}.png")) as mask:
            assert mask.mode == "P" and mask.format == "PNG" and mask.size == (50, 71)


# --- bad input ------------------------------------------------------------------------------------------------

@pytest.fixture
def label_folder(mini, tmp_path):
    return shutil.copytree(mini / "SegmentationClassAug", tmp_path / "labels")


def spoil_missing(path):
    path.unlink()


def spoil_size(path):
    write_mask(path, np.zeros((64, 32)))


def spoil_classes(path):
    write_mask(path, np.full((64, 64), 5))


def spoil_colours(path):
    Image.new("RGB", (64, 64)).save(path)


@pytest.mark.parametrize("spoil, message, workers", [
    (spoil_missing, "mask is missing (1 of 24)", 0), (spoil_size, "32x64", 0), (spoil_classes, "class indices [5]", 0),
    (spoil_colours, "mode RGB", 0), (spoil_classes, "class indices [5]", 1)])
def test_bad_masks(label_folder, mini, tmp_path, capsys, spoil, message, workers):
    spoil(label_folder / "mini_train_0003.png")
    assert call("train_deeplab", "--voc12_root", mini, "--work_dir", tmp_path / "run", *SMALL, "--num_workers", workers,
                "--device", "cpu", "--label_dir", label_folder) == 2
    error = capsys.readouterr().err.split("error: ")[-1]
    assert "mini_train_0003.png: " in error and message in error


def test_bad_input_of_training(command, masks, mini, tmp_path, capsys):
    torch.save(build(DESIGN38).state_dict(), tmp_path / "38.pth")
    cases = [
        (["--seg_init", tmp_path / "38.pth"], "38.pth: weights of another network"),
        (["--seg_init", tmp_path / "gone.pth"], "gone.pth: weight file is missing"),
        (["--seg_batch_size", "30"], "24 images make no step"),
        (["--label_dir", tmp_path / "gone"], "gone/mini_train_0001.png: mask is missing (24 of 24)"),
    ]
    for i, (flags, message) in enumerate(cases):
        assert command("train_deeplab", "--work_dir", tmp_path / f"run{i}", *masks, *flags) == 2
        assert message in capsys.readouterr().err
    assert command("train_deeplab", "--work_dir", tmp_path / "no_masks", *SMALL) == 2
    assert "sem_seg: missing; make_sem_seg_labels.py makes it" in capsys.readouterr().err


def test_bad_input_of_prediction(trained, with_test_split, mini, tmp_path, capsys):
    zip_flags = ["--split", "test", "--zip", tmp_path / "x.zip"]
    first = with_test_split / "JPEGImages" / f"{read_list(with_test_split / 'ImageSets/Segmentation/test.txt')[0]}.jpg"
    first.unlink()
    for flags, message in [
        (["--voc12_root", with_test_split, *zip_flags],
         f"{first}: image is missing (1 of 8); VOC has the images of test"),
        (["--voc12_root", mini, *zip_flags], "test.txt: list is missing"),
        (["--voc12_root", mini, *zip_flags[:2]], "belong together"),
        (["--voc12_root", mini, *zip_flags[2:]], "belong together"),
    ]:
        assert predict(trained, *flags) == 2
        assert message in capsys.readouterr().err
    if trained.name == "deeplabv2_resnet101":
        Image.new("RGB", (1, 9)).save(first)
        assert predict(trained, "--voc12_root", with_test_split, *zip_flags) == 2
        assert f"{first}: image of 1x9 pixels" in capsys.readouterr().err


def test_only_our_own_result_is_predicted_with(trained, tmp_path):
    shutil.copy(trained / "config.json", tmp_path)
    torch.save(build(DESIGN).state_dict(), tmp_path / "deeplab.pth")
    with pytest.raises(InputError, match=r"deeplab\.pth: not written by train_deeplab\.py"):
        Predictor(tmp_path, "cpu")
