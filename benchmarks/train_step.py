"""Stage 1's training step."""

import functools
import os
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from benchmarks import plain
from benchmarks.measure import Row, Setup, peak_mb, seconds
from data.image_bank import ImageBank
from frame import engine, network
from net.backbone import build_backbone
from net.msdw import MSDWLoss
from net.sfc import SFCNet


class StepSize(NamedTuple):
    backbone: str
    crop: int
    batch: int
    bank: int
    num_classes: int = 20


CPU_STEP = StepSize("resnet50", 256, 4, 1)
GPU_STEP = StepSize("resnet50", 512, 16, 4)
CONVOLUTIONS = ("aten::convolution", "aten::convolution_backward")


def train_step(setup: Setup) -> list[Row]:
    """Stage 1's step in float32; on the CPU also against the time of the convolutions inside it."""
    device = setup.device
    on_gpu = device.type == "cuda"
    size = GPU_STEP if on_gpu else CPU_STEP
    batch, float_batch = random_batch(size)
    both = (our_step, batch), (plain_step, float_batch)
    # Memory comes first: what a later step finds freed in this process would not show.
    memory = [peak_mb(functools.partial(two_new_steps, make, size, device, data), device) for make, data in both]
    time_of, share = zip(*(measure_step(make(size, device), data, device) for make, data in both))
    rate = [(size.batch + size.bank) / step for step in time_of]
    speed_up, saved = rate[0] / rate[1], memory[1] / memory[0]
    rows = [Row(f"images/s, {size.backbone}, {size.batch}+{size.bank} of {size.crop} px", *rate, speed_up,
                ">= 3x" if on_gpu else "", speed_up >= 3 if on_gpu else None),
            Row("peak memory with the network (MB)", *memory, saved, ">= 2x" if on_gpu else "",
                saved >= 2 if on_gpu else None)]
    if not on_gpu:
        rows.append(Row("time over that of its own convolutions", *share, None, "<= 1.25", share[0] <= 1.25))
    return rows


def two_new_steps(make: Callable, size: StepSize, device: torch.device, batch) -> None:
    """The second one finds the optimiser's momentum in place, as all but the first do."""
    step = make(size, device)
    step(batch)
    step(batch)


def measure_step(step: Callable, batch, device: torch.device) -> tuple[float, float | None]:
    """Seconds, and on the CPU the time over that of the convolutions."""
    step(batch)                                                         # buffers and kernels are ready from here on
    time_of = seconds(lambda: step(batch), device, 3)
    if device.type == "cuda":
        return time_of, None
    return time_of, statistics.median(time_over_convolutions(lambda: step(batch)) for _ in range(3))


def build_model(size: StepSize, device: torch.device):
    """A network, its optimiser and DC_c."""
    torch.manual_seed(0)
    model = SFCNet(build_backbone(size.backbone), size.num_classes).to(device)
    network.set_training_mode(model, frozen_batchnorm=True)
    optimizer, _ = engine.poly_sgd(model.parameter_groups(1e-3, 1e-2), 1000, momentum=1e-4, weight_decay=1e-4)
    return model, optimizer, torch.linspace(0.5, 1.5, size.num_classes, device=device)


def random_batch(size: StepSize):
    """The same batch as our loader gives it (bytes, boxes, labels) and as the plain one (pixels, masks, labels)."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (size.batch, size.crop, size.crop, 3), np.uint8)
    labels = (rng.random((size.batch, size.num_classes)) < 0.1).astype(np.uint8)
    labels[:, 0] = 1                                                    # no image without a class
    top, shown = size.crop // 8, size.crop // 2
    boxes = torch.tensor([[top, top + shown, 0, size.crop]] * size.batch)
    ours = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), boxes, torch.from_numpy(labels)
    placement = (top, 0, top, 0, shown, size.crop)
    pairs = [plain.float_crop(image, label, placement, size.crop)
             for image, label in zip(images, labels)]
    return ours, (*map(torch.stack, zip(*pairs)), torch.from_numpy(labels).float())


def our_step(size: StepSize, device: torch.device) -> Callable:
    """A function: batch of bytes -> loss of one step, made as stage 1 makes it."""
    model, optimizer, dc = build_model(size, device)
    criterion = MSDWLoss(dc, dc).to(device)
    bank = ImageBank(size.num_classes, size.crop, device)

    def step(batch) -> float:
        images, boxes, labels = (part.to(device, non_blocking=True) for part in batch)
        bank.update(images, boxes, batch[2])
        added = bank.draw(size.bank, torch.Generator().manual_seed(0))
        images, boxes, labels = (torch.cat(pair) for pair in zip((images, boxes, labels), added))
        pixels = model.backbone.prepare(images, boxes)
        losses = criterion(*model.forward_scales(pixels, boxes, labels), labels)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return losses.total.item()                                      # waits for the device

    return step


def plain_step(size: StepSize, device: torch.device) -> Callable:
    """A function: batch of floats -> loss of one plain step."""
    model, optimizer, dc = build_model(size, device)
    bank = plain.HostBank(size.num_classes)
    return lambda batch: plain.training_step(model, optimizer, bank, batch, dc, size.bank,
                                             torch.Generator().manual_seed(0), device)


def time_over_convolutions(step: Callable) -> float:
    """Time of a step over the time it spends in convolutions, both from one profiled call on the CPU."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")                     # the profiler's own messages
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        start = time.perf_counter()
        step()
        whole = time.perf_counter() - start
    convolutions = sum(event.cpu_time_total for event in profile.key_averages() if event.key in CONVOLUTIONS)
    return whole / (convolutions / 1e6)
