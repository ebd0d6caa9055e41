
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image

from net.deeplabv2 import DeepLabV2, MultiScale, deeplab_pytorch_name, multi_scale_loss, pixel_cross_entropy
from net.labels import downsample_label
from net.resnet38 import DeepLabV1
from tests.helpers import assert_golden

TINY = {"num_classes": 5, "blocks": (1, 1, 1, 1), "width": 4}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As the vectors were computed; small maps also run faster so where cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def image():
    return torch.randn(2, 3, 33, 41, generator=torch.Generator().manual_seed(0))


def tiny_deeplabv2(**options):
    torch.manual_seed(0)
    return DeepLabV2(**TINY, **options)


def tiny_deeplabv1():
    torch.manual_seed(0)
    return DeepLabV1(num_classes=5, width=2)


@pytest.mark.parametrize("file_name", ["deeplabv2.npz", "resnet38.npz"])
def test_reference_vectors(file_name):
    assert_golden(file_name)


@pytest.mark.parametrize("length", [64, 65, 81, 321, 500])
@pytest.mark.parametrize("cells", [5, 6, 7, 9, 10, 41, 63])
def test_labels_are_sampled_as_pil_does(length, cells):
    label = np.arange(length * 3, dtype=np.float32).reshape(3, length)
    expected = np.asarray(Image.fromarray(label).resize((cells, 2), Image.NEAREST))
    np.testing.assert_array_equal(downsample_label(torch.from_numpy(label)[None], (2, cells))[0].numpy(), expected)


def test_backbone_takes_torchvision_weights():
    """Same names and shapes; the undilated layers give the same map."""
    ours = DeepLabV2(num_classes=5, blocks=(3, 4, 6, 3)).backbone.eval()
    theirs = torchvision.models.resnet50(weights=None).eval()
    weights = {name: tensor for name, tensor in theirs.state_dict().items() if not name.startswith("fc.")}
    ours.load_state_dict(weights, strict=True)
    image = torch.randn(1, 3, 33, 41)
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        expected = theirs.layer2(theirs.layer1(x))
        x = ours.maxpool(ours.relu(ours.bn1(ours.conv1(image))))
        torch.testing.assert_close(ours.layer2(ours.layer1(x)), expected)


def test_stride_sits_on_one_convolution_of_the_first_bottleneck():
    def strides(net):
        first = net.backbone.layer2[0]
        return first.conv1.stride[0], first.conv2.stride[0], first.downsample[0].stride[0]

    assert strides(tiny_deeplabv2()) == (1, 2, 2)
    assert strides(tiny_deeplabv2(stride_on_1x1=True)) == (2, 1, 2)


def test_port_names():
    assert deeplab_pytorch_name("backbone.conv1.weight") == "layer1.conv1.conv.weight"
    assert deeplab_pytorch_name("backbone.bn1.running_var") == "layer1.conv1.bn.running_var"
    assert deeplab_pytorch_name("backbone.layer3.22.conv2.weight") == "layer4.block23.conv3x3.conv.weight"
    assert deeplab_pytorch_name("backbone.layer1.0.downsample.1.bias") == "layer2.block1.shortcut.bn.bias"
    assert deeplab_pytorch_name("aspp.c3.bias") == "aspp.c3.bias"
    names = DeepLabV2(num_classes=2, width=1).state_dict()
    assert len({deeplab_pytorch_name(name) for name in names}) == len(names)


def test_multi_scale_outputs(image):
    net = MultiScale(tiny_deeplabv2())
    full, half, three_quarters, maximum = net.train()(image)
    assert [tuple(x.shape) for x in (full, half, three_quarters)] == [(2, 5, 5, 6), (2, 5, 3, 3), (2, 5, 4, 4)]
    resized = [F.interpolate(x, (5, 6), mode="bilinear", align_corners=False) for x in (half, three_quarters)]
    assert torch.equal(maximum, torch.stack([full, *resized]).amax(0))
    assert torch.equal(net.eval()(image), maximum)


def test_multi_scale_loss_ignores_unknown_pixels(image):
    label = torch.randint(0, 5, (2, 33, 41), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    label[0] = 255
    outputs = MultiScale(tiny_deeplabv2()).train()(image)
    losses = multi_scale_loss(outputs, label)
    known = [F.cross_entropy(x[1:], downsample_label(label[1:], x.shape[2:]).long()) for x in outputs]
    torch.testing.assert_close(losses, torch.stack(known))
    assert multi_scale_loss(outputs, torch.full_like(label, 255)).tolist() == [0, 0, 0, 0]


def test_balanced_loss_weighs_background_and_foreground_equally():
    logits = torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    label = torch.zeros(1, 4, 5, dtype=torch.uint8)
    label[0, 0, :3] = torch.tensor([1, 2, 255])
    per_pixel = F.cross_entropy(logits, label.long(), ignore_index=255, reduction="none")
    expected = (per_pixel[label == 0].mean() + per_pixel[0, 0, :2].mean()) / 2
    torch.testing.assert_close(pixel_cross_entropy(logits, label, balanced=True), expected)


@pytest.mark.parametrize("build", [tiny_deeplabv2, tiny_deeplabv1])
def test_a_step_trains_the_groups_and_no_frozen_batchnorm(build, image):
    net = build().train()
    before = {name: tensor.clone() for name, tensor in net.backbone.state_dict().items()}
    groups = net.parameter_groups(lr=1e-3)
    label = torch.zeros(2, 33, 41, dtype=torch.uint8)
    multi_scale_loss([net(image)], label).sum().backward()
    assert all(p.grad is not None for group in groups for p in group["params"])
    torch.optim.SGD(groups).step()
    batchnorm = [name for name in before if ".bn" in f".{name}" or "downsample.1" in name]
    assert batchnorm and all(torch.equal(net.backbone.state_dict()[name], before[name]) for name in batchnorm)
    assert any(not torch.equal(net.backbone.state_dict()[name], before[name]) for name in before)


@pytest.mark.parametrize("build, lr", [(tiny_deeplabv2, 2.5e-4), (tiny_deeplabv1, 1e-3)])
def test_learning_rates_and_decay(build, lr):
    groups = build().parameter_groups()
    assert [group["lr"] for group in groups] == pytest.approx([lr, 10 * lr, 20 * lr])
    assert [group["weight_decay"] for group in groups] == [5e-4, 5e-4, 0]
    assert {p.dim() for group in groups[:2] for p in group["params"]} == {4}
    assert {p.dim() for p in groups[2]["params"]} == {1}


def test_deeplabv1_gives_logits_of_the_image_size(image):
    net = tiny_deeplabv1().eval()
    assert net(image).shape == (2, 5, 33, 41)
    assert net.backbone(image).shape == (2, 128, 5, 6)
    assert not net.backbone.conv1a.weight.requires_grad
