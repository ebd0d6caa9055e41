"""Stages 8 and 9 on a tiny data set: training, initial weights, prediction, archive, own images, bad input."""

import importlib
import json
import shutil
import sys
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from data.loader import LabelledCrops
from data.sample import InputError, read_list, write_mask
from data.transforms import shift_hsv
from frame import engine
from frame.stage import run_alone
from net.deeplabv2 import DeepLabV2, deeplab_pytorch_name
from net.inputs import CAFFE_BGR_MEAN
from net.resnet38 import DeepLabV1
from report.scores_table import rows
from run_sample import Chain, choose_stages
from segmentation.network import Design, build, build_initialised, image_input, load_trained
from voc12.submission import check_archive, entry_name, write_archive

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


def test_run_sample_knows_the_stages_but_stops_before_them(command, masks, tmp_path, capsys):
    assert command("run_sample", "--work_dir", tmp_path / "run", *masks, "--from", "train_deeplab") == 0
    assert (tmp_path / "run/prediction_crf").is_dir() and "prediction CRF" in capsys.readouterr().out
    assert choose_stages(Chain(), with_irn=True)[-1] == "eval_sem_seg"


def test_learning_rate_falls_every_ten_steps():
    optimizer, scheduler = engine.poly_sgd([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1.0}], 40, 0.9, 0.0,
                                           0.9, every=10)
    seen = []
    for _ in range(40):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert seen == pytest.approx(np.repeat([(1 - k / 4) ** 0.9 for k in range(4)], 10))


def test_accumulated_gradients_are_those_of_the_whole_step():
    def gradient(accumulate):
        weight = torch.nn.Parameter(torch.ones(3))
        training = engine.Training(None, None, None, lambda batch, _: {"total": (batch[0] @ weight).square().mean()},
                                   None, total_steps=1, batch_size=4, accumulate=accumulate)
        losses = engine._backward(training, training.loss, [torch.arange(12.0).view(4, 3)], 0)
        return weight.grad, losses["total"]
    torch.testing.assert_close(gradient(2), gradient(1))


def test_bf16_trains_in_float32_weights(command, masks, tmp_path):
    assert command("train_deeplab", "--work_dir", tmp_path, *masks, "--amp", "bf16", "--balanced_ce") == 0
    weights = torch.load(tmp_path / "deeplab.pth", weights_only=True)["model"]
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32, torch.int64}


# --- images as the networks see them --------------------------------------------------------------------------

def test_each_convention_has_its_normalisation():
    image = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    image[:, 0] = 200                                                             # red
    bgr = image_input(DESIGN._replace(normalisation="bgr"))(image)
    torch.testing.assert_close(bgr[0, :, 0, 0], torch.tensor([0, 0, 200]) - torch.tensor(CAFFE_BGR_MEAN))
    torch.testing.assert_close(image_input(DESIGN)(image)[0, 0, 0, 0].item(), (200 / 255 - 0.485) / 0.229)


def test_scales_come_from_the_list_or_the_range(mini):
    def sides(one_of_scales):
        crops = LabelledCrops(["mini_train_0001"], lambda name: mini / f"JPEGImages/{name}.jpg",
                              lambda name: mini / f"SegmentationClass/{name}.png", num_classes=4, crop=128,
                              scale=(0.5, 1.5), flip=False, seed=0, one_of_scales=one_of_scales)
        boxes = [crops[epoch, 0][1] for epoch in range(20)]
        return {int(box[1] - box[0]) for box in boxes}
    assert sides(True) == {32, 96}
    assert len(sides(False)) > 5 and all(32 <= side <= 96 for side in sides(False))


def test_colour_shift_is_bounded_and_reproducible():
    image = np.random.default_rng(0).integers(60, 200, (8, 8, 3), dtype=np.uint8)
    shifted = [shift_hsv(image, 10, np.random.default_rng(1)) for _ in range(2)]
    assert np.array_equal(*shifted) and not np.array_equal(shifted[0], image)
    assert np.abs(shifted[0].max(2).astype(int) - image.max(2)).max() <= 11       # value, and rounding
    assert np.abs(shift_hsv(image, 0, np.random.default_rng(1)).astype(int) - image).max() <= 3


