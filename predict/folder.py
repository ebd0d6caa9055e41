"""Masks, overlays, heat maps and a page of a folder of photographs."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import imageio.v3 as imageio
import numpy as np
import torch
from PIL import Image

from data.sample import InputError, label_path, read_photo, write_atomically, write_mask, write_text
from data.transforms import resize
from predict.masks import TITLES, Recipe, masks_of, recipe_of
from predict.predictor import Evidence, Predictor, named_scores
from refine.fusion import final_cam, full_size_cams
from report.page import class_colours, data_uri, render
from report.pictures import heat_map, overlay_mask
from runtime.parallel import map_images
from runtime.work_dir import log

PAGE_IMAGES = 200                  # on the page, which holds its pictures: some 100 KB an image
FOLDERS = ("heat", "overlay")


class Request(NamedTuple):
    """What is asked of the images of a folder.

    labels     class names that every image shows; None: what the classifier says, from `threshold` on
    threshold  probability
    out        folder that is written
    """
    images: Path
    labels: list[str] | None
    threshold: float
    out: Path


class Job(NamedTuple):
    """An image for a worker process."""
    path: Path
    evidence: Evidence
    on_page: bool


class Photo(NamedTuple):
    """What was made of an image.

    classes   of its CAMs
    scores    class name -> probability, the highest first; {} without a classifier
    pictures  heading -> `src` of the picture, for the page
    """
    name: str
    classes: list[str]
    scores: dict[str, float]
    pictures: dict[str, str]


def predict_folder(predictor: Predictor, request: Request, num_workers: int) -> Path:
    """Write the files of every image and a page of them; the path of the page.

    Files that are no images are left out with a warning. Raises InputError for an unknown label, or without any image.
    """
    if request.labels is not None:
        predictor.label(request.labels)                              # refused before anything is written
    paths = files_of(request.images)
    recipe = recipe_of(predictor)
    for kind in (*FOLDERS, *recipe.kinds):
        (request.out / kind).mkdir(parents=True, exist_ok=True)
    write = partial(write_files, request.out, predictor.class_names, recipe)
    photos = list(map_images(write, jobs(predictor, request, paths), num_workers, "predict", total=len(paths)))
    if not photos:
        raise no_image(request.images, len(paths))
    names = enumerate(("background", *predictor.class_names))
    write_text(request.out / "classes.txt", "".join(f"{index} {name}\n" for index, name in names))
    scored = {photo.name: {"classes": photo.classes, "scores": photo.scores} for photo in photos}
    write_text(request.out / "scores.json", json.dumps(scored, indent=1) + "\n")
    page = render("predictions.html.j2", run=predictor.run.name, photos=photos[:PAGE_IMAGES], request=request,
                  count=len(photos), palette=class_colours(predictor.class_names), kinds=recipe.kinds)
    write_text(request.out / "index.html", page)
    return request.out / "index.html"


def files_of(folder: Path) -> list[Path]:
    """The files of a folder but hidden ones and, with a warning, those whose suffix is of no image that can be read.

    Raises InputError when there is none, or two differ by suffix alone.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; --images needs a folder of images")
    found = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    if not found:
        raise InputError(f"{folder}: no files in it; --images needs a folder of images")
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN} | {""}
    paths: dict[str, Path] = {}
    for path in found:
        if path.suffix.lower() not in known:
            log.warning("left out: %s: no suffix of an image", path)
        elif path.stem in paths:
            raise InputError(f"{path}: its mask would replace that of {paths[path.stem].name}; rename one of the two")
        else:
            paths[path.stem] = path
    if not paths:
        raise no_image(folder, len(found))
    return list(paths.values())


def no_image(folder: Path, count: int) -> InputError:
    return InputError(f"{folder}: none of its {count} files is an image; --images needs a folder of images")


def jobs(predictor: Predictor, request: Request, paths: list[Path]) -> Iterator[Job]:
    """What the networks say of every file that is an image."""
    found = 0
    for path in paths:
        try:
            image = read_photo(path)
        except InputError as error:
            log.warning("left out: %s", str(error).partition("; ")[0])
            continue
        found += 1
        yield Job(path, predictor.evidence(image, request.labels, request.threshold), found <= PAGE_IMAGES)


def write_files(out: Path, class_names: tuple[str, ...], recipe: Recipe, job: Job) -> Photo:
    """Write the files of one image, at the size that viewers show it at."""
    image, name, evidence = read_photo(job.path), job.path.stem, job.evidence
    heat = heat_maps(image, class_names, recipe, evidence)
    for class_name, picture in heat.items():
        write_picture(out / "heat" / f"{name}_{class_name.replace('/', '_')}.jpg", picture)
    masks = {kind: resize(mask, image.shape[:2], Image.Resampling.NEAREST)
             for kind, mask in masks_of(evidence, recipe).items()}
    for kind, mask in masks.items():
        write_mask(label_path(out / kind, name), mask)
    pictures = {"image": image} | heat | {TITLES[kind]: mask for kind, mask in masks.items()}
    if masks:                                    # none of an image that is too small for the segmentation network
        pictures["overlay"] = overlay_mask(image, list(masks.values())[-1])
        write_picture(out / "overlay" / f"{name}.jpg", pictures["overlay"])
    scores = {} if evidence.scores is None else named_scores(class_names, evidence.scores)
    return Photo(name, list(heat), scores,
                 {title: data_uri(picture) for title, picture in pictures.items()} if job.on_page else {})


def heat_maps(image: np.ndarray, class_names: tuple[str, ...], recipe: Recipe,
              evidence: Evidence) -> dict[str, np.ndarray]:
    """Class name -> image (H, W, 3) under the M_final of that class; {} without CAMs."""
    if evidence.record is None:
        return {}
    cam = final_cam(*full_size_cams(evidence.record, offset=None), recipe.ir_weight)
    cam = torch.nn.functional.interpolate(cam[None], image.shape[:2], mode="bilinear", align_corners=False)[0]
    return {class_names[index - 1]: heat_map(image, of_class)
            for index, of_class in zip(evidence.record.classes, cam[1:].numpy())}


def write_picture(path: Path, picture: np.ndarray) -> None:
    write_atomically(path, lambda file: imageio.imwrite(file, picture, extension=".jpg"))
