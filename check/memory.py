"""Memory of the stages that run networks, counted on tensors without content, against what is free.

PyTorch's meta device runs every operation on shapes alone; PeakMemory adds up what the tensors would take.
"""

import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn as nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from check.finding import ERROR, OK, WARNING, Finding
from check.networks import META, bytes_of, irn_network, seg_network, sfc_network
from check.plan import Plan
from frame.settings.cams import Calibration, Inference, SfcTraining
from frame.settings.common import Memory, Run
from frame.settings.irn import IrnCrop, IrnTraining
from frame.settings.segmentation import OWN_PASSES, OWN_TRAINING, SegNetwork, SegTraining, with_own_values
from net.deeplabv2 import MultiScale, multi_scale_loss
from net.irn import PathIndex, irn_loss
from net.msdw import MSDWLoss
from runtime import distributed
from runtime.device import choose

# What libraries need besides the tensors. Measured on a CPU with ResNet-50, where 722 and 531 MB of tensors took 1174
# and 839; not measured on a GPU.
WORKSPACE = 1.2                    # times the tensors
LIBRARIES = 0.4e9                  # bytes
TIGHT = 0.8                        # share of the free memory from which on a warning is due
MOST_PASSES = 64


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all tensors that are made while it is entered, and that live at the same time at most."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, func, types, values=(), named=None):
        out = func(*values, **(named or {}))
        for tensor in filter(torch.is_tensor, tree_leaves(out)):
            storage = tensor.untyped_storage()
            if storage._cdata not in self.known:
                self.known.add(storage._cdata)
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return out

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.live -= size


class Work(NamedTuple):
    """What a stage computes at a time.

    images   of a pass, on one process
    bytes    (images) -> memory
    what     the images, for the message
    passes   that a step is cut into now; None where there are no steps
    """
    images: int
    bytes: Callable[[int], float]
    what: str
    passes: int | None = None


def check(plan: Plan) -> Iterator[Finding]:
    free, where = free_memory(choose(plan.flags[Run].device).name)
    for stage in plan.to_do():
        if stage in WORKS:
            yield judge(stage, WORKS[stage](plan), free, where)


def judge(stage: str, work: Work, free: float, where: str) -> Finding:
    needed = work.bytes(work.images)
    said = f"{stage}: about {gigabytes(needed)} for {work.images} {work.what}; {gigabytes(free)} free {where}"
    if needed <= free:
        return Finding("memory", WARNING if needed > TIGHT * free else OK, said)
    return Finding("memory", ERROR, said, smaller(work, free))


