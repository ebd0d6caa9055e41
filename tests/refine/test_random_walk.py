import numpy as np
import pytest

from refine.random_walk import propagate, transition_matrix, walk_distribution
from tests.helpers import assert_golden


def dense_transition(edge, beta, radius):
    """The definition, pair by pair: column j holds the share that pixel j takes from every pixel."""
    height, width = edge.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    affinity = np.eye(len(pixels))
    for i, (y0, x0) in enumerate(pixels):
        for j, (y1, x1) in enumerate(pixels):
            dy, dx = y1 - y0, x1 - x0
            length = dy ** 2 + dx ** 2
            if 0 < length < radius ** 2:
                path = [edge[y, x] for y, x in pixels
                        if min(y0, y1) <= y <= max(y0, y1) and min(x0, x1) <= x <= max(x0, x1)
                        and (dy * (x - x0) - dx * (y - y0)) ** 2 < length]
                affinity[i, j] = (1 - max(path)) ** beta
    return affinity / affinity.sum(axis=0)


def random_maps(channels, height, width, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.random((channels, height, width), np.float32), rng.random((1, height, width), np.float32) ** 3)


def test_reference_vectors():
    assert_golden("random_walk.npz")


@pytest.mark.parametrize("shape, beta, exp_times, radius", [
    ((3, 7, 9), 10, 8, 5), ((1, 7, 9), 4, 3, 3), ((2, 6, 5), 1, 0, 5), ((2, 3, 2), 2, 8, 5), ((1, 1, 6), 10, 1, 4),
    ((2, 4, 4), 2.5, 2, 2),
])
def test_equals_the_dense_matrix_power(shape, beta, exp_times, radius):
    cam, edge = random_maps(*shape)
    power = np.linalg.matrix_power(dense_transition(edge[0].astype(float), beta, radius), 2 ** exp_times)
    expected = ((cam * (1 - edge)).reshape(shape[0], -1) @ power).reshape(shape)
    walked = propagate(cam, edge, beta, exp_times, radius)
    assert walked.dtype == np.float32
    np.testing.assert_allclose(walked, expected, atol=2e-6)


def test_single_pixel_keeps_what_its_edge_leaves():
    cam, edge = np.full((2, 1, 1), 0.8, np.float32), np.full((1, 1, 1), 0.25, np.float32)
    np.testing.assert_allclose(propagate(cam, edge), np.full((2, 1, 1), 0.6), rtol=1e-6)


def test_nothing_crosses_a_wall_and_a_room_fills_evenly():
    edge = np.zeros((1, 6, 13), np.float32)
    edge[..., 6] = 1
    cam = np.zeros((1, 6, 13), np.float32)
    cam[0, 2, 1] = 1
    walked = propagate(cam, edge, exp_times=14)[0]
    assert np.abs(walked[:, 6:]).max() < 1e-7
    # In the end every pixel of the room holds the average over all pixels, weighted by their numbers of neighbours.
    y, x = np.mgrid[:6, :6].reshape(2, -1)
    neighbours = ((y[:, None] - y) ** 2 + (x[:, None] - x) ** 2 < 5 ** 2).sum(axis=0)
    np.testing.assert_allclose(walked[:, :6], neighbours[2 * 6 + 1] / neighbours.sum(), rtol=1e-5)


def test_long_walks_neither_blow_up_nor_lose_constants():
    _, edge = random_maps(1, 12, 15)
    matrix = transition_matrix(edge[0], beta=10, radius=5)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)
    ones = np.ones((1, 12, 15), np.float32)
    np.testing.assert_allclose(propagate(ones / (1 - edge), edge, exp_times=18), ones, atol=1e-5)


def test_walk_distribution_is_the_binomial_one():
    np.testing.assert_allclose(walk_distribution(1), [0, 1])
    np.testing.assert_allclose(walk_distribution(4), [6 / 16, 0, 8 / 16, 0, 2 / 16])
    assert len(walk_distribution(256)) < 90


def test_mismatched_shapes_are_refused():
    with pytest.raises(ValueError, match="expected cam"):
        propagate(np.zeros((2, 4, 5), np.float32), np.zeros((1, 5, 4), np.float32))
