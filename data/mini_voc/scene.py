"""One picture: objects painted on a cluttered background, with the label maps of objects and of parts."""

import colorsys
from dataclasses import dataclass

import cv2
import numpy as np

from data.mini_voc.shapes import object_shape, texture

SHARED, DISCRIMINATIVE = 1, 2
MIN_VISIBLE = 0.6


@dataclass(frozen=True)
class Appearance:
    """What an object looks like. `extent`: side of the square with the area of its bounding box, over the image's
    side; `period`: texture period in pixels; `hue` in [0, 1)."""

    glyph: str
    glyph_texture: str
    body: str
    hue: float
    extent: float
    period: float


@dataclass(frozen=True)
class Scene:
    """A rendered image (S, S, 3) uint8 with two label maps (S, S) uint8, without ignored contour.

    objects: 0 background, k for the k-th appearance; parts: 0 background, 1 shared, 2 discriminative.
    """

    image: np.ndarray
    objects: np.ndarray
    parts: np.ndarray


def _fill(size, contours):
    """Anti-aliased coverage (size, size) in [0, 1] of closed contours; a contour inside another is a hole."""
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32) for points in contours], 255, cv2.LINE_AA, shift=4)
    return mask / np.float32(255)


def _paint_part(rng, image, contours, name, look: Appearance):
    """Blend a textured part into `image` (S, S, 3) in place and return its coverage."""
    size = len(image)
    coverage = _fill(size, contours)
    ys, xs = np.mgrid[:size, :size].astype(np.float32) / look.period
    angle, phase = rng.uniform(-0.15, 0.15), rng.uniform(0, 1, 2)
    u = np.cos(angle) * xs + np.sin(angle) * ys + phase[0]
    v = np.cos(angle) * ys - np.sin(angle) * xs + phase[1]
    light = np.array(colorsys.hsv_to_rgb(look.hue, rng.uniform(0.45, 0.6), rng.uniform(0.9, 1.0)))
    dark = np.array(colorsys.hsv_to_rgb(look.hue, rng.uniform(0.85, 1.0), rng.uniform(0.35, 0.45)))
    value = texture(name, u, v)[..., None]
    edge = (coverage - cv2.erode(coverage, np.ones((3, 3), np.uint8)))[..., None]  # outlines separate the parts
    colour = (value * dark + (1 - value) * light) * (1 - 0.5 * edge)
    image += coverage[..., None] * (colour - image)
    return coverage


def _paint_background(rng, size):
    """Greyish colour gradient (S, S, 3) float in [0, 1] with blurred blobs and strokes."""
    grid = rng.uniform(0.3, 0.75, (3, 3, 1)) + rng.uniform(-0.05, 0.05, (3, 3, 3))
    image = cv2.resize(grid.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    for _ in range(rng.integers(3, 7)):
        grey = (rng.uniform(0.25, 0.8) + rng.uniform(-0.05, 0.05, 3)).tolist()
        layer = image.copy()
        if rng.random() < 0.5:
            centre, axes = rng.integers(0, size, 2).tolist(), rng.integers(size // 16, size // 5, 2).tolist()
            cv2.ellipse(layer, centre, axes, rng.uniform(0, 180), 0, 360, grey, -1, cv2.LINE_AA)
        else:
            points = np.cumsum(rng.integers(-size // 4, size // 4 + 1, (4, 2)), axis=0) + rng.integers(0, size, 2)
            cv2.polylines(layer, [points.astype(np.int32)], False, grey, max(1, size // 40), cv2.LINE_AA)
        image += rng.uniform(0.3, 0.8) * (layer - image)
    return cv2.GaussianBlur(image, (0, 0), size / 128)


def _centres(rng, shapes, size):
    """A centre (x, y) in pixels for every object: anywhere for one, on either side of the middle for two."""
    position = rng.uniform(0, 1, (len(shapes), 2))
    if len(shapes) == 2:
        axis, order = rng.integers(2), rng.permutation(2)
        position[order, axis] = np.array([0.25, 0.75]) + rng.uniform(-0.1, 0.1, 2)
    half = np.array([np.concatenate([body, *glyph]).max(0) for body, glyph in shapes])
    return np.clip(position * size, half + 2, size - half - 2)


def render(rng: np.random.Generator, size: int, looks: list[Appearance]) -> Scene:
    """Draw one or two objects on a cluttered background; every object keeps at least 60 % of its pixels visible.

    size: side of the square image in pixels.
    """
    background = _paint_background(rng, size)
    visible = [0.0]
    while min(visible) < MIN_VISIBLE:
        image = background.copy()
        objects, parts = np.zeros((2, size, size), np.uint8)
        shapes = [object_shape(rng, look.glyph, look.extent * size) for look in looks]
        areas = []
        for k, (look, shape, centre) in enumerate(zip(looks, shapes, _centres(rng, shapes, size)), start=1):
            body = _paint_part(rng, image, [shape[0] + centre], look.body, look) > 0.5
            glyph = _paint_part(rng, image, [points + centre for points in shape[1]], look.glyph_texture, look) > 0.5
            objects[body | glyph] = k
            parts[body], parts[glyph] = SHARED, DISCRIMINATIVE
            areas.append((body | glyph).sum())
        visible = [(objects == k).sum() / area for k, area in enumerate(areas, start=1)]
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.6))
    image = image * rng.uniform(0.85, 1.15) + rng.normal(0, rng.uniform(0.01, 0.03), image.shape)
    return Scene(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8), objects, parts)
