"""Each stage's inner work beside a plain reading of the same equations: same inputs, same results, one run.

    python -m benchmarks                                            # all; under 5 minutes on two CPU cores
    python -m benchmarks --only train_step --device cuda            # real sizes on a GPU
    python -m benchmarks --only cam_record --voc12_root VOCdevkit/VOC2012
    python -m benchmarks --floors                                   # operations each stage cannot do without

A row is "met" when its number reaches the target; rows without a target inform. Work on one core is timed by
the processor time it takes, so that other programs on the machine count as little as possible.
"""

import argparse
import functools
import json
import multiprocessing
import os
import platform
import resource
import statistics
import tempfile
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Callable, NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import default_collate
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import plain
from data import mini_voc
from data.cam_store import CamRecord, read_final_cam, write_record
from data.image_bank import ImageBank
from data.loader import TrainCrops
from data.sample import image_size, read_image, read_mask, write_mask
from data.transforms import normalise, rescale, zero_outside
from frame import engine, network, options, weights
from net.backbone import build_backbone
from net.irn import IRN, PathIndex
from net.msdw import MSDWLoss
from net.sfc import SFCNet
from refine.crf import ir_label
from refine.metrics import ConfusionMatrix
from refine.random_walk import propagate, transition_matrix
from runtime import progress
from runtime.command import exit_with_message, positive_int
from runtime.parallel import map_images


class Row(NamedTuple):
    """A line of the table; `met` is None where there is no target."""
    name: str
    ours: float
    plain: float | None
    ratio: float | None
    target: str = ""
    met: bool | None = None


class Setup(NamedTuple):
    """What the benchmarks run on: a device, a folder for files, and images with labels and masks."""
    device: torch.device
    folder: Path
    data_set: object
    ids: list[str]
    images: int                    # how many of them the slow benchmarks take
    checkpoint: str | None


# --- measuring ------------------------------------------------------------------------------------------------

def core_seconds(function: Callable, repeats: int = 3, clock: Callable = time.process_time) -> float:
    """Least processor time of a call, or time by another clock."""
    times = []
    for _ in range(repeats):
        start = clock()
        function()
        times.append(clock() - start)
    return min(times)


def seconds(function: Callable, device: torch.device, repeats: int) -> float:
    """Least time of a call that ends by waiting for the device: on the CPU processor time, else wall time."""
    return core_seconds(function, repeats, time.process_time if device.type == "cpu" else time.perf_counter)


def peak_mb(function: Callable, device: torch.device = torch.device("cpu")) -> float:
    """MB a call needs at its peak: of the GPU in all, on the CPU beyond what the process had before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        function()
        return torch.cuda.max_memory_allocated() / 1e6
    context = multiprocessing.get_context("fork")               # a process of its own has a peak of its own
    result = context.SimpleQueue()

    def child() -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        function()
        result.put(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)

    process = context.Process(target=child)
    process.start()
    process.join()
    return result.get() * 1024 / 1e6


# --- random walk ----------------------------------------------------------------------------------------------

def random_walk(setup: Setup) -> list[Row]:
    """The whole walk on IRN's grid of an image of 375 x 500 pixels. The dense power of that grid would take minutes:
    it is measured on a grid of half the sides and multiplied by the cube of the ratio of the cells."""
    cam, edge = walk_input(94, 125)
    memory = peak_mb(lambda: propagate(cam, edge))
    ours = core_seconds(lambda: propagate(cam, edge), 5)

    small_cam, small_edge = walk_input(47, 62)
    transition = plain.dense_transition(small_edge[0]).float()            # as IRN multiplies
    small = core_seconds(lambda: plain.dense_power(transition), 2)
    dense = small * (edge.size / small_edge.size) ** 3

    two_matrices = 2 * 4 * edge.size ** 2 / 1e6                          # a power and its square, float32
    small_gap = label_gap(propagate(small_cam, small_edge), plain.dense_walk(small_cam, small_edge))
    gap = label_gap(propagate(cam, edge), walk_step_by_step(cam, edge))
    return [Row("seconds; dense from 47x62 by n^3", ours, dense, dense / ours, ">= 400x", dense / ours >= 400),
            Row("other labels than the dense power, 47x62 (%)", small_gap, None, None, "0", small_gap == 0),
            Row("other labels than 256 steps, 94x125 (%)", gap, None, None, "0", gap == 0),
            Row("peak memory (MB)", memory, two_matrices, two_matrices / memory, "< 100",
                memory < 100)]


def walk_input(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth CAMs (4, h, w), and an edge map (1, h, w) with ridges between the regions of four others."""
    rng = torch.Generator().manual_seed(0)
    fields = F.interpolate(torch.rand(1, 8, 6, 8, generator=rng), (height, width), mode="bicubic")[0].clamp(0, 1)
    first, second = fields[4:].topk(2, dim=0).values
    return fields[:4].numpy(), torch.exp((second - first) / 0.05)[None].numpy()


