import numpy as np
import pytest

from refine.metrics import ConfusionMatrix, as_prediction
from tests.helpers import assert_golden


@pytest.fixture
def confusion():
    matrix = ConfusionMatrix(4)
    matrix.update(np.uint8([[0, 0, 1, 3], [1, 1, 0, 3]]), np.uint8([[0, 0, 0, 255], [1, 1, 1, 0]]))
    return matrix


def test_reference_vectors():
    assert_golden("chainercv_confusion.npz")


def test_scores_by_hand(confusion):
    expected = np.zeros((4, 4), int)
    expected[0, :] = [2, 1, 0, 1]         # ground truth 0: two right, one taken for 1, one for 3
    expected[1, :2] = [1, 2]
    np.testing.assert_array_equal(confusion.matrix, expected)
    assert confusion.matrix.dtype == np.int64
    np.testing.assert_allclose(confusion.iou(), [2 / 5, 2 / 4, np.nan, 0])
    assert confusion.miou() == pytest.approx((2 / 5 + 2 / 4 + 0) / 3)
    np.testing.assert_allclose(confusion.precision(), [2 / 3, 2 / 3, np.nan, 0])
    np.testing.assert_allclose(confusion.recall(), [2 / 4, 2 / 3, np.nan, np.nan])


def test_merged_parts_equal_the_whole(confusion):
    whole, part = ConfusionMatrix(4), ConfusionMatrix(4)
    prediction, truth = np.random.default_rng(0).integers(0, 4, (2, 9, 8), np.uint8)
    part.update(prediction, truth)
    for matrix in (confusion, part):
        whole.matrix += matrix.matrix
    confusion.merge(part)
    np.testing.assert_array_equal(confusion.matrix, whole.matrix)
    assert confusion.matrix.sum() == 7 + 72


def test_many_classes_do_not_overflow_uint8():
    matrix = ConfusionMatrix(81)
    matrix.update(np.uint8([[80, 79]]), np.uint8([[80, 80]]))
    assert matrix.matrix[80, 80] == 1 and matrix.matrix[80, 79] == 1 and matrix.matrix.sum() == 2


def test_no_pixels_score_nan_without_a_warning(recwarn):
    matrix = ConfusionMatrix(3)
    matrix.update(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8))
    assert np.isnan(matrix.miou()) and np.isnan(matrix.iou()).all() and not recwarn.list


@pytest.mark.parametrize("prediction, truth, message", [
    ([[255]], [[0]], "prediction holds classes 255"), ([[0]], [[3]], "ground truth holds classes 3"),
    ([[-1]], [[0]], "prediction holds classes -1"), ([[0, 0]], [[0]], "differ in shape"),
])
def test_labels_outside_the_classes_are_refused(prediction, truth, message):
    with pytest.raises(ValueError, match=message):
        ConfusionMatrix(3).update(np.array(prediction), np.array(truth))


def test_unknown_pixels_of_a_pseudo_mask_count_as_background():
    assert as_prediction(np.array([[0, 3, 255]], np.uint8)).tolist() == [[0, 3, 0]]
