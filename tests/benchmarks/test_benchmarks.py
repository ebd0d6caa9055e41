"""The plain readings of benchmarks/plain.py give what our code gives; nothing here is timed."""

import json
import sys

import numpy as np
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import ir_labels, plain
from benchmarks.evaluation import evaluation, our_miou, plain_miou
from benchmarks.floors import count_operations
from benchmarks.measure import Setup
from benchmarks.relations import label_gap, walk_input, walk_step_by_step
from benchmarks.start_up import child_seconds
from benchmarks.train_step import StepSize, our_step, plain_step, random_batch
from data.cam_store import CamRecord, write_record
from data.image_bank import ImageBank
from data.loader import TrainCrops
from net.inputs import ImageInput
from net.irn import PathIndex
from net.sfc import valid_mask
from refine.crf import ir_label
from refine.fusion import read_final_cam
from refine.metrics import ConfusionMatrix
from refine.random_walk import propagate, transition_matrix
from voc12.voc import Voc12

TINY_STEP = StepSize("mini", 64, 3, 2, num_classes=4)


@pytest.mark.parametrize("radius", [2, 5])
def test_dense_walk(radius):
    cam, edge = walk_input(9, 11)
    ours = propagate(cam, edge, radius=radius)
    dense = plain.dense_walk(cam, edge, radius=radius)
    np.testing.assert_allclose(ours, dense, atol=2e-6)
    assert label_gap(ours, dense) == 0
    transition = transition_matrix(edge[0], 10, radius).toarray()
    np.testing.assert_allclose(transition.T, plain.dense_transition(edge[0], 10, radius), atol=1e-12)
    if radius == 5:
        np.testing.assert_allclose(ours, walk_step_by_step(cam, edge), atol=2e-6)


def test_training_steps_give_the_same_losses():
    batch, float_batch = random_batch(TINY_STEP)
    device = torch.device("cpu")
    ours, theirs = our_step(TINY_STEP, device), plain_step(TINY_STEP, device)
    for _ in range(3):                              # the later ones see weights that the earlier ones changed
        assert ours(batch) == pytest.approx(theirs(float_batch), rel=1e-4)


def test_a_crop_of_bytes_and_a_box_says_what_the_float_crop_says(mini):
    data_set = Voc12(mini)
    ids, _ = data_set.split("train")
    labels = data_set.image_labels(ids)
    ours, theirs = (kind(ids, labels, data_set.image_path, crop=64, resize_long=(40, 90), flip=True, seed=0)
                    for kind in (TrainCrops, plain.FloatCrops))
    for key in [(0, 0), (0, 1), (1, 0), (1, 5)]:
        image, box, label = (part[None] for part in ours[key])
        pixels, mask, float_label = theirs[key]
        torch.testing.assert_close(ImageInput()(image, box)[0], pixels)
        assert torch.equal(valid_mask(box, label, (64, 64), 1)[0].float(), mask)
        assert torch.equal(label[0].float(), float_label)


def test_banks_draw_the_same_samples():
    bank, host = ImageBank(3, 2, torch.device("cpu")), plain.HostBank(3)
    images = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 3, 2, 2).contiguous()
    labels = torch.tensor([[1, 0, 0], [1, 0, 1], [0, 0, 1], [0, 0, 0]], dtype=torch.uint8)
    bank.update(images, torch.zeros(4, 4, dtype=torch.int64), labels)
    host.update(images, images, labels)
    drawn = bank.draw(8, torch.Generator().manual_seed(1))[0]
    expected = host.draw(8, torch.Generator().manual_seed(1))
    assert torch.equal(drawn, torch.stack([image for image, _, _ in expected]))


def test_path_maxima():
    path_index = PathIndex(4)
    edge = torch.rand(2, 9, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(path_index.path_maximum(edge), plain.path_maximum(path_index, edge))


def test_records_hold_the_full_size_maps(tmp_path):
    rng = torch.Generator().manual_seed(0)
    maps = [[torch.rand(3, 6 * s, 8 * s, generator=rng) for s in (1, 2)] for _ in range(2)]
    write_record(tmp_path / "a.npz", CamRecord(np.array([2, 5]), (45, 61), *maps), num_classes=5)
    cam, keys = read_final_cam(tmp_path / "a.npz", 5, 0.7, 0.4)
    expected = plain.final_cam(*(plain.full_size(kind, (45, 61)) for kind in maps), 0.7)
    torch.testing.assert_close(cam, expected, atol=1e-4, rtol=0)
    assert keys.tolist() == [0, 2, 5]


def test_processes_are_compared_by_what_they_and_their_parent_compute(monkeypatch):
    monkeypatch.setattr(ir_labels, "processor_time", lambda work, name: {"a": 1, "b": 3, "c": 2}[name])
    clock = iter([10, 10.5])                                           # of the parent, before and after
    monkeypatch.setattr(ir_labels.time, "process_time", lambda: next(clock))
    assert ir_labels.timed_run(None, ["a", "b", "c"], workers=2)[0] == 0.5 + 6 / 2


@pytest.mark.parametrize("case", ["two classes", "one class only", "background only"])
def test_ir_labels(case):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (20, 24, 3), np.uint8)
    cam = rng.random((3, 20, 24)).astype(np.float32)
    if case == "one class only":
        cam[1] += 5
    if case == "background only":
        cam[0] += 5
    keys = np.array([0, 3, 7])
    assert np.array_equal(ir_label(image, cam, keys), plain.ir_label(image, cam, keys))


def test_miou():
    rng = np.random.default_rng(0)
    predictions, truths = ([rng.integers(0, high, (7, 9)) for _ in range(3)] for high in (4, 6))
    truths[1][2:4] = 255
    confusion = ConfusionMatrix(7)
    for prediction, truth in zip(predictions, truths):
        confusion.update(prediction, truth)
    assert plain.miou(predictions, truths, 7) == pytest.approx(confusion.miou())


def test_the_scores_of_the_evaluation_benchmark_agree(mini, tmp_path):
    data_set = Voc12(mini)
    ids, _ = data_set.split("val")
    setup = Setup(torch.device("cpu"), tmp_path, data_set, ids, 2, None)
    rows = evaluation(setup, images=8)
    assert [row.target for row in rows] == [">= 200", "<= 1.05"]
    assert our_miou(setup, ids) == pytest.approx(plain_miou(setup, ids))


def test_command_writes_the_table_as_json(mini, tmp_path, monkeypatch, capsys):
    file = tmp_path / "out" / "numbers.json"
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--only", "loader", "--voc12_root", str(mini), "--device", "cpu",
                                      "--json", str(file)])
    command.main()
    rows = json.loads(file.read_text())["rows"]["loader"]
    assert rows[0]["ours"] <= 0.8 and rows[0]["met"] and len(rows) == 2
    assert "MB a sample" in capsys.readouterr().out


def test_operations_are_counted_without_computing():
    weight = torch.zeros(3, 5, device="meta")
    assert count_operations(lambda: torch.zeros(2, 3, device="meta") @ weight) == 2 * 2 * 3 * 5


def test_processor_time_of_a_command_that_must_end_as_expected():
    assert child_seconds(["-c", "sum(range(10 ** 6)); exit(2)"], 2) > 0
    with pytest.raises(RuntimeError, match=r"ended with 3 instead of 0: .*no such thing"):
        child_seconds(["-c", "import sys; print('no such thing', file=sys.stderr); sys.exit(3)"], 0)