@pytest.mark.parametrize("size", [(17, 300), (70, 33), (600, 40)])
def test_images_of_any_size_are_predicted_whole(trained, size, tmp_path):
    (tmp_path / "in").mkdir()
    Image.new("RGB", size[::-1], (90, 120, 30)).save(tmp_path / "in/a.png")
    assert predict(trained, "--images", tmp_path / "in", "--no-seg_crf") == 0
    assert np.asarray(Image.open(trained / "prediction_images/mask/a.png")).shape == size


# --- initial weights ------------------------------------------------------------------------------------------

def same(model, other):
    return all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize("prefix, classifier", [("", False), ("base.", True), ("module.base.", True)])
def test_deeplab_pytorch_checkpoints_load(tmp_path, prefix, classifier):
    torch.manual_seed(1)
    theirs = DeepLabV2(5, (1, 1, 1, 1), 4, stride_on_1x1=True)
    state = {prefix + deeplab_pytorch_name(name): tensor for name, tensor in theirs.state_dict().items()
             if (classifier or "aspp" not in name) and "num_batches" not in name}
    torch.save(state, tmp_path / "coco.pth")
    model, design = build_initialised(DESIGN, str(tmp_path / "coco.pth"))
    assert same(model.backbone, theirs.backbone) and same(model.aspp, theirs.aspp) == classifier
    assert design.stride_on_1x1 and design.normalisation == "bgr"
    assert model.backbone.layer2[0].conv1.stride == (2, 2) and model.backbone.layer2[0].conv2.stride == (1, 1)


def test_a_classifier_of_other_classes_starts_anew(tmp_path):
    theirs = DeepLabV2(91, (1, 1, 1, 1), 4, stride_on_1x1=True)
    torch.save({deeplab_pytorch_name(name): tensor for name, tensor in theirs.state_dict().items()}, tmp_path / "a.pth")
    model, _ = build_initialised(DESIGN, str(tmp_path / "a.pth"))
    assert same(model.backbone, theirs.backbone) and model.aspp.c0.bias.shape == (5,)


def test_torchvision_names_load(tmp_path):
    theirs = build(DESIGN)
    torch.save(theirs.backbone.state_dict() | {"fc.weight": torch.zeros(1000, 128), "fc.bias": torch.zeros(1000)},
               tmp_path / "resnet.pth")
    model, design = build_initialised(DESIGN, str(tmp_path / "resnet.pth"))
    assert same(model.backbone, theirs.backbone) and not design.stride_on_1x1 and design.normalisation == "rgb"


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_resnet38_weights_load(tmp_path, prefix):
    theirs = DeepLabV1(5, width=2)
    torch.save({prefix + name: tensor for name, tensor in theirs.backbone.state_dict().items()}, tmp_path / "38.pth")
    model, design = build_initialised(DESIGN38, str(tmp_path / "38.pth"))
    assert same(model.backbone, theirs.backbone) and design.normalisation == "rgb"


def test_our_own_result_keeps_its_conventions(tmp_path):
    wanted = DESIGN._replace(stride_on_1x1=True, normalisation="bgr")
    theirs = build(wanted)
    engine.save_model(tmp_path / "deeplab.pth", theirs, **wanted._asdict(), class_names=list("abcd"))
    model, design = build_initialised(DESIGN, str(tmp_path / "deeplab.pth"))
    assert same(model, theirs) and design == wanted
    again, stored, names = load_trained(tmp_path / "deeplab.pth")
    assert same(again, theirs) and stored == design and names == tuple("abcd")


@pytest.mark.parametrize("state, message", [
    (DeepLabV1(5, width=2).backbone.state_dict(), "deeplabv1_resnet38"),
    ({"encoder.weight": torch.zeros(2)}, "unknown names"),
    (build(DESIGN._replace(blocks=(1, 2, 1, 1))).backbone.state_dict(), "layer2.1.conv1.weight"),
    (build(DESIGN._replace(width=2)).backbone.state_dict(), "of another shape"),
    ({k: v for k, v in build(DESIGN).backbone.state_dict().items() if k != "layer3.0.conv2.weight"}, "missing"),
    (build(DESIGN).backbone.state_dict() | {"extra.weight": torch.ones(3)}, "extra.weight"),
])
def test_weights_of_another_network_are_refused(tmp_path, state, message):
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(InputError, match=message) as error:
        build_initialised(DESIGN, str(tmp_path / "other.pth"))
    assert "other.pth" in str(error.value) and "check --seg" in str(error.value)


