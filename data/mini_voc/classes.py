"""Which classes there are, what they look like, and how often they occur."""

import numpy as np

from data.mini_voc.scene import Appearance
from data.mini_voc.shapes import BODIES, GLYPH_TEXTURES, GLYPHS

SPLITS = ("train", "val")
TWO_CLASS_FRACTION = 0.3
HEAD, TAIL, TAIL_DECAY = 0.46, 0.12, 0.85


def body_of(class_index: int) -> str:
    """The body that a class (0-based foreground index) shares with every second class.

    The order turns round after the eighth class, so that classes with the same glyph texture differ in the body.
    """
    return BODIES[(class_index + class_index // len(GLYPH_TEXTURES)) % len(BODIES)]


def class_look(rng: np.random.Generator, class_index: int, size: int, extent: tuple[float, float]) -> Appearance:
    """A random appearance of a class (0-based foreground index) in an image of `size` pixels a side."""
    return Appearance(GLYPHS[class_index], GLYPH_TEXTURES[class_index % len(GLYPH_TEXTURES)], body_of(class_index),
                      rng.uniform(0, 1), rng.uniform(*extent), rng.uniform(7.5, 10.5) * size / 96)


def class_probabilities(num_classes: int, balanced: bool, seed: int) -> np.ndarray:
    """Probability (num_classes,) of each class in a draw: equal, or one frequent class and a geometric tail.

    The long tail is .46 .12 .102 .087 .. (each .85 of the one before), normalised; for eight classes that is
    close to .46 .12 .10 .09 .07 .06 .05 .05. The seed permutes which class has which frequency.
    """
    if balanced:
        return np.full(num_classes, 1 / num_classes)
    weights = np.append(HEAD, TAIL * TAIL_DECAY ** np.arange(num_classes - 1))
    order = np.random.default_rng([seed, len(SPLITS)]).permutation(num_classes)
    probabilities = np.empty(num_classes)
    probabilities[order] = weights / weights.sum()
    return probabilities


def draw_classes(num_images: int, probabilities: np.ndarray, rng: np.random.Generator) -> list[list[int]]:
    """One or two distinct classes for every image; each class occurs at least once if there are enough images."""
    labels = [rng.choice(len(probabilities), 1 + (rng.random() < TWO_CLASS_FRACTION), replace=False,
                         p=probabilities).tolist() for _ in range(num_images)]
    if num_images < len(probabilities):
        return labels
    for missing in range(len(probabilities)):
        counts = np.bincount(np.concatenate(labels), minlength=len(probabilities))
        if counts[missing] == 0:
            common = int(counts.argmax())
            image = next(label for label in labels if common in label)
            image[image.index(common)] = missing
    return labels
