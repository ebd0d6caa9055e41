import sys
from unittest.mock import Mock

import numpy as np
import pytest

from refine import crf
from tests.helpers import assert_golden


@pytest.fixture
def scene():
    """Image of a bright square on a dark ground, and its true label."""
    label = np.zeros((40, 50), np.int64)
    label[10:30, 15:35] = 1
    noise = np.random.default_rng(0).integers(-8, 9, (40, 50, 3))
    return np.uint8(60 + 120 * label[..., None] + noise), label


def flip_pixels(label, share):
    wrong = np.random.default_rng(1).random(label.shape) < share
    return np.where(wrong, 1 - label, label)


def count_runs(monkeypatch):
    """Replace the label-CRF by one that returns its input, and list the inputs."""
    runs = []

    def identity(field, labels):
        runs.append(labels)
        return labels

    monkeypatch.setattr(crf, "crf_inference_label", identity)
    return runs


def test_reference_vectors():
    pytest.importorskip("pydensecrf")
    assert_golden("crf_ir_label.npz")


def test_label_crf_removes_noise(scene):
    pytest.importorskip("pydensecrf")
    image, label = scene
    noisy = flip_pixels(label, 0.2)
    refined = crf.crf_inference_label(crf.MeanField(image, num_labels=2), noisy)
    assert (noisy == label).mean() < 0.85
    assert (refined == label).mean() > 0.995


def test_probability_crf_removes_noise(scene):
    pytest.importorskip("pydensecrf")
    image, label = scene
    foreground = np.where(flip_pixels(label, 0.2) == 1, 0.7, 0.3)
    settings = crf.CRF(bilateral_sxy=80, bilateral_srgb=13)
    refined = crf.crf_inference_probs(crf.MeanField(image, 2, settings), np.stack([1 - foreground, foreground]))
    assert refined.shape == (2, 40, 50) and refined.dtype == np.float32
    np.testing.assert_allclose(refined.sum(axis=0), 1, atol=1e-4)
    assert (refined.argmax(axis=0) == label).mean() > 0.995


@pytest.mark.parametrize("num_labels", [2, 3, 21])
def test_constant_map_is_what_the_crf_itself_returns(scene, num_labels):
    pytest.importorskip("pydensecrf")
    image, _ = scene
    labels = np.full((40, 50), num_labels - 1)
    _, utils = crf.import_pydensecrf()
    unary = utils.unary_from_labels(labels, num_labels, gt_prob=0.7, zero_unsure=False)
    field = crf.MeanField(image, num_labels)
    np.testing.assert_array_equal(crf.crf_inference_label(field, labels), field.marginals(unary).argmax(axis=0))


def test_both_crfs_of_an_ir_label_share_their_lattices(scene, monkeypatch):
    """They are built once, and the labels are those of a field for each."""
    pytest.importorskip("pydensecrf")
    image, label = scene
    foreground = np.random.default_rng(2).uniform(0, 0.6, label.shape) + 0.3 * label
    cams = np.stack([np.full(label.shape, 0.5), foreground])
    alone = [crf.crf_inference_label(crf.MeanField(image, 2), seeds) for seeds in crf.seed_pair(cams)]
    assert not np.array_equal(*alone)
    densecrf, _ = crf.import_pydensecrf()
    build = Mock(wraps=densecrf.DenseCRF2D)
    monkeypatch.setattr(densecrf, "DenseCRF2D", build)
    for shared, own in zip(crf.label_pair(image, cams), alone):
        np.testing.assert_array_equal(shared, own)
    assert build.call_count == 1


def test_background_alone_needs_no_crf(scene):
    label = crf.ir_label(scene[0], np.ones((1, 40, 50)), keys=np.array([0]))
    assert label.shape == (40, 50) and label.dtype == np.uint8 and not label.any()


def test_ir_label_of_each_case(scene, monkeypatch):
    runs = count_runs(monkeypatch)
    # Columns: surely foreground, doubtful (background 0.6 beats 0.4, its half does not), surely background.
    cams = np.array([[[0.3, 0.6, 0.9]], [[0.7, 0.4, 0.1]], [[0.1, 0.1, 0.2]]])
    label = crf.ir_label(np.zeros((1, 3, 3), np.uint8), cams, keys=np.array([0, 12, 20]))
    assert label.tolist() == [[12, 255, 0]]
    assert [run.tolist() for run in runs] == [[[1, 0, 0]], [[1, 1, 0]]]
    assert crf.ir_label(np.zeros((1, 3, 3), np.uint8), cams, np.array([0, 12, 20]),
                        background_scale=0.1).tolist() == [[12, 255, 255]]


def test_equal_seeds_run_once(scene, monkeypatch):
    runs = count_runs(monkeypatch)
    cams = np.stack([scene[1] == 0, scene[1] == 1]).astype(np.float32)
    label = crf.ir_label(scene[0], cams, keys=np.array([0, 80]))
    assert len(runs) == 1
    np.testing.assert_array_equal(label, 80 * scene[1])


def test_missing_package_is_named(scene, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(ImportError, match="pip install pydensecrf2"):
        crf.crf_inference_label(crf.MeanField(scene[0], num_labels=2), scene[1])
