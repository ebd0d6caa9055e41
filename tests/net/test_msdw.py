import pytest
import torch

from net.msdw import MSDWLoss, bank_samples, distribution_coefficient
from net.sfc import SFCOutput

VOC_COUNTS = torch.tensor([590, 504, 705, 468, 714, 393, 1150, 1005, 1228, 267, 613, 1188, 445, 492, 4155, 522, 300,
                           649, 503, 567])
COW, PERSON = 9, 14


def test_released_coefficients_of_voc():
    dc = distribution_coefficient(VOC_COUNTS, bank_samples(4, 3, 660, 20))
    assert bank_samples(4, 3, 660, 20) == 396
    assert dc[PERSON].item() == pytest.approx(1.545, abs=5e-4) and dc[COW].item() == pytest.approx(1.769, abs=5e-4)
    assert dc.mean().item() == pytest.approx(1)
    measured = distribution_coefficient(VOC_COUNTS, bank_samples(4, 1.555, 660, 20))
    assert measured[PERSON].item() == pytest.approx(1.296, abs=1e-3)
    assert measured[COW].item() == pytest.approx(1.995, abs=1e-3)


def test_eq6_by_hand():
    # n = (1, 4): demands 3 and 3, total 6; DC = 2 / 6 * 3 / (n + 2).
    dc = distribution_coefficient(torch.tensor([1, 4]), 2.0, "total_demand")
    torch.testing.assert_close(dc, torch.tensor([1 / 3, 1 / 6]))
    torch.testing.assert_close(distribution_coefficient(torch.tensor([1, 4]), 2.0), torch.tensor([4 / 3, 2 / 3]))


def test_equal_and_empty_classes():
    assert distribution_coefficient(torch.tensor([7, 7, 7]), 3.0).tolist() == [1, 1, 1]
    dc = distribution_coefficient(torch.tensor([0, 10, 10]), 4.0)
    assert dc.isfinite().all() and dc[0] > dc[1]
    # Without the bank nothing of an empty class is seen: demands 6, 4, 6, and the mean of 4 / 2 and 6 / 4 is 7 / 4.
    assert distribution_coefficient(torch.tensor([0, 2, 4]), 0.0).tolist() == pytest.approx([0, 8 / 7, 6 / 7])


def outputs():
    torch.manual_seed(0)
    full = SFCOutput(torch.randn(2, 3), *(torch.rand(2, 4, 4, 6) for _ in range(3)))
    half = SFCOutput(torch.randn(2, 3), *(torch.rand(2, 4, 2, 3) for _ in range(3)))
    return full, half, torch.tensor([[1, 0, 1], [0, 1, 0]])


def test_losses_against_loops():
    full, half, label = outputs()
    dc_p, dc_w = torch.tensor([2.0, 0.5, 1.0]), torch.tensor([1.0, 3.0, 0.25])
    losses = MSDWLoss(dc_p, dc_w)(full, half, label)
    peak = full.prototype_cam.amax((2, 3), keepdim=True) + 1e-5
    distance = (full.weight_cam - full.prototype_cam / peak).abs()
    by_class = sum(weight * distance[:, c].sum() for c, weight in enumerate([1.0, *dc_p.tolist()]))
    assert losses.dw_p.item() == pytest.approx(1.6 * by_class.item() / distance.numel(), rel=1e-5)
    down = torch.nn.functional.interpolate(full.weight_cam, (2, 3), mode="bilinear", align_corners=True)
    total = sum(dc_w[c] * label[n, c] * (down[n, c + 1] - half.weight_cam[n, c + 1]).abs().sum()
                for n in range(2) for c in range(3))
    assert losses.dw_w.item() == pytest.approx(0.8 * total.item() / (2 * 3 * 2 * 3), rel=1e-5)
    assert losses.total.item() == pytest.approx((losses.cls + losses.dw_p + losses.dw_w).item())
    paper = MSDWLoss(dc_p, dc_w, weight_p=1, weight_w=1, reduction="l1", normalise_prototype=False)(full, half, label)
    distance = (full.weight_cam - full.prototype_cam).abs()
    by_class = sum(weight * distance[:, c].sum() for c, weight in enumerate([1.0, *dc_p.tolist()]))
    assert paper.dw_p.item() == pytest.approx(by_class.item() / (2 * 4 * 6), rel=1e-5)       # images, rows, columns
    assert paper.dw_w.item() == pytest.approx(total.item() / (2 * 2 * 3), rel=1e-5)


@pytest.mark.parametrize("change, moved", [
    (dict(weight_p=0.0), {"dw_p"}), (dict(weight_w=0.0), {"dw_w"}), (dict(cls_half=False), {"cls"}),
    (dict(normalise_prototype=False), {"dw_p"}), (dict(reduction="l1"), {"dw_p", "dw_w"}),
    (dict(dc_p=torch.ones(3)), {"dw_p"}), (dict(dc_w=torch.ones(3)), {"dw_w"})])
def test_every_switch_moves_the_term_it_names(change, moved):
    """Table 4 and 5: a setting changes its own loss and no other."""
    dc = torch.tensor([2.0, 0.5, 1.0])
    default = dict(dc_p=dc, dc_w=dc)
    before, after = (MSDWLoss(**options)(*outputs()) for options in (default, default | change))
    assert {name for name in ("cls", "dw_p", "dw_w") if getattr(before, name) != getattr(after, name)} == moved


@pytest.mark.parametrize("size", [1, 9])
def test_l1_distance_of_a_class_is_a_mean_over_pixels(size):
    """Two channels that are half a unit apart everywhere: 0.5 + 0.5, however large the map."""
    cam = torch.zeros(1, 2, size, size)
    full = SFCOutput(torch.zeros(1, 1), cam, cam + 0.5, cam)
    loss = MSDWLoss(torch.ones(1), torch.ones(1), weight_p=1, weight_w=1, reduction="l1", normalise_prototype=False)
    losses = loss(full, full, torch.ones(1, 1))
    assert losses.dw_p.item() == pytest.approx(1.0) and losses.dw_w.item() == 0
