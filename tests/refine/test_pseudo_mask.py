import numpy as np
import pytest
import torch
import torch.nn.functional as F

from refine.pseudo_mask import Walk, over_maximum, pseudo_mask, walk_scores, walk_starts
from refine.random_walk import propagate


def scene(seed=0, channels=3, size=(37, 50), stride=4):
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((1, channels, 4, 5), np.float32))
    cam = F.interpolate(coarse, size, mode="bilinear", align_corners=False)[0]
    grid = tuple(-(-side // stride) for side in size)
    return cam, rng.random((1, *grid), np.float32) ** 4


def by_hand(cam, edge, stride, walk):
    """One walk at a time, in the words of the release."""
    size = cam.shape[1:]
    small = F.interpolate(cam[None], edge.shape[1:], mode="bilinear", align_corners=False)[0].numpy()

    def walked(start):
        moved = torch.from_numpy(propagate(start, edge, walk.beta, walk.exp_times, walk.radius))
        large = F.interpolate(moved[None], scale_factor=stride, mode="bilinear", align_corners=False)[0]
        large = large[:, :size[0], :size[1]]
        return large / large.max()

    foreground = walked(small[1:] ** walk.power)
    scores = torch.cat([torch.full((1, *size), walk.background), foreground])
    if walk.all_channels:
        scores = scores + walked(small ** walk.all_power)
    return scores.argmax(0).numpy()


@pytest.mark.parametrize("walk", [
    Walk(), Walk(exp_times=3, power=1.0, all_channels=False), Walk(all_power=1.0, background=0.6)])
def test_masks_by_hand(walk):
    for seed in range(3):
        cam, edge = scene(seed)
        mask = pseudo_mask(cam, edge, 4, walk)
        assert mask.shape == (37, 50) and np.mean(mask == by_hand(cam, edge, 4, walk)) > 0.999


def test_both_walks_count_alike():
    """Doubling the CAM changes neither of two maps that are each divided by their maximum."""
    cam, edge = scene()
    assert np.mean(pseudo_mask(cam, edge, 4) == pseudo_mask(2 * cam, edge, 4)) > 0.999


def test_starts_and_scores():
    cam = np.array([[[4.0]], [[9.0]]], np.float32)
    starts = walk_starts(cam, Walk(power=0.5, all_power=2.0))
    assert [part.tolist() for part in starts] == [[[[3.0]]], [[[16.0]], [[81.0]]]]
    assert len(walk_starts(cam, Walk(all_channels=False))) == 1
    scores = walk_scores([torch.tensor([[[1.0]]]), torch.tensor([[[0.5]], [[0.25]]])], Walk(background=0.3))
    torch.testing.assert_close(scores.flatten(), torch.tensor([0.8, 1.25]))
    assert over_maximum(torch.zeros(2, 1, 1)).tolist() == [[[0.0]], [[0.0]]]


def test_an_image_without_a_class_is_background():
    cam, edge = scene(channels=2)
    assert (pseudo_mask(cam * torch.tensor([1.0, 0.0]).view(2, 1, 1), edge, 4) == 0).all()
