"""The analysis of a run: a network, records and gradients whose numbers are known by hand, and the command."""

import csv
import json
import shutil
from math import log, sqrt

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from data.cam_store import CamRecord
from data.sample import InputError, read_list
from net.resnet import Backbone
from net.sfc import SFCNet
from paper import analysis_page, conclusions
from paper.analysis import analyse, spaced
from paper.cam_counts import CamCounts, part_index
from paper.shared_features import GradientSums, PrototypeMeans, RegionMeans, observe, projection
from tools import analyse as command

HEAD, TAIL = 1, 2
RED, GREEN, BLUE = np.eye(3, dtype=np.uint8) * 255      # features of the shared part and of the two other parts


class Colours(Backbone):
    """All four feature maps are the image itself, its colours in [0, 1]."""

    widths, stem_width, stride, mean, std = (3, 3, 3, 3), 3, 1, (0, 0, 0), (1, 1, 1)

    def __init__(self):
        super().__init__()
        self.stem = self.stage1 = self.stage2 = self.stage3 = self.stage4 = torch.nn.Identity()


@pytest.fixture
def known():
    """W_head likes red, the colour of the shared part, W_tail dislikes it; side features are colours."""
    model = SFCNet(Colours(), num_classes=2).eval()
    with torch.no_grad():
        for layer in (model.side1, model.side2, model.side3, model.side4):
            layer.weight[:] = torch.eye(len(layer.weight), 3)[:, :, None, None]
        model.pcm_feature.weight[:] = torch.eye(3, 6).roll(3, 1)[:, :, None, None]     # the image does not count
        model.classifier.weight[:] = torch.tensor([[1.0, 2, -1], [-1, -1, 3]])[:, :, None, None]
    return model


def picture(*colours):
    """(1, 3, 2, W) uint8 of columns of the given colours."""
    return torch.from_numpy(np.stack([colours, colours]).transpose(2, 0, 1)[None].copy())


# --- features -----------------------------------------------------------------------------------------------------

def test_projections_on_mean_features_of_parts(known):
    """Head: a shared and a green column; tail: a shared and a blue one; black background."""
    seen = observe(known, picture(RED, GREEN, RED, BLUE, 0 * RED), torch.tensor([[1, 1]]))
    truth, parts = np.array([[1, 1, 2, 2, 0]] * 2), np.array([[1, 2, 1, 2, 0]] * 2)
    means = RegionMeans(2, 3)
    means.update(seen.top_features[0], truth, parts)
    weights = known.classifier.weight.detach().flatten(1)
    head, tail = (conclusions.projections(weights[index - 1], means, index, [HEAD, TAIL]) for index in (HEAD, TAIL))

    assert seen.score[0].tolist() == pytest.approx([(1 + 2 + 1 - 1 + 0) / 5, (-1 - 1 - 1 + 3 + 0) / 5])
    assert {region: found["projection"] for region, found in head.items()} == pytest.approx(
        {"own": 1.5, "others": 0, "background": 0, "shared": 1, "discriminative": 2, "f0": 1, "f0_others": 1})
    assert {region: found["projection"] for region, found in tail.items()} == pytest.approx(
        {"own": 1, "others": -1, "background": 0, "shared": -1, "discriminative": 3, "f0": -1, "f0_others": -1})
    assert head["f0"]["cosine"] == pytest.approx(1 / sqrt(6)) and tail["f0"]["cosine"] == pytest.approx(-1 / sqrt(11))
    assert head["own"]["cosine"] == pytest.approx(1.5 / (sqrt(6) * sqrt(0.5))) and head["background"]["cosine"] is None


def test_region_means_weight_cells_by_their_pixels():
    """Two cells of features 1 and 4; the region covers the first and half of the second: (1 + 4 / 2) / 1.5."""
    means = RegionMeans(1, 1)
    truth = np.array([[1, 1, 1, 255]] * 2)
    means.update(torch.tensor([[[1.0, 4.0]]]), truth, np.zeros_like(truth))
    assert means.mean(0, [1]).tolist() == pytest.approx([2])
    assert means.mean(0, [0]) is None and means.mean(1, [1]) is None


