"""The data set on disk, in VOC's folders."""

import functools
import json
import multiprocessing
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from data.mini_voc.classes import SPLITS, body_of, class_look, class_probabilities, draw_classes
from data.mini_voc.scene import render
from data.mini_voc.shapes import BODIES, GLYPHS
from data.sample import IGNORE, InputError, write_atomically, write_mask, write_text

RECIPE = 1  # raise when the same settings give other images, so that old folders are recognised


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
    write_atomically(root / "JPEGImages" / f"{image_id}.jpg",
                     lambda file: Image.fromarray(scene.image).save(file, "JPEG", quality=92))
    write_mask(root / "SegmentationClass" / f"{image_id}.png", labels)
    write_mask(root / "SegmentationClassAug" / f"{image_id}.png", labels)
    write_mask(root / "SegmentationPart" / f"{image_id}.png", np.where(contour, IGNORE, scene.parts))
    names = [GLYPHS[c] for c in classes]
    write_text(root / "Annotations" / f"{image_id}.xml", _annotation(image_id, size, names, scene.objects))


def _find_complete(root: Path, settings: dict) -> bool:
    """Whether `root` already holds the set with these settings; InputError if it holds anything else."""
    record = root / "mini_voc.json"
    if record.exists():
        found = json.loads(record.read_text())["settings"]
        if found != settings:
            raise InputError(f"{root} holds a mini VOC with other settings ({found}, asked for {settings}): "
                             "choose another folder or delete this one")
        return True
    if any(not path.name.startswith("mini_") for path in (root / "JPEGImages").glob("[!.]*")):
        raise InputError(f"{root} holds images that are not a mini VOC's: choose another folder")
    return False


def _check_sizes(num_train: int, num_val: int, image_size: int, num_classes: int):
    if not 2 <= num_classes <= len(GLYPHS):
        raise ValueError(f"num_classes must be 2 to {len(GLYPHS)}, not {num_classes}")
    if num_train < num_classes or num_val < 1:
        raise ValueError(f"num_train must be at least num_classes ({num_classes}) and num_val at least 1, "
                         f"not {num_train} and {num_val}")
    if image_size < 64:
        raise ValueError(f"image_size must be at least 64, not {image_size}")


def generate(root: str | Path, num_train: int = 800, num_val: int = 100, image_size: int = 128, num_classes: int = 8,
             balanced: bool = False, seed: int = 0, workers: int = 2) -> Path:
    """Write the data set under `root`, or do nothing if it is there already; returns `root` as a Path.

    num_train, num_val: numbers of images; image_size: side in pixels (64 or more); num_classes: 2 to 16 foreground
    classes, each of which occurs in the training images; balanced: equal instead of long-tailed class frequencies;
    seed: of everything random; workers: processes, which do not change the result.
    Beyond eight classes glyph textures occur twice, with another glyph and the other body.
    Raises ValueError for sizes out of range, InputError for a folder that holds other files or other settings.
    """
    _check_sizes(num_train, num_val, image_size, num_classes)
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
    _write_images(root, labels, image_size, seed, workers)
    _write_lists(root, labels, probabilities, settings)
    return root


def _write_images(root: Path, labels: dict[str, list[list[int]]], size: int, seed: int, workers: int):
    jobs = [(split, index, classes) for split in SPLITS for index, classes in enumerate(labels[split])]
    write = functools.partial(_write_image, root=root, size=size, seed=seed)
    with tqdm(total=len(jobs), desc="mini VOC", unit="image") as bar:
        if workers <= 1:
            for job in jobs:
                write(job)
                bar.update()
            return
        with multiprocessing.get_context("forkserver").Pool(workers, cv2.setNumThreads, (1,)) as pool:
            for _ in pool.imap_unordered(write, jobs, chunksize=8):
                bar.update()


def _write_lists(root, labels, probabilities, settings):
    """Image lists, class names and, last, the record whose presence says that the set is complete."""
    names = GLYPHS[:len(probabilities)]
    ids = {split: [_image_id(split, index) for index in range(len(labels[split]))] for split in SPLITS}
    for name, split in (("train", "train"), ("train_aug", "train"), ("val", "val")):
        write_text(root / "ImageSets" / "Segmentation" / f"{name}.txt", "\n".join(ids[split]) + "\n")
    write_text(root / "classes.txt", "\n".join(names) + "\n")
    record = {
        "settings": settings,
        "classes_by_frequency": [names[c] for c in np.argsort(-probabilities, kind="stable")],
        "probability": {name: round(float(p), 4) for name, p in zip(names, probabilities)},
        "images": {split: dict(zip(names, np.bincount(np.concatenate(labels[split]), minlength=len(names)).tolist()))
                   for split in SPLITS},
        "shared_body": {body: [name for c, name in enumerate(names) if body_of(c) == body] for body in BODIES},
    }
    write_text(root / "mini_voc.json", json.dumps(record, indent=2) + "\n")
