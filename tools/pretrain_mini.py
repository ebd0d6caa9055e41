"""Pretrain the mini backbone: the bundled sample's stand-in for ImageNet weights.

The network sees single objects whose factors are drawn independently: glyph shape, glyph texture, body texture and
hue, at varied sizes and texture periods. One linear head a factor reads the pooled features. As ImageNet does for
VOC, this teaches the shapes and textures that the classes are made of, but no class: every glyph comes with every
texture and every body.

    python -m tools.pretrain_mini --out data/mini_backbone.pth      # two to three minutes on two idle CPU cores
"""

import argparse
import functools
import multiprocessing
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from tqdm import tqdm

sys.path[0] = str(Path(__file__).resolve().parents[1])     # the repository, also for python tools/pretrain_mini.py

from data.mini_voc import BODIES, GLYPH_TEXTURES, GLYPHS, Appearance, render
from data.sample import write_atomically
from net.resnet import MiniResNet

HUE_BINS = 6
FACTORS = {"glyph": len(GLYPHS), "glyph texture": len(GLYPH_TEXTURES), "body": len(BODIES), "hue": HUE_BINS}
CROP_MARGIN = 16


def sample(index: int, size: int, seed: int) -> tuple[np.ndarray, list[int]]:
    """Image (size, size, 3) uint8 of one random object and its factors as indices, in the order of FACTORS."""
    rng = np.random.default_rng([seed, index])
    factors = [int(rng.integers(count)) for count in FACTORS.values()]
    glyph, glyph_texture, body, hue = factors
    look = Appearance(GLYPHS[glyph], GLYPH_TEXTURES[glyph_texture], BODIES[body], (hue + rng.uniform()) / HUE_BINS,
                      extent=rng.uniform(0.45, 0.8), period=rng.uniform(7.5, 15))
    return render(rng, size, [look]).image, factors


def make_samples(num_images: int, size: int, seed: int, workers: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 3, size, size) uint8 and factors (N, 4) int64."""
    draw = functools.partial(sample, size=size, seed=seed)
    with multiprocessing.get_context("forkserver").Pool(workers, cv2.setNumThreads, (1,)) as pool:
        drawn = list(tqdm(pool.imap(draw, range(num_images), chunksize=32), total=num_images, desc="render"))
    images = torch.from_numpy(np.stack([image for image, _ in drawn])).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor([factors for _, factors in drawn])


class FactorNet(nn.Module):
    """The backbone, global average pooling and one linear head a factor."""

    def __init__(self):
        super().__init__()
        self.backbone = MiniResNet()
        self.heads = nn.ModuleList(nn.Linear(self.backbone.widths[-1], count) for count in FACTORS.values())
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(self.backbone, name)).view(3, 1, 1))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """images (N, 3, H, W) uint8 RGB -> logits (N, values) of each factor."""
        features = self.backbone((images / 255 - self.mean) / self.std)[-1].mean((2, 3))
        return [head(features) for head in self.heads]


def augment(images: torch.Tensor) -> torch.Tensor:
    """One random crop for the batch, CROP_MARGIN pixels smaller than the images, and a random horizontal flip."""
    y, x = torch.randint(CROP_MARGIN + 1, (2,)).tolist()
    side = images.shape[-1] - CROP_MARGIN
    images = images[..., y:y + side, x:x + side]
    flip = torch.rand(len(images), 1, 1, 1) < 0.5
    return torch.where(flip, images.flip(-1), images)


def train(net: FactorNet, images, factors, epochs: int, batch_size: int, learning_rate: float):
    """Cross entropy summed over the factors; Adam with a one-cycle schedule."""
    steps = len(images) // batch_size
    optimizer = torch.optim.Adam(net.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=epochs * steps)
    net.train()
    for epoch in range(epochs):
        order = torch.randperm(len(images))[:steps * batch_size].split(batch_size)
        bar = tqdm(order, desc=f"epoch {epoch + 1}/{epochs}")
        for batch in bar:
            logits = net(augment(images[batch]))
            loss = sum(F.cross_entropy(scores, factors[batch, k]) for k, scores in enumerate(logits))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.set_postfix(loss=f"{loss.item():.2f}")


@torch.no_grad()
def accuracies(net: FactorNet, images, factors) -> dict[str, float]:
    """Fraction of correct predictions by factor."""
    net.eval()
    predicted = torch.cat([torch.stack([scores.argmax(1) for scores in net(batch)], 1) for batch in images.split(100)])
    return dict(zip(FACTORS, (predicted == factors).float().mean(0).tolist()))


def main(argv=None):
    parser = argparse.ArgumentParser(description="Pretrain the mini backbone on generated objects.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("data/mini_backbone.pth"), help="weight file to write")
    parser.add_argument("--num_train", type=int, default=6000, help="training images")
    parser.add_argument("--num_val", type=int, default=500, help="held-out images")
    parser.add_argument("--image_size", type=int, default=96, help="side of the images in pixels")
    parser.add_argument("--epochs", type=int, default=6, help="passes over the training images")
    parser.add_argument("--batch_size", type=int, default=32, help="images a step")
    parser.add_argument("--lr", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0, help="seed of the images and of the training")
    parser.add_argument("--workers", type=int, default=2, help="rendering processes")
    args = parser.parse_args(argv)

    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    images, factors = make_samples(args.num_train + args.num_val, args.image_size, args.seed, args.workers)
    net = FactorNet()
    train(net, images[:args.num_train], factors[:args.num_train], args.epochs, args.batch_size, args.lr)
    for name, accuracy in accuracies(net, images[args.num_train:], factors[args.num_train:]).items():
        print(f"{name}: {accuracy:.1%} of {args.num_val} held-out images (chance {1 / FACTORS[name]:.1%})")
    # Half precision halves the file; load_state_dict converts back to the network's own precision.
    state = {name: value.half() if value.is_floating_point() else value
             for name, value in net.backbone.state_dict().items()}
    write_atomically(args.out, lambda file: torch.save(state, file))
    print(f"wrote {args.out} ({args.out.stat().st_size / 1024:.0f} KiB)")


if __name__ == "__main__":
    main()
