"""Training step of DeepLabV2: ours beside a plain one, and the least time that its operations take.

    python -m benchmarks.deeplab_step                                    # small, on the CPU
    python -m benchmarks.deeplab_step --full --device cuda               # ResNet-101, 2 x 5 crops of 321 pixels
    python -m benchmarks.deeplab_step --full --device cuda --amp bf16

The plain step does what deeplab-pytorch does: it normalises the crops on the host and resizes the label of every
map there through PIL. Ours moves bytes, normalises on the device and samples the labels there. Each step runs in a
process of its own, so that the peak of memory is its own.
"""

import argparse
import json
import multiprocessing
import resource
import time

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from net.deeplabv2 import DeepLabV2, MultiScale, multi_scale_loss
from net.inputs import ImageInput

NUM_CLASSES = 21
SMALL = {"blocks": (1, 1, 2, 1), "width": 8, "crop": 129, "batch": 2, "accumulate": 2}
FULL = {"blocks": (3, 4, 23, 3), "width": 64, "crop": 321, "batch": 5, "accumulate": 2}
ITERATIONS = 20000                      # of the whole training
H100_DENSE = {"off": 495e12, "bf16": 989e12}       # operations a second; off: TF32, PyTorch's default in convolutions


def build(size: dict) -> MultiScale:
    torch.manual_seed(0)
    return MultiScale(DeepLabV2(NUM_CLASSES, size["blocks"], size["width"])).train()


def make_batch(size: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Crops (N, 3, crop, crop) uint8 and labels (N, crop, crop) uint8."""
    rng = torch.Generator().manual_seed(0)
    shape = size["batch"], size["crop"], size["crop"]
    images = torch.randint(0, 256, (shape[0], 3, *shape[1:]), dtype=torch.uint8, generator=rng)
    return images, torch.randint(0, NUM_CLASSES, shape, dtype=torch.uint8, generator=rng)


def our_loss(model, images, labels, device, amp: str) -> torch.Tensor:
    images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
    with torch.autocast(device.type, torch.bfloat16, enabled=amp == "bf16"):
        logits = model(ImageInput().to(device)(images))
    return multi_scale_loss([x.float() for x in logits], labels).sum()


def plain_loss(model, images, labels, device, amp: str) -> torch.Tensor:
    pixels = ImageInput()(images).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=amp == "bf16"):
        outputs = [model.base(pixels)]
        for scale in model.scales:
            small = F.interpolate(pixels, scale_factor=scale, mode="bilinear", align_corners=False)
            outputs.append(model.base(small))
        resized = [F.interpolate(x, outputs[0].shape[2:], mode="bilinear", align_corners=False) for x in outputs]
        outputs.append(torch.stack(resized).max(0)[0])
    loss = 0
    for logits in outputs:
        height, width = logits.shape[2:]
        small = [np.asarray(Image.fromarray(x).resize((width, height), Image.NEAREST)) for x in labels.numpy()]
        label = torch.from_numpy(np.stack(small)).long().to(device)
        loss = loss + F.cross_entropy(logits.float(), label, ignore_index=255)
    return loss


def measure(loss_name: str, size: dict, device_name: str, amp: str, steps: int) -> dict:
    """Images a second, peak memory in MiB (of the GPU; on the CPU, what the steps added) and the first loss."""
    device = torch.device(device_name)
    loss_of = {"ours": our_loss, "plain": plain_loss}[loss_name]
    model = build(size).to(device)
    optimizer = torch.optim.SGD(model.base.parameter_groups(), momentum=0.9)
    images, labels = make_batch(size)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        for _ in range(size["accumulate"]):
            loss = loss_of(model, images, labels, device, amp) / size["accumulate"]
            loss.backward()
        optimizer.step()
        return loss.item()                                               # waits for the device

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    first = step()
    step()                                                               # the momentum exists from here on
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    seconds = np.median(times)                                           # others may use the machine too
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    peak = torch.cuda.max_memory_allocated() / 2 ** 20 if device.type == "cuda" else grown / 1024
    return {"images_per_second": size["batch"] * size["accumulate"] / seconds, "peak_mib": peak, "loss": first}


def operations(size: dict) -> int:
    """Floating-point operations of one optimiser step, counted without computing anything."""
    with torch.device("meta"):
        model = build(size)
        images = torch.empty(size["batch"], 3, size["crop"], size["crop"])
    with FlopCounterMode(display=False) as counter:
        sum(x.sum() for x in model(images)).backward()
    return counter.get_total_flops() * size["accumulate"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--full", action="store_true", help="ResNet-101 at the training's own sizes")
    parser.add_argument("--device", default="cpu", help="torch device")
    parser.add_argument("--amp", choices=("bf16", "off"), default="off", help="precision of the networks")
    parser.add_argument("--steps", type=int, default=10, help="timed steps")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    args = parser.parse_args()
    size = FULL if args.full else SMALL
    results = {}
    for name in ("plain", "ours"):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            results[name] = pool.apply(measure, (name, size, args.device, args.amp, args.steps))
    results["operations"] = operations(FULL)
    results["floor_minutes"] = ITERATIONS * results["operations"] / H100_DENSE[args.amp] / 60
    if args.json:
        print(json.dumps(results, indent=2))
        return
    print(f"{'step':<8}{'images/s':>10}{'peak MiB':>10}{'first loss':>12}   {size}, {args.device}, amp {args.amp}")
    for name in ("plain", "ours"):
        print(f"{name:<8}{results[name]['images_per_second']:>10.2f}{results[name]['peak_mib']:>10.0f}"
              f"{results[name]['loss']:>12.4f}")
    print(f"full step: {results['operations'] / 1e12:.2f} T operations; {ITERATIONS} of them take an H100 at its peak "
          f"{results['floor_minutes']:.1f} minutes at least")
    if args.full:
        step_images = size["batch"] * size["accumulate"]
        minutes = ITERATIONS * step_images / results["ours"]["images_per_second"] / 60
        print(f"{ITERATIONS} steps at the measured speed: {minutes:.0f} minutes")


if __name__ == "__main__":
    main()
