"""Polygons without area."""

import numpy as np

from coco14.annotations import has_area


def test_polygons_without_area():
    rng = np.random.default_rng(1)
    for num_points in range(1, 30):
        line = rng.uniform(0, 600, 2) + rng.uniform(-90, 90, (num_points, 1)) * rng.uniform(-1, 1, 2)
        assert not has_area(line.ravel())
    assert not has_area([])
    assert has_area([0, 0, 1, 0, 1, 0.01]) and has_area([5, 5, 5, 5, 9, 5, 9, 5, 5, 9])
    assert has_area([0, 0, 10, 10, 10, 0, 0, 10])        # a bow tie: areas of opposite sign, but pixels
