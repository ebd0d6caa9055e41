"""Many, medium and few classes."""

import pytest

from paper.class_sets import class_sets, default_thresholds

# Images of VOC 12 train_aug that show each class, aeroplane to tvmonitor.
VOC = [590, 504, 705, 468, 714, 393, 1150, 1005, 1228, 267, 613, 1188, 445, 492, 4155, 522, 300, 649, 503, 567]


def test_classes_on_a_threshold_are_medium():
    assert class_sets([101, 100, 20, 19, 0], 100, 20) == {"many": [0], "medium": [1, 2], "few": [3, 4]}


def test_a_set_can_be_empty():
    assert class_sets(VOC, 100, 20) == {"many": list(range(20)), "medium": [], "few": []}


def test_overlapping_thresholds_are_refused():
    with pytest.raises(ValueError, match="overlap"):
        class_sets([1, 2], many=5, few=10)


def test_voc_in_tertiles():
    """Sorted counts: 267 300 393 445 468 492 503 | 504 522 567 590 613 649 | 705 714 ...; position 19/3 and 38/3."""
    many, few = default_thresholds(VOC)
    assert few == pytest.approx(503 + (504 - 503) / 3) and many == pytest.approx(649 + (705 - 649) * 2 / 3)
    assert class_sets(VOC, many, few) == {
        "many": [2, 4, 6, 7, 8, 11, 14],                         # bird, bottle, car, cat, chair, dog, person
        "medium": [0, 1, 10, 15, 17, 19],
        "few": [3, 5, 9, 12, 13, 16, 18]}                        # boat, bus, cow, horse, motorbike, sheep, train


def test_equal_counts_are_all_medium():
    many, few = default_thresholds([7, 7, 7])
    assert class_sets([7, 7, 7], many, few) == {"many": [], "medium": [0, 1, 2], "few": []}
