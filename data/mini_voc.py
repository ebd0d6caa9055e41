"""Mini VOC: a generated data set in PASCAL VOC 2012's folder layout, for runs that take minutes on a CPU.

It shows the problem that shared feature calibration addresses: classes with long-tailed frequencies that share
parts. An object is an elliptical body plus a glyph of about the same area. Half of the classes have a striped body
and half a checkered one, so the body says little about the class; the glyph, with its own shape and fine texture,
identifies it. Both parts have the same random hue, so colour says nothing. About 70 % of the images hold one class
and 30 % hold two.

    python -m data.mini_voc OUT          # 800 training and 100 validation images of 128 x 128 pixels

Files under OUT (IDs such as `mini_train_0001`):

    JPEGImages/ID.jpg, Annotations/ID.xml     image; bounding boxes and class names as in VOC
    SegmentationClass/ID.png                  0 background, 1.. classes, 255 contour; SegmentationClassAug is the same
    SegmentationPart/ID.png                   0 background, 1 shared part, 2 discriminative part, 255 contour
    ImageSets/Segmentation/{train,train_aug,val}.txt
    classes.txt                               foreground class names in index order
    mini_voc.json                             settings, class order by frequency, classes that share a body
"""

import argparse
import colorsys
import functools
import io
import json
import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

RECIPE = 1  # raise when the same settings give other images, so that old folders are recognised
SPLITS = ("train", "val")
GLYPHS = ("triangle", "hexagon", "square", "arrow", "ring", "bowtie", "crescent", "star",
          "cross", "heart", "semicircle", "chevron", "drop", "tee", "bolt", "gear")
GLYPH_TEXTURES = ("bars", "dots", "grid", "zigzag", "circles", "plusses", "bricks", "diamonds")
BODIES = ("striped", "checkered")
IGNORE = 255
SHARED, DISCRIMINATIVE = 1, 2
TWO_CLASS_FRACTION = 0.3
MIN_VISIBLE = 0.6
HEAD, TAIL, TAIL_DECAY = 0.46, 0.12, 0.85


# ---------------------------------------------------------------------------------------------------- shapes

def _circle(radius=1.0, start=0.0, stop=2 * np.pi, points=48):
    angle = np.linspace(start, stop, points, endpoint=False)
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _polar(radii, start=-np.pi / 2):
    angle = start + np.arange(len(radii)) * 2 * np.pi / len(radii)
    return np.asarray(radii)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _crescent():
    outer = _circle(1.0, 0.259 * np.pi, 1.741 * np.pi)  # the circles meet at these angles
    inner = _circle(0.75, 1.581 * np.pi, 0.419 * np.pi) + [0.5, 0.0]
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


# -------------------------------------------------------------------------------------------------- textures

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


# --------------------------------------------------------------------------------------------------- objects

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


def _object_shape(rng, glyph: str, extent: float) -> tuple[np.ndarray, list[np.ndarray]]:
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
        shapes = [_object_shape(rng, look.glyph, look.extent * size) for look in looks]
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


# ---------------------------------------------------------------------------------------------------- classes

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


# ------------------------------------------------------------------------------------------------------ files

def voc_palette() -> list[int]:
    """VOC's 256 colours as 768 numbers."""
    colours = np.zeros((256, 3), np.uint8)
    index = np.arange(256)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours.ravel().tolist()


def _write(path: Path, content: bytes):
    """Write under a temporary name, then rename, so that no reader finds half a file."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def _jpeg(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def _palette_png(labels):
    picture = Image.fromarray(labels)
    picture.putpalette(voc_palette())  # turns the grey image into one of palette indices
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _annotation(image_id, size, names, objects):
    """VOC's XML for the visible box of every object; VOC counts pixels from 1."""
    entries = []
    for k, name in enumerate(names, start=1):
        ys, xs = np.nonzero(objects == k)
        entries.append(f"""\
  <object>
    <name>{name}</name>
    <difficult>0</difficult>
    <bndbox><xmin>{xs.min() + 1}</xmin><ymin>{ys.min() + 1}</ymin>\
<xmax>{xs.max() + 1}</xmax><ymax>{ys.max() + 1}</ymax></bndbox>
  </object>
""")
    return f"""\
<annotation>
  <folder>mini_voc</folder>
  <filename>{image_id}.jpg</filename>
  <size><width>{size}</width><height>{size}</height><depth>3</depth></size>
{"".join(entries)}</annotation>
"""


def _image_id(split, index):
    return f"mini_{split}_{index + 1:04d}"


def _write_image(job, root: Path, size: int, seed: int):
    """Render and write one image; job: (split, index, classes). Its random numbers depend on nothing else."""
    split, index, classes = job
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    extent = (0.48, 0.68) if len(classes) == 1 else (0.34, 0.46)
    scene = render(rng, size, [class_look(rng, c, size, extent) for c in classes])

    labels = np.array([0] + [c + 1 for c in classes], np.uint8)[scene.objects]
    window = np.ones((3, 3), np.uint8)
    contour = cv2.dilate(scene.objects, window) != cv2.erode(scene.objects, window)
    labels[contour] = IGNORE
    image_id = _image_id(split, index)
    mask = _palette_png(labels)
    _write(root / "JPEGImages" / f"{image_id}.jpg", _jpeg(scene.image))
    _write(root / "SegmentationClass" / f"{image_id}.png", mask)
    _write(root / "SegmentationClassAug" / f"{image_id}.png", mask)
    _write(root / "SegmentationPart" / f"{image_id}.png", _palette_png(np.where(contour, IGNORE, scene.parts)
                                                                       .astype(np.uint8)))
    names = [GLYPHS[c] for c in classes]
    _write(root / "Annotations" / f"{image_id}.xml", _annotation(image_id, size, names, scene.objects).encode())


