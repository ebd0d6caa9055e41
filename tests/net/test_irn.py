import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

from net.backbone import BACKBONES, build_backbone
from net.irn import IRN, PathIndex, affinity_labels, downsample_label, irn_loss, straight_path
from tests.helpers import assert_golden


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return IRN(build_backbone("mini"))


def brute_force_paths(edge, path_index):
    """Source by source and destination by destination, with every path's values in a list."""
    height, width = edge.shape[1] - path_index.margin, edge.shape[2] - 2 * path_index.margin
    rows = []
    for path in path_index.paths:
        for y in range(height):
            for x in range(path_index.margin, path_index.margin + width):
                rows.append(torch.stack([edge[:, y + dy, x + dx] for dy, dx in path]).max(dim=0).values)
    return torch.stack(rows, dim=1).view(len(edge), len(path_index.paths), height, width)


def test_reference_vectors():
    assert_golden("irn.npz")


def test_straight_paths_run_from_destination_to_source():
    assert straight_path(0, 3) == [(0, 3), (0, 2), (0, 1), (0, 0)]
    assert straight_path(1, 1) == [(1, 1), (0, 1), (1, 0), (0, 0)]
    assert straight_path(1, -2) == [(1, -2), (0, -2), (1, -1), (0, -1), (1, 0), (0, 0)]
    # (0, 3) and (1, 0) lie 3 / sqrt(10) = 0.95 off the line.
    assert straight_path(1, 3) == [(1, 3), (0, 3), (1, 2), (0, 2), (1, 1), (0, 1), (1, 0), (0, 0)]


@pytest.mark.parametrize("radius, pairs", [(2, 4), (5, 34), (10, 152)])
def test_every_unordered_pair_occurs_once(radius, pairs):
    offsets = PathIndex(radius).destinations
    disc = {(y, x) for y in range(-radius, radius) for x in range(-radius, radius) if 0 < y * y + x * x < radius ** 2}
    assert len(offsets) == pairs
    assert set(offsets) | {(-y, -x) for y, x in offsets} == disc and len(disc) == 2 * pairs


def test_path_maximum_and_its_gradient():
    torch.manual_seed(0)
    path_index = PathIndex(4)
    edge = torch.rand(2, 8, 11, requires_grad=True)
    weight = torch.rand(2, len(path_index.paths), 5, 5)
    ours, expected = path_index.path_maximum(edge), brute_force_paths(edge, path_index)
    torch.testing.assert_close(ours, expected, rtol=0, atol=0)
    gradient, = torch.autograd.grad((ours * weight).sum(), edge)
    expected_gradient, = torch.autograd.grad((expected * weight).sum(), edge)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("radius, count", [(2, 7), (5, 63), (10, 325)])
def test_pieces_make_up_their_paths(radius, count):
    path_index = PathIndex(radius)
    shapes = [[(0, 0)]]                                             # of each piece, from its first cell
    for path, pieces in zip(path_index.paths, path_index.pieces, strict=True):
        y0, x0 = min(path)
        covered = {(y0 + y + dy, x0 + x + dx) for i, (y, x) in pieces for dy, dx in shapes[i]}
        assert covered == set(path)
        shapes.append([(y - y0, x - x0) for y, x in path])
    assert sum(map(len, path_index.pieces)) == count


def test_equal_maxima_share_nothing_and_lose_nothing():
    edge = torch.full((1, 6, 9), 0.5, requires_grad=True)
    maximum = PathIndex(3).path_maximum(edge)
    maximum.sum().backward()
    assert (maximum == 0.5).all() and edge.grad.sum() == maximum.numel() and torch.equal(edge.grad, edge.grad.round())


def test_map_smaller_than_the_radius_is_refused():
    with pytest.raises(ValueError, match="no pixel pairs"):
        PathIndex(5).path_maximum(torch.rand(1, 9, 8))


@pytest.mark.parametrize("size, grid", [((128, 128), (32, 32)), ((90, 121), (23, 31)), ((37, 50), (10, 13))])
def test_labels_shrink_as_pil_shrinks_them(size, grid):
    label = np.random.default_rng(0).integers(0, 255, size, np.uint8)
    expected = np.asarray(Image.fromarray(label).resize(grid[::-1], Image.NEAREST))
    np.testing.assert_array_equal(downsample_label(torch.from_numpy(label)[None], grid)[0].numpy(), expected)


def test_affinity_labels_of_a_row():
    # Radius 2: destinations right, down-left, down, down-right of sources that are not at a side.
    path_index = PathIndex(2)
    label = torch.tensor([[[0, 0, 0, 80, 80, 255]], [[7, 7, 7, 7, 7, 7]]], dtype=torch.uint8).expand(2, 2, 6)
    background, foreground, different = affinity_labels(label, path_index)
    assert background.shape == (2, 4, 1, 4)
    right = path_index.destinations.index((0, 1))
    assert background[0, right, 0].tolist() == [True, False, False, False]
    assert foreground[0, right, 0].tolist() == [False, False, True, False]
    assert different[0, right, 0].tolist() == [False, True, False, False]
    assert not background[1].any() and foreground[1].all() and not different[1].any()