def test_prototypes_of_known_seeds(known):
    """Green pixels are seeds of the head, blue ones of the tail; each colour stands in the four side projections."""
    seen = observe(known, picture(GREEN, GREEN, BLUE, BLUE), torch.tensor([[1, 1]]))
    means = PrototypeMeans(2, 768)
    means.update(seen.prototypes, seen.seeded)
    alone = observe(known, picture(GREEN, GREEN, BLUE, BLUE), torch.tensor([[1, 0]]))
    means.update(alone.prototypes, alone.seeded)                        # an image without tail: no seed of it
    expected = torch.zeros(2, 768, dtype=torch.float64)
    expected[0, [1, 129, 257, 513]] = expected[1, [2, 130, 258, 514]] = 1
    assert means.images.tolist()[1:] == [2, 1]
    assert torch.allclose(torch.stack([means.mean(HEAD), means.mean(TAIL)]), expected, atol=1e-4)


def test_projection_of_what_is_missing():
    assert projection(None, torch.ones(3)) == projection(torch.ones(3), None) == (None, None)
    assert projection(torch.ones(2), torch.zeros(2)) == (0, None)


# --- gradients ----------------------------------------------------------------------------------------------------

def test_gradient_sums_by_hand():
    """sigmoid(log 3) = 0.75. Head positives: images 0, 1; tail: images 1, 2; divided by C = 2."""
    score = torch.tensor([[log(3), 0], [0, -log(3)], [log(3), log(3)]])
    labels = torch.tensor([[1, 0], [1, 1], [0, 1]])
    sums = GradientSums(torch.ones(2, 2).bool())
    sums.update(score[:2], labels[:2])
    sums.update(score[2:], labels[2:])
    head, tail = sums.of_class(0), sums.of_class(1)
    assert (head["sum_positive"], head["sum_negative"]) == pytest.approx(((0.25 + 0.5) / 2, 0.75 / 2))
    assert (tail["sum_positive"], tail["sum_negative"]) == pytest.approx(((0.75 + 0.25) / 2, 0.5 / 2))
    assert head["mean_positive"] == pytest.approx(0.1875) and head["ratio"] == pytest.approx(1)
    assert tail["ratio"] == pytest.approx(2) and tail["ratio_at_start"] == 2 / 1


