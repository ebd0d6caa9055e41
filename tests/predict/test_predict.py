"""`tools.predict`: photographs of every kind, masks as the chain makes them, and what is refused."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from data.sample import InputError, read_list, read_photo
from data.transforms import resize
from predict.folder import Request, predict_folder
from predict.predictor import Predictor
from report.finished_run import FinishedRun
from tests.helpers import ROOT
from tools import predict as command

ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def predictor(finished):
    return Predictor(finished, "cpu")


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


def run(finished, photos, out, *flags):
    """The command, in this process -> exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        try:
            command.main([str(finished), "--images", str(photos), "--out", str(out), "--device", "cpu",
                          "--num_workers", "0", *flags])
        except SystemExit as stop:
            return stop.code
    return 0


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_masks_are_those_of_the_chain(finished, predictor, mini, tmp_path):
    """Up to the 16 bits of a CAM record."""
    data_set, name = FinishedRun(finished).data_set, read_list(mini / "ImageSets/Segmentation/train.txt")[0]
    labels = [data_set.class_names[index] for index in data_set.image_labels([name])[0].nonzero()[0]]
    (tmp_path / "in").mkdir()
    (tmp_path / f"in/{name}.jpg").write_bytes(data_set.image_path(name).read_bytes())
    predict_folder(predictor, Request(tmp_path / "in", labels, 0.5, tmp_path / "out"), 0)
    mask, of_chain = (np.asarray(Image.open(folder / f"{name}.png")) for folder in (tmp_path / "out/walk",
                                                                                     finished / "sem_seg"))
    assert (mask == of_chain).mean() > 0.995 and mask.max() > 0
    confident = np.asarray(Image.open(finished / f"ir_label/{name}.png"))
    refined = np.asarray(Image.open(tmp_path / f"out/label_crf/{name}.png"))
    assert (refined == confident)[confident != 255].mean() > 0.995                # the first of its two CRFs


def test_every_kind_of_file(finished, photos, tmp_path, caplog):
    Image.fromarray(noise(30, 50)).save(photos / "upright.jpg")
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(noise(30, 50)).save(photos / "turned.jpg", exif=exif)
    Image.fromarray(noise(20, 20)).convert("RGBA").save(photos / "alpha.png")
    Image.fromarray(noise(20, 20)).convert("P").save(photos / "palette.gif")
    Image.fromarray(noise(7, 90)[..., 0]).save(photos / "grey.bmp")
    Image.new("RGB", (1, 1)).save(photos / "a dot.webp")
    Image.fromarray(noise(500, 300)).save(photos / "large.png")
    (photos / "upright.json").write_text("{}")                                    # beside its image, as phones save it
    (photos / "notes.txt").write_text("no image")
    (photos / "torn.jpg").write_bytes((photos / "upright.jpg").read_bytes()[:400])
    (photos / ".hidden").write_text("")
    assert run(finished, photos, tmp_path / "out") == 0
    sizes = {"upright": (30, 50), "turned": (50, 30), "alpha": (20, 20), "palette": (20, 20), "grey": (7, 90),
             "a dot": (1, 1), "large": (500, 300)}
    for kind in ("label_crf", "walk"):
        assert {path.stem: np.asarray(Image.open(path)).shape for path in (tmp_path / "out" / kind).iterdir()} == sizes
    assert {path.stem: Image.open(path).size[::-1] for path in (tmp_path / "out/overlay").iterdir()} == sizes
    told = json.loads((tmp_path / "out/scores.json").read_text())
    for name, entry in told.items():
        assert entry["classes"] == [c for c in entry["classes"] if entry["scores"][c] >= 0.5]
        assert list(entry["scores"].values()) == sorted(entry["scores"].values(), reverse=True)
        assert len(list((tmp_path / "out/heat").glob(f"{name}_*.jpg"))) == len(entry["classes"])
    assert told.keys() == sizes.keys() and list((tmp_path / "out").rglob("*.tmp")) == []
    assert [record.getMessage().split(": ")[1].rsplit("/", 1)[1] for record in caplog.records
            if "left out" in record.getMessage()] == ["notes.txt", "upright.json", "torn.jpg"]
    page = (tmp_path / "out/index.html").read_text()
    assert page.count("<img") == sum(4 + len(entry["classes"]) for entry in told.values()) and "a dot" in page


def test_large_images_are_computed_at_the_size_of_the_runs_own(predictor):
    assert predictor.max_side == 64
    assert predictor.evidence(noise(100, 200)).image.shape == (32, 64, 3)
    assert predictor.evidence(noise(9, 20)).image.shape == (9, 20, 3)


def test_each_class_has_a_probability_of_its_own(predictor):
    assert abs(predictor.scores(noise(64, 64)).sum() - 1) > 0.01