@pytest.mark.parametrize("design", [DESIGN, DESIGN38])
def test_imagenet_weights_need_the_network_they_are_of(design):
    with pytest.raises(InputError, match="--seg_init"):
        build_initialised(design, "imagenet")


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


def test_archive_check_finds_what_is_wrong(tmp_path):
    (tmp_path / "image").mkdir()
    for name in "ab":
        Image.new("RGB", (6, 4)).save(tmp_path / f"image/{name}.png")
        write_mask(tmp_path / f"{name}.png", np.full((4, 6), 4))

    def check(ids="ab", competition="comp6"):
        write_archive(tmp_path / "x.zip", tmp_path, list("ab"), "comp6")
        check_archive(tmp_path / "x.zip", list(ids), competition, 4, lambda name: tmp_path / f"image/{name}.png")

    check()
    for wrong in ({"ids": "a"}, {"ids": "abc"}, {"competition": "comp5"}):
        with pytest.raises(InputError, match="entries"):
            check(**wrong)
    for write, message in ((Image.new("L", (6, 4)).save, "mode L"),
                           (partial(write_mask, mask=np.zeros((6, 4))), "4x6"),
                           (partial(write_mask, mask=np.full((4, 6), 9)), "index 9")):
        write(tmp_path / "b.png")
        with pytest.raises(InputError, match=message) as error:
            check()
        assert entry_name("comp6", "b") in str(error.value)
    (tmp_path / "x.zip").write_bytes(b"no zip")
    with pytest.raises(InputError, match="damaged"):
        check_archive(tmp_path / "x.zip", ["a"], "comp6", 4, None)


# --- own images -----------------------------------------------------------------------------------------------

def test_own_images_need_no_data_set(trained, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (40, 30), (200, 30, 30)).save(pictures / "holiday photo.JPG", format="JPEG")
    Image.new("L", (33, 65), 90).save(pictures / "grey.png")
    (pictures / "notes.txt").write_text("no image")
    assert predict(trained, "--images", pictures) == 0
    out = trained / "prediction_images"
    for name, size in (("holiday photo", (40, 30)), ("grey", (33, 65))):
        assert Image.open(out / f"mask/{name}.png").mode == "P" and Image.open(out / f"mask/{name}.png").size == size
        assert Image.open(out / f"overlay/{name}.png").mode == "RGB"
    assert (out / "classes.txt").read_text().splitlines()[0] == "0 background"


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
    (tmp_path / "empty").mkdir()
    (tmp_path / "twice").mkdir()
    for name in ("a.png", "a.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / "twice" / name)
    for flags, message in [
        (["--voc12_root", with_test_split, *zip_flags], f"{first}: image is missing (1 of 8); VOC has the images of test"),
        (["--voc12_root", mini, *zip_flags], "test.txt: list is missing"),
        (["--voc12_root", mini, *zip_flags[:2]], "belong together"),
        (["--voc12_root", mini, *zip_flags[2:]], "belong together"),
        (["--images", tmp_path / "gone"], "gone: no such folder"),
        (["--images", tmp_path / "empty"], "empty: no images in it"),
        (["--images", tmp_path / "twice"], "rename one of the two"),
    ]:
        assert predict(trained, *flags) == 2
        assert message in capsys.readouterr().err
    Image.new("RGB", (1, 9)).save(tmp_path / "empty/thin.png")
    if trained.name == "deeplabv2_resnet101":
        assert predict(trained, "--images", tmp_path / "empty") == 2
        assert "thin.png: image of 1x9 pixels" in capsys.readouterr().err
    assert predict(tmp_path / "untrained", "--images", tmp_path / "twice") == 2


def test_only_our_own_result_is_predicted_with(tmp_path, capsys):
    torch.save(build(DESIGN).state_dict(), tmp_path / "deeplab.pth")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert predict(tmp_path, "--images", tmp_path) == 2
    assert "deeplab.pth: not written by train_deeplab.py" in capsys.readouterr().err