def test_gradients_are_those_of_the_loss():
    generator = torch.Generator().manual_seed(0)
    score = torch.randn(6, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = (torch.rand(6, 4, generator=generator) < 0.4).long()
    (F.multilabel_soft_margin_loss(score, labels.double()) * len(score)).backward()
    sums = GradientSums(torch.zeros(4, 4).bool())
    sums.update(score.detach(), labels)
    expected = torch.stack([score.grad.abs() * labels, score.grad.abs() * (1 - labels)]).sum(1)
    assert torch.allclose(sums.sums[:2], expected, atol=1e-12)


def test_negatives_that_show_the_shared_part():
    """Classes 0 and 1 share a part, 2 does not: of class 0's negatives, only the image of class 1 shows it."""
    kin = conclusions.kin_matrix(("a", "b", "c"), {"body": ["a", "b"], "other": ["c"]})
    assert kin.tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    sums = GradientSums(kin)
    sums.update(torch.tensor([[0.0, 0, 0], [log(3), 0, 0], [log(9), 0, 0]]), torch.eye(3, dtype=torch.int64))
    first = sums.of_class(0)
    assert first["kin_negatives"] == 1 and first["ratio_kin"] == pytest.approx(0.5 / 0.75)
    assert first["ratio"] == pytest.approx(0.5 / (0.75 + 0.9))
    assert sums.of_class(2)["ratio_kin"] is None                        # no other class has its part


def test_a_class_that_no_image_shows_has_no_ratio():
    sums = GradientSums(torch.zeros(2, 2).bool())
    sums.update(torch.zeros(3, 2), torch.tensor([[1, 0]] * 3))
    assert sums.of_class(1)["ratio"] is None and sums.of_class(1)["positives"] == 0


# --- maps ---------------------------------------------------------------------------------------------------------

TRUTH = np.array([[1, 1, 2, 2],
                  [1, 1, 2, 0]], np.uint8)
PARTS = np.array([[1, 2, 1, 2],
                  [1, 2, 1, 0]], np.uint8)


def hand_made(background_on_shared_tail):
    """M_W gives the tail's two shared pixels to the head; M_P is right. Channels: background, head, tail."""
    b = background_on_shared_tail
    weight = np.array([[[.3, .3, b, .3], [.3, .3, b, 1]],
                       [[1, 1, .8, 0], [1, 1, .8, 0]],
                       [[0, 0, 0, 1], [0, 0, 0, 0]]], np.float16)
    prototype = np.stack([TRUTH == 0, TRUTH == HEAD, TRUTH == TAIL]).astype(np.float16)
    return CamRecord(np.array([HEAD, TAIL]), (2, 4), [weight], [prototype])


def rows_of(record, parts=PARTS):
    counts = CamCounts(2, parts is not None)
    counts.update(record, TRUTH, np.zeros_like(TRUTH) if parts is None else part_index(parts, beside_head=True))
    merged = CamCounts(2, parts is not None)
    merged.merge(counts)
    rows = conclusions.map_rows(merged, ("head", "tail"), HEAD)
    return {(row["class"], row["map"], row["background"]): row for row in rows}


def test_over_and_under_activation_of_known_maps():
    rows = rows_of(hand_made(0.3))
    head, tail = rows["head", "weight_cam", "argmax"], rows["tail", "weight_cam", "argmax"]
    assert (head["area_ratio"], tail["area_ratio"]) == pytest.approx((6 / 4, 1 / 3))
    assert (head["iou"], head["precision"], head["recall"]) == pytest.approx((400 / 6, 400 / 6, 100))
    assert (tail["iou"], tail["precision"], tail["recall"]) == pytest.approx((100 / 3, 100, 100 / 3))
    assert (tail["recall_shared"], tail["recall_discriminative"]) == (0, 100)
    assert (tail["shared_pixels_beside_head"], tail["shared_as_head"]) == (2, 100)
    assert (head["shared_pixels_beside_head"], head["shared_as_head"]) == (0, None)
    for name in ("prototype_cam", "final_cam"):                         # 0.8 + 0 of the head, 0 + 1 of the tail
        assert rows["tail", name, "argmax"]["area_ratio"] == rows["head", name, "argmax"]["area_ratio"] == 1
        assert rows["tail", name, "argmax"]["shared_as_head"] == 0


def test_oracle_threshold_undoes_a_strong_background():
    """A background of 0.9 hides that M_W gives the shared pixels to the head; every threshold up to 0.79 shows it."""
    rows = rows_of(hand_made(0.9))
    assert rows["head", "weight_cam", "argmax"]["area_ratio"] == 1
    assert rows["tail", "weight_cam", "argmax"]["shared_as_head"] == 0
    oracle = rows["head", "weight_cam", "oracle"]
    assert oracle["area_ratio"] == 1.5 and oracle["threshold"] == 0.01
    assert rows["tail", "weight_cam", "oracle"]["shared_as_head"] == 100


def test_maps_without_part_masks():
    row = rows_of(hand_made(0.3), parts=None)["head", "weight_cam", "argmax"]
    assert row["area_ratio"] == 1.5
    assert row["recall_shared"] is None and row["recall_discriminative"] is None and row["shared_as_head"] is None


# --- tables -------------------------------------------------------------------------------------------------------

def test_spearman_of_known_ranks():
    """Ranks 1 2 3 against 3 1 2: rho = 1 - 6 * 6 / (3 * 8); the class without training image does not count."""
    found = conclusions.spearman([5, 60, 700, 0], [3.0, 1.0, 2.0, 9.0])
    assert found["rho"] == pytest.approx(-0.5) and found["classes"] == 3


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0], [1.0, 2.0, None]])
def test_spearman_of_too_little(values):
    assert conclusions.spearman([1, 2, 3], values)["rho"] is None


def test_evenly_spaced_ids():
    ids = [str(i) for i in range(9)]
    assert spaced(ids, 3) == ["0", "4", "8"] and spaced(ids, 20) == spaced(ids, None) == ids


def test_mean_over_runs():
    """rho of 0.2 and 0.6: mean 0.4, standard deviation 0.4 / sqrt 2; of -0.1 and none, none agrees with the sign."""
    def result(first, second):
        means = {"mean_many": 1.0, "mean_medium": None, "mean_few": 3.0}
        area = {"conclusion": "2", "quantity": "area", "expected": "rho > 0, few < 1 < many", "rho": first}
        cosine = {"conclusion": "1", "quantity": "cosine", "expected": "rho > 0", "rho": second}
        return {"conclusions": [area | means, cosine | means]}

    lines = [[cell.strip() for cell in line.split("|")[1:-1]]
             for line in analysis_page.across_runs([result(0.2, -0.1), result(0.6, None)]).splitlines()[2:]]
    assert lines[0] == ["2", "area", "rho > 0, few < 1 < many", "0.4 ± 0.283", "2 of 2", "1 ± 0", "–", "3 ± 0"]
    assert lines[1][3:5] == ["-0.1", "0 of 1"]


