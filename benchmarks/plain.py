"""Plain readings of the equations: what the benchmarks compare with, and what the tests hold our code against.

Each follows the text as it stands and is written to be short, not fast.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

from data.sample import IGNORE, read_image
from data.transforms import random_crop_box, random_resize_long
from net.inputs import IMAGENET_MEAN, IMAGENET_STD
from refine.crf import MeanField

EPS = 1e-5


# --- random walk ----------------------------------------------------------------------------------------------

def dense_transition(edge: np.ndarray, beta: float = 10, radius: int = 5) -> torch.Tensor:
    """IRN's transition matrix of an edge map (h, w), every pair of pixels stored: (h w, h w) float64.

    Column j holds the shares that pixel j takes from all pixels. The path of two pixels are the cells of their
    bounding box nearer than 1 to the line between them.
    """
    height, width = edge.shape
    pixel = np.arange(height * width).reshape(height, width)
    affinity = np.eye(height * width)
    for dy in range(radius):
        for dx in range(1 - radius, radius):
            length = dy ** 2 + dx ** 2
            if not 0 < length < radius ** 2 or dy >= height or abs(dx) >= width:
                continue
            left, columns = max(0, -dx), width - abs(dx)
            path = [edge[y:y + height - dy, left + x:left + x + columns]
                    for y in range(dy + 1) for x in range(min(0, dx), max(0, dx) + 1)
                    if (dy * x - dx * y) ** 2 < length]
            share = (1 - np.max(path, axis=0).astype(np.float64)) ** beta
            source = pixel[:height - dy, left:left + columns]
            affinity[source, source + dy * width + dx] = share
            affinity[source + dy * width + dx, source] = share
    return torch.from_numpy(affinity / affinity.sum(axis=0))


def dense_power(transition: torch.Tensor, exp_times: int = 8) -> torch.Tensor:
    """The matrix to the power 2^exp_times, by squaring."""
    for _ in range(exp_times):
        transition = transition @ transition
    return transition


def dense_walk(cam: np.ndarray, edge: np.ndarray, beta: float = 10, exp_times: int = 8, radius: int = 5) -> np.ndarray:
    """refine.random_walk.propagate by the dense matrix power; cam (K, h, w), edge (1, h, w) -> (K, h, w)."""
    power = dense_power(dense_transition(edge[0], beta, radius), exp_times)
    start = torch.from_numpy(cam * (1 - edge)).double().flatten(1)
    return (start @ power).view(cam.shape).numpy()


# --- training step --------------------------------------------------------------------------------------------

def float_crop(image: np.ndarray, label: np.ndarray, placement: tuple[int, ...], crop: int):
    """A placed crop as the network reads it, and where each class may be active, both float32 and full-size.

    image (H, W, 3) uint8, label (C,), placement of random_crop_box -> (3, crop, crop), (C+1, crop, crop).
    """
    y0, x0, top, left, h, w = placement
    pixels = (image / np.float32(255) - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)
    padded = np.zeros((crop, crop, 3), np.float32)
    padded[top:top + h, left:left + w] = pixels[y0:y0 + h, x0:x0 + w]
    mask = np.zeros((len(label) + 1, crop, crop), np.float32)
    mask[:, top:top + h, left:left + w] = np.append(1, label)[:, None, None]
    return torch.from_numpy(np.ascontiguousarray(padded.transpose(2, 0, 1))), torch.from_numpy(mask)


class FloatCrops(Dataset):
    """data.loader.TrainCrops with the same random choices, as float32: image, mask (C+1, crop, crop) and label."""

    def __init__(self, ids, labels, image_path, *, crop, resize_long, flip, seed):
        self.ids, self.labels, self.image_path = ids, labels, image_path
        self.crop, self.resize_long, self.flip, self.seed = crop, resize_long, flip, seed

    def __getitem__(self, key: tuple[int, int]):
        rng = np.random.default_rng([self.seed, *key])
        label = self.labels[key[1]]
        image = random_resize_long(read_image(self.image_path(self.ids[key[1]])), *self.resize_long, rng)
        if self.flip and rng.random() < 0.5:
            image = image[:, ::-1]
        placement = random_crop_box(*image.shape[:2], self.crop, rng)
        return *float_crop(image, label, placement, self.crop), torch.from_numpy(label).float()


class HostBank:
    """data.image_bank.ImageBank as a list of float32 samples on the host."""

    def __init__(self, num_classes: int):
        self.slots = [None] * num_classes

    def update(self, images, masks, labels) -> None:
        for sample in zip(images, masks, labels):
            for c in sample[2].nonzero().flatten().tolist():
                self.slots[c] = sample

    def draw(self, count: int, generator: torch.Generator) -> list[tuple]:
        filled = [sample for sample in self.slots if sample is not None]
        return [filled[i] for i in torch.randint(len(filled), (count,), generator=generator)]


def forward(model, image: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores, M_W and M_P of net.sfc.SFCNet (Eq. 2-4, released settings); image (N, 3, H, W), mask (N, C+1, S, S)."""
    features = model.backbone(image)
    logits = model.classifier(features[3])
    grid = logits.shape[2:]
    valid = F.interpolate(mask, grid, mode="nearest")

    cam = F.relu(logits)
    cam = cam / (cam.amax((2, 3), keepdim=True) + EPS)
    cam = torch.cat([1 - cam.amax(1, keepdim=True), cam], 1) * valid
    small = F.interpolate(image, grid, mode="bilinear", align_corners=True)
    f = model.pcm_feature(torch.cat([small, features[3]], 1)).flatten(2)
    f = f / (f.norm(dim=1, keepdim=True) + EPS)
    affinity = F.relu(f.transpose(1, 2) @ f)
    affinity = affinity / (affinity.sum(1, keepdim=True) + EPS)
    weight_cam = (cam.flatten(2) @ affinity @ affinity).view(cam.shape)

    side = []
    for project, feature in zip((model.side1, model.side2, model.side3, model.side4), features):
        x = project(feature.detach())
        x = x / (x.norm(dim=1, keepdim=True) + EPS)
        side.append(F.interpolate(x, features[2].shape[2:], mode="bilinear", align_corners=False))
    side = torch.cat(side, 1)[:, None]                                                    # (N, 1, D, h, w)
    scores = torch.cat([weight_cam[:, :1] * 0.3, weight_cam[:, 1:]], 1)
    seeds = F.one_hot(scores.argmax(1), scores.shape[1]).permute(0, 3, 1, 2) * valid
    prototypes = (seeds[:, :, None] * side).sum((3, 4)) / (seeds.sum((2, 3))[:, :, None] + EPS)
    prototype_cam = F.relu(F.cosine_similarity(side, prototypes[..., None, None], dim=2))
    return logits.mean((2, 3)), weight_cam, prototype_cam


