"""The networks of the chain as the flags choose them, on PyTorch's meta device: shapes alone, no memory, no weights."""

import torch
import torch.nn as nn

from frame import network
from frame.flags import Flags
from frame.settings.cams import Network, SfcTraining
from frame.settings.common import BackboneChoice
from frame.settings.segmentation import SegNetwork
from net.backbone import build_backbone
from net.irn import IRN
from net.sfc import SFCNet
from segmentation.network import Design, build

META = torch.device("meta")


def sfc_network(flags: Flags, num_classes: int) -> SFCNet:
    with META:
        return network.build_sfc(flags[Network], flags[BackboneChoice].backbone, num_classes,
                                 flags[SfcTraining].train_stem)


def irn_network(flags: Flags) -> IRN:
    with META:
        return IRN(build_backbone(flags[BackboneChoice].backbone))


def seg_network(flags: Flags, num_classes: int) -> nn.Module:
    chosen = flags[SegNetwork]
    with META:
        return build(Design(chosen.net, num_classes, chosen.width, chosen.blocks))


def bytes_of(model: nn.Module) -> int:
    """Bytes of parameters and buffers."""
    return sum(tensor.nbytes for tensor in model.state_dict().values())
