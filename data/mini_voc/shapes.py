"""Outlines and textures of the objects: elliptical bodies, and glyphs of unit area."""

import functools

import numpy as np

GLYPHS = ("triangle", "hexagon", "square", "arrow", "ring", "bowtie", "crescent", "star",
          "cross", "heart", "semicircle", "chevron", "drop", "tee", "bolt", "gear")
GLYPH_TEXTURES = ("bars", "dots", "grid", "zigzag", "circles", "plusses", "bricks", "diamonds")
BODIES = ("striped", "checkered")


def _circle(radius=1.0, start=0.0, stop=2 * np.pi, points=48):
    angle = np.linspace(start, stop, points, endpoint=False)
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _polar(radii, start=-np.pi / 2):
    angle = start + np.arange(len(radii)) * 2 * np.pi / len(radii)
    return np.asarray(radii)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _crescent():
    outer = _circle(1.0, 0.259 * np.pi, 1.741 * np.pi)  # the circles meet at these angles
    inner = _circle(0.75, 1.581 * np.pi, 0.419 * np.pi) + np.array([0.5, 0.0])
    return np.concatenate([outer, inner])


def _heart():
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.stack([16 * np.sin(t) ** 3,
                     -13 * np.cos(t) + 5 * np.cos(2 * t) + 2 * np.cos(3 * t) + np.cos(4 * t)], axis=1)


def _outline(name: str) -> list[np.ndarray]:
    """Closed contours (points, 2) of a glyph in x right, y down; a hole is a contour of opposite orientation."""
    polygons = {
        "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
        "arrow": [(-1.2, -.45), (.1, -.45), (.1, -1.1), (1.3, 0), (.1, 1.1), (.1, .45), (-1.2, .45)],
        "bowtie": [(-1.2, -1), (0, -.25), (1.2, -1), (1.2, 1), (0, .25), (-1.2, 1)],
        "cross": [(-.4, -1.1), (.4, -1.1), (.4, -.4), (1.1, -.4), (1.1, .4), (.4, .4),
                  (.4, 1.1), (-.4, 1.1), (-.4, .4), (-1.1, .4), (-1.1, -.4), (-.4, -.4)],
        "chevron": [(-1.2, .9), (-1.2, -.1), (0, -.9), (1.2, -.1), (1.2, .9), (0, .1)],
        "tee": [(-1.1, -1), (1.1, -1), (1.1, -.2), (.4, -.2), (.4, 1.1), (-.4, 1.1), (-.4, -.2), (-1.1, -.2)],
        "bolt": [(-.3, -1.2), (.7, -1.2), (.25, -.35), (.95, -.35), (-.5, 1.3), (-.1, .15), (-.85, .15)],
    }
    if name in polygons:
        return [np.array(polygons[name], float)]
    return {
        "triangle": lambda: [_polar([1, 1, 1])],
        "hexagon": lambda: [_polar([1] * 6)],
        "ring": lambda: [_circle(1.0), _circle(0.45)[::-1]],
        "crescent": lambda: [_crescent()],
        "star": lambda: [_polar([1, .48] * 5)],
        "heart": lambda: [_heart()],
        "semicircle": lambda: [_circle(1.0, np.pi, 2 * np.pi + 0.06)],
        "drop": lambda: [np.concatenate([_circle(0.75, -0.1 * np.pi, 1.1 * np.pi), [(0, -1.6)]])],
        "gear": lambda: [_polar(np.repeat([1, .68] * 7, 3))],
    }[name]()


def _signed_area(points):
    x, y = points.T
    return 0.5 * np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))


@functools.cache
def _unit_glyph(name: str) -> tuple[np.ndarray, ...]:
    """The glyph's contours centred on the middle of its bounding box and scaled to unit area."""
    contours = _outline(name)
    area = abs(sum(_signed_area(points) for points in contours))
    points = np.concatenate(contours)
    centre = (points.min(0) + points.max(0)) / 2
    return tuple((points - centre) / np.sqrt(area) for points in contours)


def _rotate(points, angle):
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])


def texture(name: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Texture value in [0, 1] at coordinates u (right) and v (down), in periods; same shape as u and v."""
    fu, fv = u % 1 - 0.5, v % 1 - 0.5
    pattern = {
        "striped": lambda: np.abs(fv) - 0.25,
        "checkered": lambda: np.sin(np.pi * u) * np.sin(np.pi * v) * 0.3,
        "bars": lambda: np.abs(fu) - 0.25,
        "dots": lambda: np.hypot(fu, fv) - 0.3,
        "grid": lambda: np.minimum(np.abs(fu), np.abs(fv)) - 0.14,
        "zigzag": lambda: np.abs((v + np.abs(fu)) % 1 - 0.5) - 0.25,
        "circles": lambda: np.abs(np.hypot(fu, fv) - 0.32) - 0.1,
        "plusses": lambda: np.maximum(np.minimum(np.abs(fu), np.abs(fv)) - 0.12,
                                      np.maximum(np.abs(fu), np.abs(fv)) - 0.38),
        "bricks": lambda: 0.13 - np.minimum(np.abs((v * 1.6) % 1 - 0.5),
                                            np.abs((u + 0.5 * np.floor(v * 1.6 + 0.5)) % 1 - 0.5) * 1.2),
        "diamonds": lambda: np.abs(fu) + np.abs(fv) - 0.5,
    }[name]()
    return np.clip(0.5 - 8 * pattern, 0, 1)  # a soft edge instead of aliasing


def object_shape(rng, glyph: str, extent: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """Contours of the body and of the glyph in pixels, centred on the middle of their common bounding box."""
    aspect = rng.uniform(1.15, 1.5)
    body = _rotate(_circle(1.0) * [np.sqrt(aspect / np.pi), np.sqrt(1 / aspect / np.pi)], rng.uniform(-0.35, 0.35))
    scale, angle = np.sqrt(rng.uniform(0.9, 1.15)), rng.uniform(-0.4, 0.4)
    contours = [_rotate(points * scale, angle) for points in _unit_glyph(glyph)]
    towards = rng.uniform(0, 2 * np.pi)
    direction = np.array([np.cos(towards), np.sin(towards)])
    reach = (body @ direction).max() + (contours[0] @ -direction).max()
    contours = [points + 0.8 * reach * direction for points in contours]  # 0.8: the glyph overlaps the body a little
    points = np.concatenate([body, *contours])
    low, high = points.min(0), points.max(0)
    zoom = min(extent / np.sqrt(np.prod(high - low)), 1.4 * extent / (high - low).max())
    return zoom * (body - (low + high) / 2), [zoom * (points - (low + high) / 2) for points in contours]
