"""Lists, images, image-level labels and masks, of a sample of the images or of all."""

from collections import Counter
from collections.abc import Iterator
from functools import partial

import numpy as np
from PIL import Image

from check.finding import ERROR, OK, WARNING, Finding, refused
from check.plan import Look, Plan
from data.sample import IGNORE, InputError, orientation, read_image
from frame import lists
from frame.settings.cams import SfcTraining
from frame.settings.common import EvalList, Run
from frame.settings.irn import IrnTraining
from frame.settings.segmentation import OWN_TRAINING, SegEvalList, SegNetwork, SegTraining, with_own_values
from runtime.parallel import map_images

SAMPLE = 200                       # images that are looked at unless all are
LARGE_SIDE = 2000                  # pixels; CAMs at twice this size take gigabytes
DISAGREEING = 0.1                 # share of images whose labels and masks may differ: VOC's own do on some


def look(data_set, scored: set[str], name: str) -> Look:
    """Read all files of an image. scored: the images that need a mask."""
    out = Look(name, {})

    def attempt(kind: str, read):
        try:
            return read()
        except InputError as error:
            out.problems[kind] = str(error)
            return None

    image = attempt("image", lambda: read_image(data_set.image_path(name)))
    if image is not None:
        with Image.open(data_set.image_path(name)) as file:
            out = out._replace(size=image.shape[:2], turned=orientation(file) != 1)
    labels = attempt("labels", lambda: data_set.image_labels([name])[0])
    mask = None
    if name in scored or data_set.mask_path(name).exists():
        mask = attempt("mask", lambda: data_set.read_mask(name, out.size))
    return out._replace(
        labels=None if labels is None else frozenset((labels.nonzero()[0] + 1).tolist()),
        shown=None if mask is None else frozenset(np.unique(mask).tolist()) - {0, IGNORE})


def check(plan: Plan) -> Iterator[Finding]:
    """Findings on the data set, its lists, and the files of the images in them."""
    yield Finding("data set", OK, f"{plan.data_set.root}: {plan.data_set.num_classes} classes")
    yield from check_lists(plan)
    scored = {name for stage in plan.stages if {EvalList, SegEvalList} & set(stage.OPTIONS)
              for name in plan.ids.get(stage.NAME, [])}
    names = sorted({name for ids in plan.ids.values() for name in ids})
    if not names:
        return
    if not plan.full and len(names) > SAMPLE:
        names = sorted(np.random.default_rng(0).choice(names, SAMPLE, replace=False).tolist())
    work = partial(look, plan.data_set, scored)
    plan.looks = list(map_images(work, names, plan.flags[Run].num_workers, "check"))
    yield from image_findings(plan.looks)
    yield from label_findings(plan)


def check_lists(plan: Plan) -> Iterator[Finding]:
    """How many images each stage has; fills plan.ids."""
    stages_of: dict[str, list[str]] = {}
    for stage in plan.stages:
        try:
            ids = plan.ids[stage.NAME] = stage.select_ids(plan.data_set, plan.flags)
            lists.require_images(plan.data_set, ids)
            require_batch(plan, stage.NAME, ids)
        except InputError as error:
            yield refused(f"images of {stage.NAME}", error)
        else:
            stages_of.setdefault(lists.fingerprint(ids), []).append(stage.NAME)
    for names in stages_of.values():
        yield Finding("list", OK, f"{len(plan.ids[names[0]])} images: {', '.join(names)}")


def require_batch(plan: Plan, stage: str, ids: list[str]) -> None:
    """Raise InputError when a training has fewer images than a step takes."""
    flags = plan.flags
    seg = with_own_values(flags[SegTraining], OWN_TRAINING[flags[SegNetwork].net])
    batch = {"train_sfc": (flags[SfcTraining].batch_size, "--sfc_batch_size"),
             "train_irn": (flags[IrnTraining].batch_size, "--irn_batch_size"),
             "train_deeplab": (seg.batch_size, "--seg_batch_size")}.get(stage)
    if batch:
        lists.steps_per_epoch(ids, *batch)


def image_findings(looks: list[Look]) -> Iterator[Finding]:
    for kind in ("image", "labels", "mask"):
        problems = [found.problems[kind] for found in looks if kind in found.problems]
        if problems:
            first, _, fix = problems[0].partition("; ")
            yield Finding(kind, ERROR, f"{len(problems)} of {len(looks)} cannot be used; the first: {first}", fix)
    sizes = [found.size for found in looks if found.size]
    if not sizes:
        return
    (height, width), _ = Counter(sizes).most_common(1)[0]
    sides = [side for size in sizes for side in size]
    yield Finding("image", OK, f"{len(sizes)} read, mostly {width}x{height}, sides of {min(sides)} to {max(sides)} "
                  "pixels")
    if max(sides) > LARGE_SIDE:
        yield Finding("image", WARNING, f"sides of up to {max(sides)} pixels: CAMs at twice that size take gigabytes",
                      "resize images and masks to some 500 pixels, as those of VOC")
    turned = [found.name for found in looks if found.turned]
    if turned:
        yield Finding("image", WARNING, f"{len(turned)} lie on their side until a viewer turns them by their EXIF tag, "
                      f"such as {turned[0]}; the stages do not", "turn the files: mogrify -auto-orient *.jpg")


def label_findings(plan: Plan) -> Iterator[Finding]:
    """Labels against masks, and classes that no training image shows."""
    both = [(found.name, found.labels, found.shown) for found in plan.looks
            if found.labels is not None and found.shown is not None]
    more, less = ([name for name, labels, shown in both if shown - labels],
                  [name for name, labels, shown in both if labels - shown])
    if both:
        differing = len(more) > DISAGREEING * len(both) or len(less) > DISAGREEING * len(both)
        first = f", such as {(more + less)[0]}" if more + less else ""
        yield Finding("labels", WARNING if differing else OK,
                      f"of {len(both)} masks {len(more)} show a class that the labels lack, {len(less)} lack one of "
                      f"theirs{first}",
                      "look at these images; the order of class names may be wrong" if differing else "")
    training = set(plan.ids.get("train_sfc", []))
    known = {found.name: found.labels for found in plan.looks if found.labels is not None}
    if training and training <= known.keys():
        counts = Counter(label for name in training for label in known[name])
        absent = [name for index, name in enumerate(plan.data_set.class_names, 1) if not counts[index]]
        if absent:
            yield Finding("labels", WARNING, f"no training image shows {', '.join(absent)}",
                          "take the class out of the list of class names, or add images")
