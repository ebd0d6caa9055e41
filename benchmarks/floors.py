"""Operations that each stage cannot do without."""

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from net.backbone import build_backbone
from net.irn import IRN
from net.msdw import MSDWLoss
from net.sfc import SFCNet


def floors() -> dict[str, float]:
    """Floating-point operations (a multiply-add is 2), counted by PyTorch from shapes alone: nothing is computed."""
    with torch.device("meta"):
        model, irn = SFCNet(build_backbone("resnet50"), 20), IRN(build_backbone("resnet50")).eval()
        criterion = MSDWLoss(torch.ones(20), torch.ones(20))
        label, box = torch.zeros(20, 20), torch.zeros(20, 4, dtype=torch.int64)

        def step():
            outputs = model.forward_scales(torch.zeros(20, 3, 512, 512), box, label)
            criterion(*outputs, label).total.backward()

        def infer():
            for scale in (1.0, 0.5, 1.5, 2.0):
                model.infer(torch.zeros(1, 3, round(375 * scale), round(500 * scale)), label[:1])

        work = {"training step, 16+4 crops of 512": step, "CAMs of an image of 375x500, 4 scales": infer,
                "edges of an image of 375x500": lambda: irn.predict_edge(torch.zeros(3, 375, 500)),
                "IRN forward, a crop of 512": lambda: irn(torch.zeros(1, 3, 512, 512))}
        return {name: count_operations(function) for name, function in work.items()}


def count_operations(function: Callable) -> float:
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()