def loss(full, half, label: torch.Tensor, dc: torch.Tensor) -> torch.Tensor:
    """L_MSDW (Eq. 8, released settings) of the outputs of `forward` at scale 1 and 0.5; label (N, C), dc (C,)."""
    cls = (F.multilabel_soft_margin_loss(full[0], label) + F.multilabel_soft_margin_loss(half[0], label)) / 2
    prototype_cam = full[2] / (full[2].amax((2, 3), keepdim=True) + EPS)
    gap = (full[1] - prototype_cam).abs()
    dw_p = torch.cat([gap[:, :1], gap[:, 1:] * dc[:, None, None]], 1).mean()
    present = label[:, :, None, None]
    down = F.interpolate(full[1], half[1].shape[2:], mode="bilinear", align_corners=True)
    dw_w = ((down[:, 1:] * present - half[1][:, 1:] * present).abs() * dc[:, None, None]).mean()
    return cls + 1.6 * dw_p + 0.8 * dw_w


def training_step(model, optimizer, bank: HostBank, batch, dc, bank_images: int, generator, device) -> float:
    """One step of stage 1 on a batch (images, masks, labels) of `FloatCrops`; the loss before it."""
    bank.update(*batch)
    samples = [*zip(*batch), *bank.draw(bank_images, generator)]
    image, mask, label = (torch.stack(part).to(device) for part in zip(*samples))
    half = F.interpolate(image, scale_factor=0.5, mode="bilinear", align_corners=True)
    total = loss(forward(model, image, mask), forward(model, half, mask), label, dc)
    optimizer.zero_grad()
    total.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return total.item()


# --- inter-pixel relations ------------------------------------------------------------------------------------

def path_maximum(path_index, edge: torch.Tensor) -> torch.Tensor:
    """net.irn.PathIndex.path_maximum, path by path from the values of all its cells: (N, h, w) -> (N, D, h', w')."""
    height, width = path_index.source(edge).shape[1:]
    return torch.stack([torch.stack([edge[:, dy:dy + height, path_index.margin + dx:path_index.margin + dx + width]
                                     for dy, dx in path]).max(0).values for path in path_index.paths], dim=1)


# --- CAMs, labels, scores -------------------------------------------------------------------------------------

def full_size(maps: list[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
    """Maps (K+1, h_s, w_s) of all scales, added at full size and divided by their maxima: (K+1, H, W) float32."""
    total = torch.zeros(len(maps[0]), *size)
    for cam in maps:
        total += F.interpolate(cam[None], size, mode="bilinear", align_corners=False)[0]
    return total / (total.amax((1, 2), keepdim=True) + EPS)


def final_cam(weight_cam: torch.Tensor, prototype_cam: torch.Tensor, prototype_weight: float) -> torch.Tensor:
    """M_final (Eq. 9) of full-size maps, each with a copy of background 0.4 added to it, as the release does."""
    added = [cam + torch.cat([torch.full_like(cam[:1], 0.4), cam[1:]]) for cam in (weight_cam, prototype_cam)]
    return added[0] + prototype_weight * added[1]


def seed_labels(cam: np.ndarray) -> list[np.ndarray]:
    """What the two label-CRFs start from: the arg-max of cam (K+1, H, W), and with half the background."""
    background = np.ones((len(cam), 1, 1), cam.dtype)
    background[0] = 0.5
    return [cam.argmax(0), (cam * background).argmax(0)]


def ir_label(image: np.ndarray, cam: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """refine.crf.ir_label with both CRFs run on every image, each from the beginning."""
    refined = []
    for seeds in seed_labels(cam):
        likely = seeds.flatten() == np.arange(len(cam))[:, None]
        probability = np.where(likely, 0.7, 0.3 / max(len(cam) - 1, 1))
        refined.append(MeanField(image, len(cam)).marginals(-np.log(probability)).argmax(0))
    label = np.full(image.shape[:2], IGNORE, np.uint8)
    label[(refined[0] == 0) & (refined[1] == 0)] = 0
    label[refined[0] > 0] = keys[refined[0]][refined[0] > 0]
    return label


def miou(predictions: list[np.ndarray], truths: list[np.ndarray], num_classes: int) -> float:
    """Mean IoU of all masks at once, class by class, from the definition."""
    prediction, truth = (np.concatenate([mask.flatten() for mask in masks]) for masks in (predictions, truths))
    prediction, truth = prediction[truth != IGNORE], truth[truth != IGNORE]
    scores = [((prediction == c) & (truth == c)).sum() / union for c in range(num_classes)
              if (union := ((prediction == c) | (truth == c)).sum())]
    return float(np.mean(scores))