def _find_complete(root: Path, settings: dict) -> bool:
    """Whether `root` already holds the set with these settings; ValueError if it holds anything else."""
    record = root / "mini_voc.json"
    if record.exists():
        found = json.loads(record.read_text())["settings"]
        if found != settings:
            raise ValueError(f"{root} holds a mini VOC with other settings ({found}, asked for {settings}): "
                             "choose another folder or delete this one")
        return True
    if any(not path.name.startswith("mini_") for path in (root / "JPEGImages").glob("*")):
        raise ValueError(f"{root} holds images that are not a mini VOC's: choose another folder")
    return False


def generate(root, num_train: int = 800, num_val: int = 100, image_size: int = 128, num_classes: int = 8,
             balanced: bool = False, seed: int = 0, workers: int = 2) -> Path:
    """Write the data set under `root`, or do nothing if it is there already; returns `root` as a Path.

    num_train, num_val: numbers of images; image_size: side in pixels (64 or more); num_classes: 2 to 16 foreground
    classes, each of which occurs in the training images; balanced: equal instead of long-tailed class frequencies;
    seed: of everything random; workers: processes, which do not change the result.
    Beyond eight classes glyph textures occur twice, with another glyph and the other body.
    Raises ValueError for sizes out of range and for a folder that holds other files or other settings.
    """
    if not 2 <= num_classes <= len(GLYPHS):
        raise ValueError(f"num_classes must be 2 to {len(GLYPHS)}, not {num_classes}")
    if num_train < num_classes or num_val < 1:
        raise ValueError(f"num_train must be at least num_classes ({num_classes}) and num_val at least 1, "
                         f"not {num_train} and {num_val}")
    if image_size < 64:
        raise ValueError(f"image_size must be at least 64, not {image_size}")
    root = Path(root)
    settings = {"recipe": RECIPE, "num_train": num_train, "num_val": num_val, "image_size": image_size,
                "num_classes": num_classes, "balanced": balanced, "seed": seed}
    if _find_complete(root, settings):
        return root

    for folder in ("JPEGImages", "Annotations", "SegmentationClass", "SegmentationClassAug", "SegmentationPart",
                   "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    probabilities = class_probabilities(num_classes, balanced, seed)
    labels = {split: draw_classes(num, probabilities, np.random.default_rng([seed, SPLITS.index(split)]))
              for split, num in zip(SPLITS, (num_train, num_val))}
    jobs = [(split, index, classes) for split in SPLITS for index, classes in enumerate(labels[split])]
    write = functools.partial(_write_image, root=root, size=image_size, seed=seed)
    with tqdm(total=len(jobs), desc="mini VOC", unit="image") as bar:
        if workers > 1:
            with multiprocessing.Pool(workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
                for _ in pool.imap_unordered(write, jobs, chunksize=8):
                    bar.update()
        else:
            for job in jobs:
                write(job)
                bar.update()
    _write_lists(root, labels, probabilities, settings)
    return root


def _write_lists(root, labels, probabilities, settings):
    """Image lists, class names and, last, the record whose presence says that the set is complete."""
    names = GLYPHS[:len(probabilities)]
    ids = {split: [_image_id(split, index) for index in range(len(labels[split]))] for split in SPLITS}
    for name, split in (("train", "train"), ("train_aug", "train"), ("val", "val")):
        _write(root / "ImageSets" / "Segmentation" / f"{name}.txt", ("\n".join(ids[split]) + "\n").encode())
    _write(root / "classes.txt", ("\n".join(names) + "\n").encode())
    record = {
        "settings": settings,
        "classes_by_frequency": [names[c] for c in np.argsort(-probabilities, kind="stable")],
        "probability": {name: round(float(p), 4) for name, p in zip(names, probabilities)},
        "images": {split: dict(zip(names, np.bincount(np.concatenate(labels[split]), minlength=len(names)).tolist()))
                   for split in SPLITS},
        "shared_body": {body: [name for c, name in enumerate(names) if body_of(c) == body] for body in BODIES},
    }
    _write(root / "mini_voc.json", (json.dumps(record, indent=2) + "\n").encode())


def main(argv=None):
    parser = argparse.ArgumentParser(description="Generate the mini VOC data set.",
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    parser.add_argument("--num_train", type=int, default=800, help="training images")
    parser.add_argument("--num_val", type=int, default=100, help="validation images")
    parser.add_argument("--image_size", type=int, default=128, help="side of the images in pixels")
    parser.add_argument("--num_classes", type=int, default=8, help="foreground classes, 2 to 16")
    parser.add_argument("--balanced", action=argparse.BooleanOptionalAction, default=False,
                        help="equal instead of long-tailed class frequencies")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    parser.add_argument("--workers", type=int, default=2, help="processes; they do not change the result")
    args = parser.parse_args(argv)
    settings = {name: value for name, value in vars(args).items() if name != "out"}
    try:
        generate(args.out, **settings)
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