def walk_step_by_step(cam: np.ndarray, edge: np.ndarray, steps: int = 256) -> np.ndarray:
    transition = transition_matrix(edge[0], beta=10, radius=5)
    x = (cam * (1 - edge)).reshape(len(cam), -1).T.astype(np.float64)
    for _ in range(steps):
        x = transition @ x
    return x.T.reshape(cam.shape)


def label_gap(one: np.ndarray, other: np.ndarray) -> float:
    """Per cent of the pixels with different arg-max."""
    return 100 * float((one.argmax(0) != other.argmax(0)).mean())


# --- training step --------------------------------------------------------------------------------------------

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
    memory = [peak_mb(lambda: two_steps(make(size, device), data), device) for make, data in both]
    time_of, share = zip(*(measure_step(make(size, device), data, device) for make, data in both))
    rate = [(size.batch + size.bank) / step for step in time_of]
    speed_up, saved = rate[0] / rate[1], memory[1] / memory[0]
    rows = [Row(f"images/s, {size.backbone}, {size.batch}+{size.bank} of {size.crop} px", *rate, speed_up,
                ">= 3x" if on_gpu else "", speed_up >= 3 if on_gpu else None),
            Row("peak memory with the network (MB)", *memory, saved, ">= 3x" if on_gpu else "",
                saved >= 3 if on_gpu else None)]
    if not on_gpu:
        rows.append(Row("time over that of its own convolutions", *share, None, "<= 1.25", share[0] <= 1.25))
    return rows


