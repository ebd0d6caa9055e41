"""The segmentation networks of stages 8 and 9: how they are built, initialised, fed and read back."""

from pathlib import Path
from typing import Any, NamedTuple

import torch.nn as nn

from data.sample import InputError
from frame import weights
from frame.settings.segmentation import SEG_NETS
from net.deeplabv2 import RESNET101_BLOCKS, DeepLabV2, deeplab_pytorch_name
from net.inputs import CAFFE_BGR_MEAN, ImageInput
from net.resnet38 import DeepLabV1
from runtime.work_dir import log

HINT = "check --seg_net, --seg_width and --seg_blocks"


class Design(NamedTuple):
    """What must be known to build a segmentation network and to feed it; stored with its weights.

    num_classes     C, foreground classes
    width, blocks   channels of the stem, and bottlenecks of each layer (DeepLabV2)
    stride_on_1x1   where the bottlenecks have their stride, see net.deeplabv2.DilatedResNet
    normalisation   "rgb": mean and standard deviation of ImageNet; "bgr": mean of Caffe's weights subtracted
    """
    seg_net: str
    num_classes: int
    width: int = 64
    blocks: tuple[int, ...] = RESNET101_BLOCKS
    stride_on_1x1: bool = False
    normalisation: str = "rgb"


class Format(NamedTuple):
    """What the names in a file of weights tell: its network and the conventions it was trained with."""
    seg_net: str
    stride_on_1x1: bool
    normalisation: str


# An entry that only this format has, without `base.` and `backbone.` in front.
FORMATS = {
    "layer1.conv1.conv.weight": Format("deeplabv2_resnet101", True, "bgr"),       # deeplab-pytorch (MSRA, COCO)
    "layer1.0.conv1.weight": Format("deeplabv2_resnet101", False, "rgb"),         # torchvision
    "conv1a.weight": Format("deeplabv1_resnet38", False, "rgb"),                  # SEAM
}
CLASSIFIERS = ("aspp.", "conv_fov", "bn_fov", "cls_conv", "fc")                   # may differ: they start anew


def build(design: Design, frozen_batchnorm: bool = True) -> DeepLabV1 | DeepLabV2:
    """The network with random weights."""
    if design.seg_net == "deeplabv1_resnet38":
        return DeepLabV1(design.num_classes + 1, design.width, frozen_batchnorm=frozen_batchnorm)
    return build_deeplabv2(design, frozen_batchnorm)


def build_deeplabv2(design: Design, frozen_batchnorm: bool = True) -> DeepLabV2:
    return DeepLabV2(design.num_classes + 1, design.blocks, design.width, design.stride_on_1x1,
                     frozen_batchnorm=frozen_batchnorm)


def image_input(design: Design) -> ImageInput:
    """What turns RGB images into the network's input."""
    return ImageInput(CAFFE_BGR_MEAN, std=None) if design.normalisation == "bgr" else ImageInput()


# --- initial weights ------------------------------------------------------------------------------------------

def build_initialised(design: Design, init: str) -> tuple[nn.Module, Design]:
    """The network as --seg_init says, and its design with the conventions of those weights.

    init  "imagenet" (torchvision's ResNet-101 V1), "none" (random; BatchNorm is then trained too), or a file: ours,
          torchvision's, deeplab-pytorch's or SEAM's names
    Raises InputError when the weights are of another network; its classifier may differ and then starts anew.
    """
    if init == "none":
        log.info("--seg_init none: random weights, so BatchNorm is trained too")
        return build(design, frozen_batchnorm=False), design
    if init == "imagenet":
        return imagenet_network(design), design
    content = weights.load_file(init)
    found = {name.removeprefix("base."): tensor for name, tensor in weights.tensors_of(content, init).items()}
    conventions = conventions_of(content, found, design.seg_net, init)
    design = design._replace(**conventions._asdict())
    model = build(design)
    load_initial(model, found, init)
    return model, design


def imagenet_network(design: Design) -> DeepLabV2:
    if design.seg_net != "deeplabv2_resnet101":
        raise InputError(f"--seg_init imagenet: there are no ImageNet weights of {design.seg_net} to download; convert "
                         "those that SEAM names to a state dict and give --seg_init FILE, or --seg_init none")
    if (design.width, design.blocks) != (64, RESNET101_BLOCKS):
        raise InputError("--seg_init imagenet needs ResNet-101: leave out --seg_width and --seg_blocks, or give "
                         "--seg_init none")
    model = build_deeplabv2(design)
    weights.imagenet_weights(model.backbone, "resnet101", "--seg_init")
    return model


def conventions_of(content: dict, found: dict, seg_net: str, path: str | Path) -> Format:
    """Format of the entries `found`; our own files state their conventions. Raises InputError for another network."""
    names = {name.removeprefix("backbone.") for name in found}
    form = next((form for entry, form in FORMATS.items() if entry in names), None)
    if form is None or form.seg_net != seg_net:
        raise InputError(f"{path}: weights of another network ({form.seg_net if form else 'of unknown names'}), but "
                         f"{seg_net} is needed; check --seg_net and --seg_init")
    return form._replace(**{key: content[key] for key in ("stride_on_1x1", "normalisation") if key in content})


def load_initial(model: DeepLabV1 | DeepLabV2, found: dict, path: str | Path) -> None:
    """Load the backbone, and the classifier where the file has one that fits."""
    wanted = model.state_dict()
    port_names = {deeplab_pytorch_name(name): name for name in wanted}
    bare = not any(name.startswith("backbone.") for name in found)
    backbone, classifier = {}, {}
    for name, tensor in found.items():
        if name.startswith(CLASSIFIERS):
            classifier[name] = tensor
            continue
        ours = port_names.get(name, name)
        backbone[ours if ours in wanted or not bare else f"backbone.{ours}"] = tensor
    weights.load_strictly(model.backbone, {name.removeprefix("backbone."): tensor for name, tensor in backbone.items()},
                          path, HINT)
    head = {name: tensor for name, tensor in wanted.items() if not name.startswith("backbone.")}
    if classifier.keys() == head.keys() and all(classifier[name].shape == head[name].shape for name in head):
        model.load_state_dict(classifier, strict=False)
        log.info("%s: backbone and classifier loaded", path)
    else:
        log.info("%s: backbone loaded; the classifier starts anew", path)


# --- trained weights ------------------------------------------------------------------------------------------

def load_trained(path: str | Path) -> tuple[nn.Module, Design, tuple[str, ...]]:
    """Network, design and foreground class names of a deeplab.pth. Raises InputError when it is none."""
    content = weights.load_file(path)
    known = content if isinstance(content, dict) else {}
    facts: dict[str, Any] = {key: known.get(key) for key in (*Design._fields, "class_names")}
    if facts.get("seg_net") not in SEG_NETS or None in facts.values():
        raise InputError(f"{path}: not written by train_deeplab.py (which also stores {', '.join(Design._fields)}); "
                         "train the network with it, or start from this file with --seg_init")
    class_names = tuple(facts.pop("class_names"))
    model = build(Design(**facts))
    weights.load_strictly(model, weights.tensors_of(content, path), path, "written by another version?")
    return model, Design(**facts), class_names