def test_losses_of_known_maps():
    path_index = PathIndex(3)
    edge_logit = torch.full((1, 1, 8, 8), -2.0)
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    towards_centre = torch.stack([3.5 - y, 3.5 - x])[None]
    label = torch.ones(1, 8, 8, dtype=torch.uint8)

    # One object without boundaries, each pixel pointing to its centre.
    losses = irn_loss(edge_logit, towards_centre, label, path_index)
    assert losses["loss_dp_fg"] < 1e-6
    # -log(1 - sigmoid(-2)), halved because there is no background.
    assert losses["loss_pos"].item() == pytest.approx(0.126928 / 2, abs=2e-5)
    assert losses["loss_neg"] == 0 and losses["loss_dp_bg"] == 0
    assert losses["loss_total"].item() == pytest.approx(losses["loss_pos"].item() / 2, abs=1e-6)

    # Taken as background, its displacements should not differ: the mean offset is the loss.
    losses = irn_loss(edge_logit, towards_centre, torch.zeros_like(label), path_index)
    offsets = np.abs(path_index.destinations).sum(axis=1).mean()
    assert losses["loss_dp_bg"].item() == pytest.approx(offsets / 2, rel=1e-5)
    assert losses["loss_dp_fg"] == 0


def test_unknown_labels_give_no_loss_and_finite_gradients():
    edge_logit = torch.zeros(1, 1, 8, 8, requires_grad=True)
    label = torch.full((1, 8, 8), 255, dtype=torch.uint8)
    loss = irn_loss(edge_logit, torch.randn(1, 2, 8, 8), label, PathIndex(3))["loss_total"]
    loss.backward()
    assert loss == 0 and edge_logit.grad.abs().max() == 0


def test_saturated_edges_keep_the_loss_finite():
    edge_logit = torch.full((1, 1, 8, 8), 200.0, requires_grad=True)
    loss = irn_loss(edge_logit, torch.zeros(1, 2, 8, 8), torch.zeros(1, 8, 8, dtype=torch.uint8), PathIndex(3))
    loss["loss_total"].backward()
    assert loss["loss_pos"].item() == pytest.approx(-np.log(1e-5) / 2, rel=1e-4)
    assert torch.isfinite(edge_logit.grad).all()


def test_backbone_stays_frozen(net):
    net.train()
    assert net.training and not any(module.training for module in net.backbone.modules())
    edge, displacement = net(torch.randn(2, 3, 32, 48))
    assert edge.shape == (2, 1, 16, 24) and displacement.shape == (2, 2, 16, 24)
    (edge.mean() + displacement.mean()).backward()
    assert all(parameter.grad is None for parameter in net.backbone.parameters())
    trained = list(net.edge_parameters()) + list(net.displacement_parameters())
    assert all(parameter.grad is not None for parameter in trained)


def test_parameter_groups_hold_every_branch_parameter_once(net):
    edge, displacement = net.parameter_groups()
    assert (edge["lr"], displacement["lr"]) == (0.1, 1.0)
    grouped = [id(parameter) for parameter in edge["params"] + displacement["params"]]
    frozen = {id(parameter) for parameter in net.backbone.parameters()}
    assert len(set(grouped)) == len(grouped) == 17 + 22
    assert set(grouped) | frozen == {id(parameter) for parameter in net.parameters()}


def test_mean_displacement_is_removed_at_inference_only(net):
    image, mean = torch.randn(1, 3, 32, 32), torch.tensor([0.5, -2.0])
    trained = net.train()(image)[1]
    net.mean_shift.running_mean.copy_(mean)
    torch.testing.assert_close(net.train()(image)[1], trained)
    torch.testing.assert_close(net.eval()(image)[1], trained - mean[:, None, None])
    net.mean_shift.running_mean.zero_()


def test_prediction_never_crops(net):
    net.eval()
    for size, grid in (((33, 50), (17, 25)), ((20, 131), (10, 66))):       # within and beyond pad_to
        edge, displacement = (p(torch.randn(3, *size), pad_to=64) for p in (net.predict_edge, net.predict_displacement))
        assert edge.shape == (1, *grid) and displacement.shape == (2, *grid)
        assert edge.min() >= 0 and edge.max() <= 1
    assert net.predict_edge(torch.randn(3, 5, 7), pad_to=None).shape == (1, 3, 4)


def test_edges_of_a_mirrored_image_are_mirrored(net):
    image = torch.randn(3, 24, 32)
    edge, mirrored = net.eval().predict_edge(image, pad_to=40), net.predict_edge(image.flip(-1), pad_to=40)
    torch.testing.assert_close(mirrored, edge.flip(-1))
    assert edge.std() > 1e-3


@pytest.mark.parametrize("name", ["resnet18", "mini", "efficientnet_lite0"])
def test_stem_lies_on_the_first_grid_of_every_backbone(name):
    if name == "efficientnet_lite0" and importlib.util.find_spec("efficientnet_lite_pytorch") is None:
        pytest.skip("optional package")
    assert name in BACKBONES
    backbone = build_backbone(name).eval()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        stem, maps = backbone.stem(image), backbone(image)
        torch.testing.assert_close(backbone.stage1(stem), maps[0])
    assert stem.shape == (1, backbone.stem_width, *maps[0].shape[2:])
    steps = (backbone.stride // 4, backbone.stride // 2, backbone.stride, backbone.stride)
    assert [tuple(x.shape[2:]) for x in maps] == [(64 // step, 96 // step) for step in steps]
    edge, _ = IRN(backbone).eval()(image)
    assert edge.shape[2:] == maps[0].shape[2:]
