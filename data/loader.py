"""What the stages iterate over: reproducible training crops, and whole images at several scales.

Every random choice of a sample is a function of (seed, epoch, index), so neither the number of worker
processes nor an interruption changes it.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from data.sample import IGNORE, image_size, read_image, read_mask
from data.transforms import cut, cut_size, random_crop_box, random_resize_long, rescale, resize, resize_float, shift_hsv


class Order(NamedTuple):
    """Order of the batches of a training: an image is a function of seed, step and position in the batch.

    num_images, batch_size   images of the list and of a batch
    total_steps              batches of the whole training
    share                    positions in a batch of the images that this process loads; None: all
    """
    num_images: int
    batch_size: int
    total_steps: int
    seed: int
    share: np.ndarray | None = None


class EpochBatches(Sampler):
    """Shuffled batches of (epoch, index) from `first_step` on; the last incomplete batch of an epoch is dropped."""

    def __init__(self, order: Order, first_step: int = 0):
        self.order = order
        self.first_step = first_step

    def __len__(self) -> int:
        return self.order.total_steps - self.first_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        num_images, batch_size, total_steps, seed, share = self.order
        share = np.arange(batch_size) if share is None else share
        shuffled_for = -1
        for step in range(self.first_step, total_steps):
            epoch, position = divmod(step, num_images // batch_size)
            if epoch != shuffled_for:
                shuffled = np.random.default_rng([seed, epoch]).permutation(num_images)
                shuffled_for = epoch
            yield [(epoch, int(i)) for i in shuffled[position * batch_size + share]]


class TrainCrops(Dataset):
    """Augmented crops for the classifier; indexed by (epoch, index).

    ids, labels   image ids and their (N, C) uint8 image-level labels
    image_path    id -> path
    crop          side of the crop in pixels
    resize_long   (low, high): random long side in pixels; None keeps the size
    flip          random horizontal flip
    Gives (image (3, crop, crop) uint8, box (4,) int64 y0 y1 x0 x1, label (C,) uint8).
    """

    def __init__(self, ids: list[str], labels: np.ndarray, image_path: Callable, *, crop: int,
                 resize_long: tuple[int, int] | None, flip: bool, seed: int):
        self.ids = np.array(ids)
        self.labels = labels
        self.image_path = image_path
        self.crop = crop
        self.resize_long = resize_long
        self.flip = flip
        self.seed = seed

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        epoch, index = key
        image = read_image(self.image_path(self.ids[index]))
        crop = self.augment(image, np.random.default_rng([self.seed, epoch, index]))
        return (*crop, torch.from_numpy(self.labels[index]))

    def augment(self, image: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """image (H, W, 3) uint8 -> crop and box; the order, resize, flip, crop, is the release's."""
        if self.resize_long:
            image = random_resize_long(image, *self.resize_long, rng)
        if self.flip and rng.random() < 0.5:
            image = image[:, ::-1]
        placement = random_crop_box(image.shape[0], image.shape[1], self.crop, rng)
        return crop_tensors(image, placement, self.crop)


class LabelledCrops(Dataset):
    """Augmented crops with a label map each, for IRN and ResNet-38; indexed by (epoch, index).

    image_path, label_path   id -> path
    num_classes              C, to check the label maps
    scale                    (low, high): random scale; with `one_of_scales`, any number of scales to draw from
    colour_jitter            largest shift of hue, saturation and value, see transforms.shift_hsv
    Gives (image (3, crop, crop) uint8, box (4,) int64, label (crop, crop) uint8, 255 outside the image).
    """

    def __init__(self, ids: list[str], image_path: Callable, label_path: Callable, *, num_classes: int, crop: int,
                 scale: tuple[float, ...], flip: bool, seed: int, one_of_scales: bool = False,
                 colour_jitter: float = 0.0):
        self.ids = np.array(ids)
        self.image_path = image_path
        self.label_path = label_path
        self.num_classes = num_classes
        self.crop = crop
        self.scale = scale
        self.flip = flip
        self.seed = seed
        self.one_of_scales = one_of_scales
        self.colour_jitter = colour_jitter

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        epoch, index = key
        name = self.ids[index]
        image = read_image(self.image_path(name))
        label = read_mask(self.label_path(name), self.num_classes, image.shape[:2])
        return self.augment(image, label, np.random.default_rng([self.seed, epoch, index]))

    def augment(self, image: np.ndarray, label: np.ndarray,
                rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """image (H, W, 3) and label (H, W), both uint8 -> crop, box and cropped label; resize, flip, crop as in IRN."""
        scale = self.draw_scale(rng)
        image, label = rescale(image, scale), rescale(label, scale, Image.Resampling.NEAREST)
        if self.colour_jitter:
            image = shift_hsv(image, self.colour_jitter, rng)
        if self.flip and rng.random() < 0.5:
            image, label = image[:, ::-1], label[:, ::-1]
        placement = random_crop_box(image.shape[0], image.shape[1], self.crop, rng)
        return (*crop_tensors(image, placement, self.crop), torch.from_numpy(cut(label, placement, self.crop, IGNORE)))

    def draw_scale(self, rng: np.random.Generator) -> float:
        return float(rng.choice(self.scale) if self.one_of_scales else rng.uniform(self.scale[0], self.scale[1]))


class DeepLabCrops(LabelledCrops):
    """The crops of deeplab-pytorch for DeepLabV2; arguments as LabelledCrops.

    Resized images are not rounded to bytes. Small ones are padded at the bottom and the right, and the whole crop is
    flipped after that.
    Gives (image (3, crop, crop) float32 RGB on the scale 0..255, box (4,) int64, label (crop, crop) uint8).
    """

    def augment(self, image, label, rng):
        if self.colour_jitter:
            image = shift_hsv(image, self.colour_jitter, rng)
        height, width = size = cut_size(label.shape, self.draw_scale(rng))
        image, label = resize_float(image, size), resize(label, size, Image.Resampling.NEAREST)
        h, w = min(height, self.crop), min(width, self.crop)
        placement = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), 0, 0, h, w
        pixels, box = crop_tensors(image, placement, self.crop)
        label = torch.from_numpy(cut(label, placement, self.crop, IGNORE))
        if self.flip and rng.random() < 0.5:
            return pixels.flip(2), torch.tensor([0, h, self.crop - w, self.crop]), label.flip(1)
        return pixels, box, label