def smaller(work: Work, free: float) -> str:
    """The flag with which the stage fits into what is free."""
    images, factor = work.images, 1
    while images > 1 and factor < MOST_PASSES:
        factor *= 2
        images = -(-work.images // factor)
        if (needed := work.bytes(images)) <= free:
            flag = f"--grad_accum {work.passes * factor}" if work.passes else f"--cam_batch_size {images}"
            return f"{flag} (about {gigabytes(needed)}), or a device with more memory"
    return "not even one image fits: smaller crops or images, a smaller --backbone, or a device with more memory"


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"


def free_memory(device: str) -> tuple[float, str]:
    """Bytes that are free on the device, and where."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0], f"on {device}"
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else []
    available = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return (available[0], "in memory") if available else (float("inf"), "in memory (unknown on this system)")


# --- the stages -----------------------------------------------------------------------------------------------

def peak_bytes(model: nn.Module, work: Callable[[], object]) -> float:
    """Memory of a network and of `work` with it."""
    with PeakMemory() as memory:
        work()
    return (bytes_of(model) + memory.peak) * WORKSPACE + LIBRARIES


def training_bytes(model: nn.Module, loss: Callable[[], torch.Tensor]) -> float:
    """Forward, backward and the momentum of SGD, which is as large as the trained parameters."""
    momentum = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    return peak_bytes(model, lambda: loss().backward()) + momentum


def crops(images: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, 3, side, side) uint8 images and their (N, 4) boxes."""
    return (torch.empty(images, 3, side, side, dtype=torch.uint8, device=META),
            torch.empty(images, 4, dtype=torch.int64, device=META))


def share(step_images: int, passes: int) -> int:
    """Images of a pass on one process."""
    return -(-step_images // (passes * distributed.world()))


def sfc_work(plan: Plan) -> Work:
    flags, num_classes = plan.flags, plan.data_set.num_classes
    settings, calibration, passes = flags[SfcTraining], flags[Calibration], flags[Memory].passes
    bank = 3 * settings.crop_size ** 2 * num_classes * calibration.ibr

    def needed(images: int) -> float:
        model = sfc_network(flags, num_classes).train()
        ones, labels = torch.ones(num_classes, device=META), torch.empty(images, num_classes, device=META)
        pixels, boxes = crops(images, settings.crop_size)

        def loss() -> torch.Tensor:
            outputs = model.forward_scales(model.backbone.prepare(pixels, boxes), boxes, labels)
            return MSDWLoss(ones, ones)(*outputs, labels).total

        return training_bytes(model, loss) + bank

    step_images = settings.batch_size + calibration.bank_images
    return Work(share(step_images, passes), needed, f"crops of {settings.crop_size} pixels", passes)


def cam_work(plan: Plan) -> Work:
    """The largest scale of the largest image that was looked at."""
    settings, num_classes = plan.flags[Inference], plan.data_set.num_classes
    height, width = max((found.size for found in plan.looks if found.size), key=lambda size: size[0] * size[1],
                        default=(500, 500))
    scale = max(settings.scales)

    def needed(images: int) -> float:
        model = sfc_network(plan.flags, num_classes).eval()
        pixels = torch.empty(images, 3, round(height * scale), round(width * scale), dtype=torch.uint8, device=META)
        labels = torch.empty(images, num_classes, device=META)
        with torch.no_grad():
            return peak_bytes(model, lambda: model.infer(model.backbone.prepare(pixels), labels, settings.mask_cam))

    return Work(settings.cam_batch_size, needed, f"images of {width}x{height} pixels at scale {scale:g}")


def irn_work(plan: Plan) -> Work:
    flags = plan.flags
    settings, crop, passes = flags[IrnTraining], flags[IrnCrop].irn_crop_size, flags[Memory].passes

    def needed(images: int) -> float:
        model = irn_network(flags).train()
        pixels, boxes = crops(images, crop)
        labels = torch.empty(images, crop, crop, dtype=torch.uint8, device=META)

        def loss() -> torch.Tensor:
            edge, displacement = model(model.backbone.prepare(pixels, boxes))
            return irn_loss(edge, displacement, labels, PathIndex(settings.radius), distributed.count)["loss_total"]

        return training_bytes(model, loss)

    return Work(share(settings.batch_size, passes), needed, f"crops of {crop} pixels", passes)


def seg_work(plan: Plan) -> Work:
    flags, num_classes = plan.flags, plan.data_set.num_classes
    chosen = flags[SegNetwork].net
    settings = with_own_values(flags[SegTraining], OWN_TRAINING[chosen])
    passes = flags[Memory].grad_accum or OWN_PASSES[chosen]

    def needed(images: int) -> float:
        model = seg_network(flags, num_classes)
        if chosen == "deeplabv2_resnet101":
            model = MultiScale(model, settings.loss_scales)
        model.train()
        pixels = torch.empty(images, 3, settings.crop_size, settings.crop_size, device=META)
        labels = torch.empty(images, settings.crop_size, settings.crop_size, dtype=torch.uint8, device=META)

        def loss() -> torch.Tensor:
            logits = model(pixels)
            maps = [logits] if torch.is_tensor(logits) else logits
            return multi_scale_loss(maps, labels, balanced=False, count=distributed.count).sum()

        return training_bytes(model, loss)

    return Work(share(settings.batch_size, passes), needed, f"crops of {settings.crop_size} pixels", passes)


WORKS = {"train_sfc": sfc_work, "make_cam": cam_work, "train_irn": irn_work, "train_deeplab": seg_work}