def two_steps(step: Callable, batch) -> None:
    """The second one finds the optimiser's momentum in place, as all but the first do."""
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
    backbone = build_backbone(size.backbone)
    placement = (top, 0, top, 0, shown, size.crop)
    pairs = [plain.float_crop(image, label, placement, size.crop, backbone.mean, backbone.std)
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
        pixels = zero_outside(normalise(images, model.backbone.mean, model.backbone.std), boxes)
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


# --- inter-pixel relations ------------------------------------------------------------------------------------

def path_maxima(setup: Setup) -> list[Row]:
    """Strongest boundary on every path of IRN's radius 10, forward and backward, on crops of 512 pixels."""
    crops = 16 if setup.device.type == "cuda" else 2
    edge = torch.rand(crops, 128, 128, generator=torch.Generator().manual_seed(0)).to(setup.device).requires_grad_()
    path_index = PathIndex()

    def both_ways(path_maximum: Callable) -> float:
        gradient, = torch.autograd.grad(path_maximum(edge).sum(), edge)
        return gradient.sum().item()                                    # waits for the device

    time_of = [seconds(lambda: both_ways(function), setup.device, 3)
               for function in (path_index.path_maximum, functools.partial(plain.path_maximum, path_index))]
    return [Row(f"seconds, {crops} crops of 512 px", *time_of, time_of[1] / time_of[0])]


# --- loader ---------------------------------------------------------------------------------------------------

def loader(setup: Setup, crop: int = 512, batch: int = 16) -> list[Row]:
    """Decoding, augmenting and stacking a batch in one process."""
    labels = setup.data_set.image_labels(setup.ids)
    common = (setup.ids, labels, setup.data_set.image_path, crop, (320, 640), True, 0)
    ours, theirs = TrainCrops(*common), plain.FloatCrops(*common, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    keys = [(0, i % len(setup.ids)) for i in range(batch)]
    rate = [batch / core_seconds(lambda: default_collate([data[key] for key in keys])) for data in (ours, theirs)]
    size = [sum(part.numel() * part.element_size() for part in data[keys[0]]) / 1e6 for data in (ours, theirs)]
    return [Row(f"MB a sample, crop {crop}", *size, size[1] / size[0], "<= 0.8", size[0] <= 0.8),
            Row("samples/s on one core", *rate, rate[0] / rate[1], ">= 3x", rate[0] / rate[1] >= 3)]


# --- CAM records ----------------------------------------------------------------------------------------------

SCALES = (1.0, 0.5, 1.5, 2.0)


def cam_record(setup: Setup) -> list[Row]:
    """Records of an EfficientNet-Lite0 network, and what stage 4 makes of them, against maps kept full-size in float32.
    Without --checkpoint its weights are ImageNet's, and its classifier the mean feature of each class."""
    labels = setup.data_set.image_labels(setup.ids)
    model = cam_model(setup, labels)
    records = [compare_record(model, setup, name, label) for name, label in zip(setup.ids[:setup.images], labels)]
    ours, theirs, seeds, refined = np.mean(records, axis=0)
    return [Row("KB an image", ours, theirs, theirs / ours, "<= 60", bool(ours <= 60)),
            Row("other arg-max than float32's (%)", seeds, None, None, "<= 0.01", bool(seeds <= 0.01)),
            Row("other IR labels than float32's (%)", refined, None, None, "<= 0.01", bool(refined <= 0.01))]


def compare_record(model: SFCNet, setup: Setup, name: str, label: np.ndarray) -> tuple[float, float, float, float]:
    """KB of an image's record and of its full-size maps; per cent of the pixels where the arg-max maps that the CRFs
    start from differ, and where the IR labels do."""
    image = read_image(setup.data_set.image_path(name))
    classes, maps = infer_scales(model, image, label)
    path = setup.folder / f"{name}.npz"
    write_record(path, CamRecord(classes, image.shape[:2], *maps), setup.data_set.num_classes)
    cam, keys = read_final_cam(path, setup.data_set.num_classes, 0.7, 0.4, image.shape[:2])
    whole = [plain.full_size(kind, image.shape[:2]) for kind in maps]
    cams = cam.numpy(), plain.final_cam(*whole, 0.7).numpy()
    seeds = [plain.seed_labels(one) for one in cams]
    refined = [ir_label(image, one, keys) for one in cams]
    return (path.stat().st_size / 1024, sum(kind.numel() * 4 for kind in whole) / 1024,
            100 * np.mean(np.not_equal(*seeds)), 100 * np.mean(np.not_equal(*refined)))


def cam_model(setup: Setup, labels: np.ndarray) -> SFCNet:
    torch.manual_seed(0)
    model = SFCNet(build_backbone("efficientnet_lite0"), setup.data_set.num_classes)
    if setup.checkpoint:
        weights.load_network(model, setup.checkpoint)
        return model.to(setup.device).eval()
    weights.imagenet_weights(model.backbone, "efficientnet_lite0")
    model.to(setup.device).eval()
    pooled = torch.stack([pooled_feature(model, setup, name) for name in setup.ids])            # (images, D)
    pooled = pooled - pooled.mean(0)
    member = torch.from_numpy(labels).float().to(setup.device)
    means = member.T @ pooled / member.sum(0)[:, None].clamp(min=1)                               # (C, D)
    model.classifier.weight.data = means[:, :, None, None]
    return model


@torch.no_grad()
def pooled_feature(model: SFCNet, setup: Setup, name: str) -> torch.Tensor:
    """(D,) mean of the last feature map of an image at half size."""
    return model.backbone(network_input(model, read_image(setup.data_set.image_path(name)), 0.5))[3].mean((0, 2, 3))


def network_input(model: SFCNet, image: np.ndarray, scale: float) -> torch.Tensor:
    """(H, W, 3) uint8 -> (1, 3, h, w) at a scale, normalised, on the device of the model."""
    pixels = torch.from_numpy(rescale(image, scale).transpose(2, 0, 1).copy())[None]
    return normalise(pixels.to(model.classifier.weight.device), model.backbone.mean, model.backbone.std)


@torch.no_grad()
def infer_scales(model: SFCNet, image: np.ndarray, label: np.ndarray):
    """The classes of an image (1-based), and M_W and M_P of each scale with the maps of the background and those."""
    present = torch.from_numpy(label)[None].to(model.classifier.weight.device)
    channels = [0, *(label.nonzero()[0] + 1)]
    maps = []
    for scale in SCALES:
        output = model.infer(network_input(model, image, scale), present)
        maps.append((output.weight_cam[0, channels].cpu(), output.prototype_cam[0, channels].cpu()))
    return np.array(channels[1:]), [list(kind) for kind in zip(*maps)]


# --- IR labels ------------------------------------------------------------------------------------------------

def ir_labels(setup: Setup) -> list[Row]:
    """Stage 4 from CAMs made of blurred masks: one core against both CRFs always, and one against two processes."""
    names = setup.ids[:setup.images]
    for name in names:
        write_blurred_record(setup, name)
    work = functools.partial(label_image, setup.data_set, setup.folder, ir_label)
    both = functools.partial(label_image, setup.data_set, setup.folder, plain.ir_label)
    rate = [len(names) / core_seconds(lambda: [label(name) for name in names], 1) for label in (work, both)]
    return [Row("images/s on one core", *rate, rate[0] / rate[1]), *scaling(work, names)]


def scaling(work: Callable, names: list[str], rounds: int = 3) -> list[Row]:
    """One process against two, in turns, the best of each.

    Processor time says what the code itself allows, whatever else runs: on two free cores, two processes take
    half of what the workers do and, as if nothing overlapped with it, what their parent does. Wall time also holds the
    share of the cores that other programs had.
    """
    turns = [[timed_run(work, names, workers) for workers in (2, 1)] for _ in range(rounds)]
    busy, wall = ([len(names) / min(turn[one][kind] for turn in turns) for one in (0, 1)] for kind in (0, 1))
    load = os.getloadavg()[0]
    return [Row("images/s, processor time: 2 processes, 1", *busy, busy[0] / busy[1], ">= 1.8x", busy[0] / busy[1] >= 1.8),
            Row(f"images/s, wall time at load {load:.1f}: 2, 1", *wall, wall[0] / wall[1])]


def timed_run(work: Callable, names: list[str], workers: int) -> tuple[float, float]:
    """Seconds of processor time, the workers' divided by their number, and of wall time."""
    wall, parent = time.perf_counter(), time.process_time()
    of_workers = sum(map_images(functools.partial(processor_time, work), names, workers, "ir_label"))
    parent, wall = time.process_time() - parent, time.perf_counter() - wall
    return (parent + of_workers / workers if workers > 1 else parent), wall


def processor_time(work: Callable, name: str) -> float:
    """Seconds that this process takes for an image."""
    start = time.process_time()
    work(name)
    return time.process_time() - start


def write_blurred_record(setup: Setup, name: str) -> None:
    """A record such as a good network gives: the masks of the image's classes at stride 16, blurred."""
    mask = setup.data_set.read_mask(name)
    classes = np.setdiff1d(mask, [0, 255])
    blurred = [cv2.GaussianBlur((mask == c).astype(np.float32), (0, 0), max(mask.shape) / 20) for c in (0, *classes)]
    small = np.stack([cv2.resize(cam, (-(-mask.shape[1] // 16), -(-mask.shape[0] // 16))) for cam in blurred])
    record = CamRecord(classes, mask.shape, [small], [small])
    write_record(setup.folder / f"{name}.npz", record, setup.data_set.num_classes)


def label_image(data_set, folder: Path, label: Callable, name: str) -> None:
    image = read_image(data_set.image_path(name))
    cam, keys = read_final_cam(folder / f"{name}.npz", data_set.num_classes, 0.7, 0.4, image.shape[:2])
    write_mask(folder / f"{name}.png", label(image, cam.numpy(), keys))


# --- evaluation -----------------------------------------------------------------------------------------------

def evaluation(setup: Setup, images: int = 48) -> list[Row]:
    """mIoU of pseudo masks (the ground truth, moved by 8 pixels) from files, against all masks kept in memory."""
    names = (setup.ids * images)[:images]
    for name in set(names):
        mask = setup.data_set.read_mask(name)
        write_mask(setup.folder / f"{name}.png", np.roll(np.where(mask == 255, 0, mask), 8, axis=1))
    ours, theirs = (functools.partial(score, setup) for score in (our_miou, plain_miou))
    rate = [images / core_seconds(lambda: score(names)) for score in (ours, theirs)]
    growth = [traced_peak(lambda: score(names * 4)) / traced_peak(lambda: score(names)) for score in (ours, theirs)]
    return [Row("images/s on one core", *rate, rate[0] / rate[1], ">= 200", rate[0] >= 200),
            Row("peak memory at 4x the images, times", *growth, growth[1] / growth[0], "<= 1.05", growth[0] <= 1.05)]


def mask_pairs(setup: Setup, names: list[str]):
    """Pseudo mask and ground truth of each image, read and checked as stage 7 does."""
    for name in names:
        size = image_size(setup.data_set.image_path(name))
        prediction = read_mask(setup.folder / f"{name}.png", setup.data_set.num_classes, size)
        yield prediction, setup.data_set.read_mask(name, size)


def our_miou(setup: Setup, names: list[str]) -> float:
    confusion = ConfusionMatrix(setup.data_set.num_classes + 1)
    for prediction, truth in mask_pairs(setup, names):
        confusion.update(prediction, truth)
    return confusion.miou()


def plain_miou(setup: Setup, names: list[str]) -> float:
    return plain.miou(*zip(*mask_pairs(setup, names)), setup.data_set.num_classes + 1)


def traced_peak(function: Callable) -> int:
    """Bytes of Python and NumPy at the peak of a call."""
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


# --- floors ---------------------------------------------------------------------------------------------------

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


# --- command line ---------------------------------------------------------------------------------------------

BENCHMARKS = {"random_walk": random_walk, "train_step": train_step, "path_maxima": path_maxima, "loader": loader,
              "cam_record": cam_record, "ir_label": ir_labels, "evaluation": evaluation}
TEXT_WIDTH = 46


def open_images(args, folder: Path):
    """The data set of --voc12_root, or a generated one of 48 images about as large as VOC's; ids that have masks."""
    root = args.voc12_root or mini_voc.generate(folder / "images", 48, 1, image_size=432, num_classes=16, workers=1)
    data_set = options.open_data_set(SimpleNamespace(dataset="voc12", voc12_root=root, labels="xml"))
    ids, _ = data_set.split("train")
    return data_set, np.random.default_rng(0).permutation(ids)[:max(48, args.images)].tolist()


def machine(device: torch.device) -> dict:
    """What the numbers were measured on."""
    info = Path("/proc/cpuinfo")                                        # Linux
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"cpu": cpu, "cores": os.cpu_count(), "device": name, "torch": torch.__version__,
            "load_average": round(os.getloadavg()[0], 1)}


def line_of(row: Row) -> str:
    numbers = "".join(f"{'-' if value is None else f'{value:.4g}':>11}" for value in (row.ours, row.plain))
    ratio = "-" if row.ratio is None else f"{row.ratio:.4g}x"
    met = {None: "", True: "yes", False: "NO"}[row.met]
    return f"  {row.name:<{TEXT_WIDTH}}{numbers}{ratio:>9}{row.target:>10}{met:>5}"


def run_benchmarks(names: list[str], setup: Setup) -> dict[str, list[Row]]:
    """Run and print them one after the other."""
    print(f"  {'':<{TEXT_WIDTH}}{'ours':>11}{'plain':>11}{'ratio':>9}{'target':>10}{'met':>5}")
    rows = {}
    for name in names:
        start = time.perf_counter()
        rows[name] = BENCHMARKS[name](setup)
        print(f"{name}  ({time.perf_counter() - start:.0f} s)")
        print("\n".join(map(line_of, rows[name])), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--only", choices=list(BENCHMARKS), help="run this one alone")
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks.json"), help="file to write the numbers to")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu",
                        help="torch device of train_step, path_maxima and cam_record")
    parser.add_argument("--voc12_root", help="real images instead of generated ones")
    parser.add_argument("--images", type=positive_int, default=8, help="images of cam_record and ir_label")
    parser.add_argument("--checkpoint", help="cam_record: trained SFC network of backbone efficientnet_lite0")
    parser.add_argument("--floors", action="store_true", help="print the operations of each stage and end")
    args = parser.parse_args()
    if args.floors:
        for name, count in floors().items():
            print(f"{name:<40}{count / 1e9:>12.1f} G operations")
        return
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    progress.quiet = True
    device = network.prepare_device(args.device)
    before = machine(device)
    print(before)
    with tempfile.TemporaryDirectory() as folder:
        data_set, ids = open_images(args, Path(folder))
        rows = run_benchmarks([args.only] if args.only else list(BENCHMARKS),
                              Setup(device, Path(folder), data_set, ids, args.images, args.checkpoint))
    args.json.parent.mkdir(parents=True, exist_ok=True)
    args.json.write_text(json.dumps({"machine": before, "rows": {key: [row._asdict() for row in value]
                                                                 for key, value in rows.items()}}, indent=2) + "\n")


if __name__ == "__main__":
    exit_with_message(main)