def crop_tensors(image: np.ndarray, placement: tuple[int, ...], crop: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The placed crop (3, crop, crop) in the type of the image, and the box (4,) of the part that shows it."""
    _, _, top, left, h, w = placement
    pixels = np.ascontiguousarray(cut(image, placement, crop).transpose(2, 0, 1))
    return torch.from_numpy(pixels), torch.tensor([top, top + h, left, left + w])


class ScaledImages(Dataset):
    """Batches of whole images of one size at several scales; indexed by lists of positions.

    Gives (positions, [(N, 3, H_s, W_s) uint8 per scale], (H, W)).
    """

    def __init__(self, ids: list[str], image_path: Callable, scales: tuple[float, ...] = (1.0,)):
        self.ids = np.array(ids)
        self.image_path = image_path
        self.scales = scales

    def __getitem__(self, batch: list[int]) -> tuple[list[int], list[torch.Tensor], tuple[int, int]]:
        images = [read_image(self.image_path(self.ids[index])) for index in batch]
        return batch, scaled_tensors(images, self.scales), images[0].shape[:2]


def scaled_tensors(images: list[np.ndarray], scales: tuple[float, ...]) -> list[torch.Tensor]:
    """Images (H, W, 3) uint8 of one size -> (N, 3, H_s, W_s) uint8 of each scale."""
    stacks = [np.stack([rescale(image, scale) for image in images]) for scale in scales]
    return [torch.from_numpy(np.ascontiguousarray(stack.transpose(0, 3, 1, 2))) for stack in stacks]


def same_size_batches(ids: list[str], image_path: Callable, batch_size: int, window: int = 256) -> Iterator[list[int]]:
    """Positions of `ids` in batches of equal image size, at most `batch_size` each.

    window  images whose sizes are read at a time, so that a long list starts at once
    """
    for start in range(0, len(ids), window):
        by_size: dict[tuple[int, int], list[int]] = {}
        for index in range(start, min(start + window, len(ids))):
            by_size.setdefault(image_size(image_path(ids[index])), []).append(index)
        for group in by_size.values():
            yield from (group[i:i + batch_size] for i in range(0, len(group), batch_size))


def follow_parent() -> None:
    """In a worker process: leave signals to the parent, and end when it does, even by SIGKILL.

    Terminals and launchers signal a whole process group, so workers have one of their own. They must not ignore
    SIGTERM: the parent's multiprocessing ends them with it, and waits for them.
    """
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)                                  # PR_SET_PDEATHSIG


def start_worker(_worker: int) -> None:
    """Of a loader: OpenCV's threads would be as many as there are cores in each of the workers."""
    follow_parent()
    cv2.setNumThreads(0)


def train_loader(dataset: Dataset, order: Order, first_step: int = 0, num_workers: int = 0,
                 pin_memory: bool = False) -> DataLoader:
    """Batches of `dataset` from `first_step` on. pin_memory: they go to a GPU."""
    return DataLoader(dataset, batch_sampler=EpochBatches(order, first_step), num_workers=num_workers,
                      pin_memory=pin_memory, worker_init_fn=start_worker)


def upload(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the host on `device`, by a copy that the host does not wait for; pinned ones are not copied twice."""
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def image_loader(dataset: ScaledImages, batches: Iterable[list[int]], num_workers: int,
                 pin_memory: bool = False) -> DataLoader:
    """The given batches of `dataset`, in order. pin_memory: they go to a GPU."""
    return DataLoader(dataset, sampler=batches, batch_size=None, num_workers=num_workers, pin_memory=pin_memory,
                      worker_init_fn=start_worker)