# --- the command --------------------------------------------------------------------------------------------------

def call(*arguments):
    """Exit status of the command."""
    try:
        command.main([*map(str, arguments), "--num_workers", "0", "--device", "cpu"])
    except SystemExit as stop:
        return stop.code
    return 0


def test_command_writes_everything(copy, mini, capsys):
    assert call(copy) == 0
    folder = copy / "analysis"
    assert {path.name for path in folder.iterdir()} == {
        "analysis.json", "analysis.csv", "analysis.md", "area_ratio.png", "iou.png", "projection.png", "gradient.png"}
    result = json.loads((folder / "analysis.json").read_text())
    names = (mini / "classes.txt").read_text().split()
    with open(folder / "analysis.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(names) * 3 * 2 and {row["class"] for row in rows} == set(names)
    assert "W_c, cosine on f0_others" in capsys.readouterr().out
    assert "| final_cam" in (folder / "analysis.md").read_text()

    metrics = json.loads((copy / "metrics.json").read_text())
    counts = metrics["train_sfc"]["class_counts"]
    assert [entry["n_c"] for entry in result["classes"]] == counts
    assert [entry["gradient"]["positives"] for entry in result["classes"]] == counts
    assert result["head"] == names[int(np.argmax(counts))]


def test_maps_agree_with_eval_cam(copy):
    result = analyse(copy)
    metrics = json.loads((copy / "metrics.json").read_text())["eval_cam"]
    theirs = {"weight_cam": "weight_cam", "prototype_cam": "prototype_cam", "final_cam": "final_cam 1"}
    for row in result["maps"]:
        if row["background"] == "argmax":
            scores = metrics["scores"][theirs[row["map"]]]
            assert row["iou"] == pytest.approx(scores["class_iou"][row["class"]])
            assert row["area_ratio"] == pytest.approx(scores["class_area_ratio"][row["class"]])
        else:
            assert row["threshold"] == metrics["threshold_sweep"][theirs[row["map"]]]["oracle_threshold"]


def test_list_and_limit(copy, mini, tmp_path):
    ids = read_list(mini / "ImageSets/Segmentation/train.txt")
    (tmp_path / "some.txt").write_text("\n".join(ids[:5]))
    result = analyse(copy, ids_list=tmp_path / "some.txt", limit=3)
    assert result["images"] == 3 and result["training_images"] == 3


def test_data_set_without_part_masks(copy, mini, tmp_path):
    root = shutil.copytree(mini, tmp_path / "data", ignore=shutil.ignore_patterns("SegmentationPart"))
    config = copy / "config.json"
    config.write_text(config.read_text().replace(json.dumps(str(mini)), json.dumps(str(root))))
    result = analyse(copy)
    assert {row["recall_shared"] for row in result["maps"]} == {None}
    weight = result["classes"][0]["weight"]
    assert weight["f0"]["cosine"] is None and weight["others"]["cosine"] is not None


@pytest.mark.parametrize("missing, message", [("sfc.pth", "run train_sfc.py"), ("cam", "run make_cam.py")])
def test_run_without_network_or_records(copy, missing, message, capsys):
    shutil.rmtree(copy / missing) if (copy / missing).is_dir() else (copy / missing).unlink()
    assert call(copy) == 2
    error = capsys.readouterr().err
    assert missing in error and message in error


def test_images_without_record_or_mask(copy, mini, tmp_path):
    ids = read_list(mini / "ImageSets/Segmentation/train.txt")
    listed = tmp_path / "list.txt"
    listed.write_text(ids[0])
    (copy / "cam" / f"{ids[0]}.npz").unlink()
    with pytest.raises(InputError, match=r"CAM record is missing .1 of 1.*make_cam"):
        analyse(copy, ids_list=listed)
    assert analyse(copy)["images"] == len(ids) - 1              # without a list: those that have a record
    root = shutil.copytree(mini, tmp_path / "data")
    for folder in ("SegmentationClass", "SegmentationClassAug"):
        (root / folder / f"{ids[1]}.png").unlink()
    config = copy / "config.json"
    config.write_text(config.read_text().replace(json.dumps(str(mini)), json.dumps(str(root))))
    with pytest.raises(InputError, match=r"mask is missing .1 of.*--ids_list"):
        analyse(copy)


def test_another_training_list_is_refused(finished, mini):
    with pytest.raises(InputError, match=r"8 ids.*trained on 24 ids.*--train_list"):
        analyse(finished, train_list=mini / "ImageSets/Segmentation/val.txt")