def test_transparent_pixels_are_white(tmp_path):
    Image.new("RGBA", (2, 1), (10, 20, 30, 0)).save(tmp_path / "a.png")
    assert read_photo(tmp_path / "a.png").tolist() == [[[255] * 3] * 2]


def test_labels_and_threshold_choose_the_classes(finished, predictor, photos, tmp_path):
    Image.fromarray(noise(40, 40)).save(photos / "a.png")
    first, last = predictor.class_names[0], predictor.class_names[-1]

    def classes_of(*flags):
        assert run(finished, photos, tmp_path / "out", *flags) == 0
        return json.loads((tmp_path / "out/scores.json").read_text())["a"]["classes"]

    assert classes_of("--labels", f"{last}, {first}") == [first, last]
    assert classes_of("--threshold", "0") == list(predictor.class_names)
    assert classes_of("--threshold", "1") == []
    for kind in ("label_crf", "walk"):
        assert np.asarray(Image.open(tmp_path / f"out/{kind}/a.png")).max() == 0


def test_masks_made_larger_again_hold_no_other_class(finished, predictor, mini, photos, tmp_path):
    data_set, ids = FinishedRun(finished).data_set, read_list(mini / "ImageSets/Segmentation/train.txt")
    of_class_2 = [name for name, label in zip(ids, data_set.image_labels(ids)) if label[1]][:4]
    for name in of_class_2:
        image = Image.open(data_set.image_path(name))
        image.resize((4 * image.width, 4 * image.height)).save(photos / f"{name}.png")
    names = [predictor.class_names[index] for index in (1, 3)]
    assert run(finished, photos, tmp_path / "out", "--labels", ",".join(names)) == 0
    shown = [set(np.unique(Image.open(path)).tolist()) for path in (tmp_path / "out/label_crf").iterdir()]
    assert any(len(values) > 1 for values in shown) and set.union(*shown) <= {0, 2, 4}


def test_cams_from_python(predictor):
    image, names = noise(40, 60), predictor.class_names
    cams, = predictor.cams([image], [[names[1]]])
    assert cams.classes == (names[1],) and cams.scores.keys() == set(names)
    assert {tuple(cam.shape) for cam in cams[2:]} == {(2, 40, 60)}
    of_photo, of_picture = predictor.cams([image, Image.fromarray(resize(image, (100, 150)))])
    assert of_photo.final_cam.shape[1:] == (40, 60) and of_picture.final_cam.shape[1:] == (100, 150)


def test_torch_hub_gives_the_run(finished, mini):
    sfc = torch.hub.load(str(ROOT), "sfc", source="local", run=finished, device="cpu")
    cams, = sfc.cams([next((mini / "JPEGImages").iterdir())], [[sfc.class_names[2]]])
    assert cams.classes == (sfc.class_names[2],) and cams.final_cam.shape == (2, 64, 64)


def test_refused(finished, photos, tmp_path, capsys):
    cases = [(photos, [], "photos: no files in it"), (tmp_path / "gone", [], "gone: no such folder")]
    for folder, flags, message in cases:
        assert run(finished, folder, tmp_path / "out", *flags) == 2 and message in capsys.readouterr().err
    (photos / "notes.txt").write_text("no image")
    assert run(finished, photos, tmp_path / "only_text") == 2
    assert "none of its 1 files is an image" in capsys.readouterr().err
    (photos / "torn.jpg").write_bytes(b"no image")
    assert run(finished, photos, tmp_path / "only_torn") == 2
    assert "none of its 1 files is an image" in capsys.readouterr().err
    (photos / "torn.jpg").unlink()
    Image.new("RGB", (9, 9)).save(photos / "a.png")
    assert run(finished, photos, tmp_path / "out", "--labels", "unicorn") == 2
    assert "--labels unicorn: the run knows no such class" in capsys.readouterr().err
    Image.new("RGB", (9, 9)).save(photos / "a.jpg")
    assert run(finished, photos, tmp_path / "out") == 2 and "rename one of the two" in capsys.readouterr().err
    assert run(photos, photos, tmp_path / "out") == 2 and "config.json: missing" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_run_without_networks(copy):
    (copy / "sfc.pth").unlink()
    with pytest.raises(InputError, match=r"neither sfc\.pth nor deeplab\.pth"):
        Predictor(copy, "cpu")


def test_a_run_whose_checkpoint_is_gone(copy):
    """Another's file, by a path that may be relative to where the run was started."""
    (copy / "sfc.pth").unlink()
    config = json.loads((copy / "config.json").read_text())
    config["make_cam"]["settings"]["checkpoint"] = "authors/best.pth"
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"^authors/best\.pth: missing, the --checkpoint that .*copy was made with; "):
        Predictor(copy, "cpu")
