import numpy as np
import torch
import torch.nn.functional as F

from net.backbone import build_backbone
from net.pcm import pixel_correlation
from net.prototype import argmax_seeds, cosine_cam, masked_average, threshold_seeds
from net.sfc import SFCNet, bilinear_taps, centered, normalise_cam, unit_length_on_grid, valid_mask


def test_valid_mask_samples_the_box_at_the_stride():
    box = torch.tensor([[0, 64, 0, 96], [17, 33, 16, 48]])
    label = torch.tensor([[1, 0], [0, 1]])
    mask = valid_mask(box, label, (4, 6), 16)
    assert mask[0, 0].all() and mask[0, 1].all() and not mask[0, 2].any()
    expected = torch.zeros(4, 6, dtype=torch.bool)
    expected[2, 1:3] = True                                   # rows 32 of [17, 33), columns 16 and 32 of [16, 48)
    assert torch.equal(mask[1, 0], expected) and torch.equal(mask[1, 2], expected) and not mask[1, 1].any()


def test_normalise_cam_puts_the_background_in_front():
    cam = normalise_cam(torch.tensor([[[[4.0, -1.0]], [[1.0, 2.0]]]]))
    torch.testing.assert_close(cam[0, 1], torch.tensor([[1.0, 0.0]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(cam[0, 2], torch.tensor([[0.5, 1.0]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(cam[0, 0], torch.tensor([[0.0, 0.0]]), atol=1e-4, rtol=0)


def test_pcm_against_loops():
    torch.manual_seed(0)
    cam, feature = torch.rand(2, 3, 3, 4), torch.randn(2, 5, 3, 4)
    for n in range(2):
        f = feature[n].flatten(1)
        f = f / (f.norm(dim=0) + 1e-5)
        affinity = torch.zeros(12, 12)
        for i in range(12):
            for j in range(12):
                affinity[i, j] = max(0.0, float(f[:, i] @ f[:, j]))
        affinity = affinity / (affinity.sum(0, keepdim=True) + 1e-5)
        once = cam[n].flatten(1) @ affinity
        torch.testing.assert_close(pixel_correlation(cam, feature, 1)[n].flatten(1), once)
        torch.testing.assert_close(pixel_correlation(cam, feature, 2)[n].flatten(1), once @ affinity)


def test_seeds():
    cam = torch.tensor([0.5, 0.2, 0.1]).view(1, 3, 1, 1)
    everywhere = torch.ones(1, 3, 1, 1, dtype=torch.bool)
    assert argmax_seeds(cam, everywhere, 1.0).flatten().tolist() == [1, 0, 0]
    assert argmax_seeds(cam, everywhere, 0.3).flatten().tolist() == [0, 1, 0]
    absent = torch.tensor([True, False, True]).view(1, 3, 1, 1)
    assert argmax_seeds(cam, absent, 0.3).flatten().tolist() == [0, 0, 0]       # a pixel of an absent class
    assert threshold_seeds(cam, everywhere, 0.15).flatten().tolist() == [1, 1, 0]


def test_prototypes_and_cosine_against_loops():
    torch.manual_seed(0)
    feature = torch.randn(1, 6, 3, 3)
    seeds = torch.zeros(1, 3, 3, 3)
    seeds[0, 0, 0, :2] = 1
    seeds[0, 1, 2, 2] = 1
    prototypes = masked_average(feature, seeds)
    torch.testing.assert_close(prototypes[0, 0], (feature[0, :, 0, 0] + feature[0, :, 0, 1]) / 2, atol=1e-4, rtol=1e-4)
    cam = cosine_cam(feature, prototypes)
    for y in range(3):
        for x in range(3):
            cosine = F.cosine_similarity(prototypes[0, 1], feature[0, :, y, x], dim=0).clamp(min=0)
            torch.testing.assert_close(cam[0, 1, y, x], cosine)
    assert cam[0, 1, 2, 2] > 0.999 and (cam[0, 2] == 0).all()                   # class 2 has no seed


def test_sparse_projection_equals_resizing_the_whole_map():
    torch.manual_seed(0)
    side = torch.nn.Conv2d(5, 7, 1, bias=False)
    for size, grid in (((33, 50), (9, 13)), ((64, 64), (16, 16)), ((16, 16), (16, 16)), ((31, 32), (16, 16)),
                       ((40, 9), (3, 2))):
        feature = torch.randn(2, 5, *size)
        whole = side(feature)
        whole = whole / (whole.norm(dim=1, keepdim=True) + 1e-5)
        whole = F.interpolate(whole, grid, mode="bilinear", align_corners=False)
        torch.testing.assert_close(unit_length_on_grid(side, feature, torch.Size(grid)), whole, atol=1e-5, rtol=1e-4)
    taps, share = bilinear_taps(8, 2, torch.device("cpu"))
    assert taps.tolist() == [1, 2, 5, 6] and share.tolist() == [0.5, 0.5]


def test_gradients_stop_where_the_method_says():
    torch.manual_seed(0)
    net = SFCNet(build_backbone("mini"), 3)
    image, box = torch.randn(2, 3, 32, 32), torch.tensor([[0, 32, 0, 32]] * 2)
    output = net(image, box, torch.tensor([[1, 0, 1], [0, 1, 0]]))
    output.prototype_cam.sum().backward()
    # M_P alone reaches the classifier through no path: seeds are an arg-max, side features are detached.
    assert net.side1.weight.grad is not None and net.classifier.weight.grad is None
    assert all(p.grad is None for p in net.backbone.parameters())
    net(image, box, torch.ones(2, 3)).weight_cam.sum().backward()
    trained = {name for name, p in net.backbone.named_parameters() if p.grad is not None}
    assert trained == {name for name, p in net.backbone.named_parameters() if p.requires_grad}    # what is exchanged
    assert trained and all(name.startswith(("layer3", "layer4")) for name in trained)
    open_net = SFCNet(build_backbone("mini", train_stem=True), 3)
    open_net(image, box, torch.ones(2, 3)).weight_cam.sum().backward()
    assert open_net.backbone.conv1.weight.grad is not None


def test_inference_of_a_mirrored_image_is_mirrored():
    torch.manual_seed(0)
    net = SFCNet(build_backbone("mini"), 3).eval()
    image, label = torch.randn(1, 3, 32, 48), torch.tensor([[1, 0, 1]])
    with torch.no_grad():
        straight, mirrored = net.infer(image, label), net.infer(image.flip(3), label)
        batch = net.infer(torch.cat([image, image.flip(3)]), label.repeat(2, 1))
        masked = net.infer(image, label, mask_cam=True)
    torch.testing.assert_close(mirrored.weight_cam.flip(3), straight.weight_cam, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(batch.weight_cam[:1], straight.weight_cam, atol=1e-5, rtol=1e-4)
    assert (masked.coarse_cam[:, 2] == 0).all() and (straight.coarse_cam[:, 2] > 0).any()


def test_grids_of_odd_sizes_agree_for_every_backbone():
    for name in ("mini", "resnet18"):
        net = SFCNet(build_backbone(name), 2).eval()
        size = np.array([45, 67])
        with torch.no_grad():
            output = net.infer(torch.randn(1, 3, *size.tolist()), torch.ones(1, 2))
        assert output.weight_cam.shape[2:] == output.prototype_cam.shape[2:] == tuple(-(-size // net.backbone.stride))


def test_background_is_taken_before_or_after_pcm():
    """Eq. 2: 1 - max over the classes of f(.); the release sends 1 - max through f. The classes are the same."""
    before, after = (SFCNet(build_backbone("mini"), 3, background_after_pcm=value).eval() for value in (False, True))
    after.load_state_dict(before.state_dict())
    torch.manual_seed(0)
    image, box = torch.randn(2, 3, 64, 48), torch.tensor([[0, 64, 0, 48], [8, 40, 0, 48]])
    label = torch.tensor([[1, 1, 0], [1, 0, 1]])
    with torch.no_grad():
        for released, paper in ((net(image, box, label) for net in (before, after)),
                                (net.infer(image, label) for net in (before, after))):
            assert torch.equal(released.weight_cam[:, 1:], paper.weight_cam[:, 1:])
            torch.testing.assert_close(paper.weight_cam[:, 0], 1 - paper.weight_cam[:, 1:].amax(1))
            assert (released.weight_cam[:, 0] - paper.weight_cam[:, 0]).abs().max() > 0.01


def test_centred_features_have_mean_zero_over_the_shown_part():
    torch.manual_seed(0)
    feature = torch.randn(2, 5, 4, 6)
    shown = torch.zeros(2, 1, 4, 6, dtype=torch.bool)
    shown[0, :, 1:3, 2:5], shown[1] = True, True
    for n in range(2):
        expected = feature[n] - feature[n][:, shown[n, 0]].mean(1)[:, None, None]
        torch.testing.assert_close(centered(feature, shown)[n], expected, atol=1e-5, rtol=1e-5)
    everywhere = torch.ones(2, 1, 1, 1, dtype=torch.bool)                       # as at inference
    torch.testing.assert_close(centered(feature, everywhere), feature - feature.mean((2, 3), keepdim=True))


def test_options_against_flat_features_tell_object_and_rest_apart():
    """A part that all features share makes PCM average over the whole image; each option mends its step."""
    torch.manual_seed(0)
    common, inside = torch.ones(8), torch.arange(8.0) % 2 - 0.5
    square = torch.zeros(1, 1, 6, 6)
    square[:, :, 1:4, 1:4] = 1
    feature = common[None, :, None, None] + (square - 0.5) * inside[None, :, None, None]
    cam, valid = torch.cat([1 - square, square], 1), torch.ones(1, 2, 6, 6, dtype=torch.bool)

    def contrast(maps):                                    # mean of the class inside the square less that outside
        return float(maps[:, 1:][square > 0].mean() - maps[:, 1:][square == 0].mean())

    def cams(**options):
        net = SFCNet(build_backbone("mini"), 1, seed_background=0.6, **options)
        net.pcm_feature = torch.nn.Identity()                               # PCM sees `feature`, no image beside it
        return net.calibrated_cams(cam, feature[:, :0], feature, feature, valid)

    released, centred = cams(), cams(pcm_center=True)
    assert contrast(released[0]) < 0.2 and contrast(centred[0]) > 0.9
    flat = torch.cat([1 - 0.1 * square, 0.1 * square], 1)                   # a map whose maximum is low has no seeds
    plain, normalised = (SFCNet(build_backbone("mini"), 1, seed_normalise=on).seeds(flat, valid) for on in (0, 1))
    assert plain[:, 1].sum() == 0 and torch.equal(normalised[:, 1:], square)
