"""Names of scores and the maps behind them."""

import pytest

from refine.scored_maps import CAMS, PLAIN, STEP, final_cam_name, paper_first, plain, scored_maps, variant_of


def test_scored_maps_are_eq_9_and_what_later_stages_use():
    assert list(scored_maps(0.3, 0.7).items()) == [
        ("weight_cam", (1, 0)), ("prototype_cam", (0, 1)), ("final_cam 1", (1, 1)), ("final_cam 0.7", (1, 0.7)),
        ("final_cam 0.3", (1, 0.3))]
    assert list(scored_maps(1.0, 1)) == ["weight_cam", "prototype_cam", "final_cam 1"]           # each once


def test_maps_are_mixed_and_kept_in_range():
    weights = scored_maps(0.3)["final_cam 0.3"]
    assert weights.mix(1.0, 1.0) == pytest.approx(1.3)
    assert weights.mean(1.0, 0.35) == pytest.approx((1 + 0.3 * 0.35) / 1.3)
    assert [weights.mix(2.0, 5.0) for weights in CAMS.values()] == [2, 5, 7]


def test_variants_of_a_score():
    for name in scored_maps(0.7):
        assert variant_of(name) == PLAIN and variant_of(name + STEP) == STEP
        assert plain(name) == plain(name + STEP) == name
    assert {variant_of(name) for name in ("final_cam CRF", "pseudo mask", "prediction", "prediction CRF")} == {None}
    assert final_cam_name() == "final_cam 1"
    assert paper_first(["weight_cam", "weight_cam +step", "final_cam CRF"]) == [
        "weight_cam +step", "final_cam CRF", "weight_cam"]
