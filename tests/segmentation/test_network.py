"""Networks of stage 8: initial weights of every origin, and the images as each network wants them."""

import pytest
import torch

from data.sample import InputError
from frame import engine
from net.deeplabv2 import DeepLabV2, deeplab_pytorch_name
from net.inputs import CAFFE_BGR_MEAN
from net.resnet38 import DeepLabV1
from segmentation.network import Design, build, build_initialised, image_input, load_trained

DESIGN = Design("deeplabv2_resnet101", 4, width=4, blocks=(1, 1, 1, 1))
DESIGN38 = Design("deeplabv1_resnet38", 4, width=2)


def test_each_convention_has_its_normalisation():
    image = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    image[:, 0] = 200                                                             # red
    bgr = image_input(DESIGN._replace(normalisation="bgr"))(image)
    torch.testing.assert_close(bgr[0, :, 0, 0], torch.tensor([0, 0, 200]) - torch.tensor(CAFFE_BGR_MEAN))
    torch.testing.assert_close(image_input(DESIGN)(image)[0, 0, 0, 0].item(), (200 / 255 - 0.485) / 0.229)


def same(model, other):
    return all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize("prefix, classifier", [("", False), ("base.", True), ("module.base.", True)])
def test_deeplab_pytorch_checkpoints_load(tmp_path, prefix, classifier):
    torch.manual_seed(1)
    theirs = DeepLabV2(5, (1, 1, 1, 1), 4, stride_on_1x1=True)
    state = {prefix + deeplab_pytorch_name(name): tensor for name, tensor in theirs.state_dict().items()
             if (classifier or "aspp" not in name) and "num_batches" not in name}
    torch.save(state, tmp_path / "coco.pth")
    model, design = build_initialised(DESIGN, str(tmp_path / "coco.pth"))
    assert same(model.backbone, theirs.backbone) and same(model.aspp, theirs.aspp) == classifier
    assert design.stride_on_1x1 and design.normalisation == "bgr"
    assert model.backbone.layer2[0].conv1.stride == (2, 2) and model.backbone.layer2[0].conv2.stride == (1, 1)


def test_a_classifier_of_other_classes_starts_anew(tmp_path):
    theirs = DeepLabV2(91, (1, 1, 1, 1), 4, stride_on_1x1=True)
    torch.save({deeplab_pytorch_name(name): tensor for name, tensor in theirs.state_dict().items()}, tmp_path / "a.pth")
    model, _ = build_initialised(DESIGN, str(tmp_path / "a.pth"))
    assert same(model.backbone, theirs.backbone) and model.aspp.c0.bias.shape == (5,)


def test_torchvision_names_load(tmp_path):
    theirs = build(DESIGN)
    torch.save(theirs.backbone.state_dict() | {"fc.weight": torch.zeros(1000, 128), "fc.bias": torch.zeros(1000)},
               tmp_path / "resnet.pth")
    model, design = build_initialised(DESIGN, str(tmp_path / "resnet.pth"))
    assert same(model.backbone, theirs.backbone) and not design.stride_on_1x1 and design.normalisation == "rgb"


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_resnet38_weights_load(tmp_path, prefix):
    theirs = DeepLabV1(5, width=2)
    torch.save({prefix + name: tensor for name, tensor in theirs.backbone.state_dict().items()}, tmp_path / "38.pth")
    model, design = build_initialised(DESIGN38, str(tmp_path / "38.pth"))
    assert same(model.backbone, theirs.backbone) and design.normalisation == "rgb"


def test_our_own_result_keeps_its_conventions(tmp_path):
    wanted = DESIGN._replace(stride_on_1x1=True, normalisation="bgr")
    theirs = build(wanted)
    engine.save_model(tmp_path / "deeplab.pth", theirs, **wanted._asdict(), class_names=list("abcd"))
    model, design = build_initialised(DESIGN, str(tmp_path / "deeplab.pth"))
    assert same(model, theirs) and design == wanted
    again, stored, names = load_trained(tmp_path / "deeplab.pth")
    assert same(again, theirs) and stored == design and names == tuple("abcd")


@pytest.mark.parametrize("state, message", [
    (DeepLabV1(5, width=2).backbone.state_dict(), "deeplabv1_resnet38"),
    ({"encoder.weight": torch.zeros(2)}, "unknown names"),
    (build(DESIGN._replace(blocks=(1, 2, 1, 1))).backbone.state_dict(), "layer2.1.conv1.weight"),
    (build(DESIGN._replace(width=2)).backbone.state_dict(), "of another shape"),
    ({k: v for k, v in build(DESIGN).backbone.state_dict().items() if k != "layer3.0.conv2.weight"}, "missing"),
    (build(DESIGN).backbone.state_dict() | {"extra.weight": torch.ones(3)}, "extra.weight"),
])
def test_weights_of_another_network_are_refused(tmp_path, state, message):
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(InputError, match=message) as error:
        build_initialised(DESIGN, str(tmp_path / "other.pth"))
    assert "other.pth" in str(error.value) and "check --seg" in str(error.value)


@pytest.mark.parametrize("design", [DESIGN, DESIGN38])
def test_imagenet_weights_need_the_network_they_are_of(design):
    with pytest.raises(InputError, match="--seg_init"):
        build_initialised(design, "imagenet")
