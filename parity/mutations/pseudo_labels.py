"""Wrongs of what CAMs become: IR labels, IRN, walks, scores."""

from functools import partial
from itertools import count

import torch
import torch.nn.functional as F

from data.sample import IGNORE
from net.irn import IRN, affinity_labels
from net.labels import downsample_label
from parity.irn import check_inference, check_random_walk
from parity.labels import check_chainercv_confusion, check_ir_label_noisy, check_pseudo_mask
from parity.mutations.patch import changed, corners, replaced, then
from parity.mutations.run import Check, Wrong
from parity.networks import seeded_irn
from parity.samples import check_irn_crops
from refine import pseudo_mask
from refine.crf import MeanField, crf_inference_label, label_pair, seed_pair
from refine.fusion import final_cam
from refine.metrics import ConfusionMatrix
from refine.pseudo_mask import over_maximum, walk_along_edges, walk_scores, walk_starts
from refine.random_walk import propagate

IR_LABELS = Check("ir_label_noisy", check_ir_label_noisy)
MASKS = Check("pseudo_mask", check_pseudo_mask)
WALK = Check("random_walk", check_random_walk)
SCORES = Check("chainercv_confusion", check_chainercv_confusion)
IRN_CROPS = Check("irn_labels", check_irn_crops)
IRN_EDGES = Check("irn_labels", lambda vectors, report: check_inference(seeded_irn().eval(), vectors, report))


def undivided(turn: int):
    """over_maximum that leaves out every second call: the walks of foreground (0) and all channels (1) take turns."""

    def make(original):
        calls = count()
        return lambda maps: maps if next(calls) % 2 == turn else original(maps)

    return make


def without_first_label(labels: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    background, foreground, different = labels
    return background, torch.zeros_like(foreground), different


def unknown_as_background(label: torch.Tensor) -> torch.Tensor:
    return torch.where(label == IGNORE, torch.zeros_like(label), label)


def interpolated(original):
    """downsample_label by torch's nearest resizing, which takes the corner of a cell."""
    return lambda label, size: F.interpolate(label[:, None].float(), size, mode="nearest")[:, 0].to(label.dtype)


def from_edges_too(original):
    """propagate of the CAM as it is, not multiplied by 1 - edge."""
    return lambda cam, edge, *settings, **more: original(cam / (1 - edge), edge, *settings, **more)


def exchanged(original):
    """ConfusionMatrix.update with prediction and truth exchanged, where the truth is known."""

    def update(self, prediction, truth):
        known = truth != IGNORE
        original(self, truth[known], prediction[known])

    return update


def plus(step: float):
    """Settings come from the files, so a wrong one is a step away from the right one."""
    return lambda value: value + step


def times(factor: float):
    return lambda value: value * factor


def with_fields(function, argument: str, **changes):
    """`function` with changed fields of its argument, a NamedTuple; changes: field -> what is made of its value."""

    def change(settings):
        return settings._replace(**{field: new(getattr(settings, field)) for field, new in changes.items()})

    return changed(function, **{argument: change})


with_walk = partial(with_fields, argument="walk")
with_crf = partial(with_fields, MeanField.__init__, "crf")


CRF = [
    *(Wrong(f"label-CRF: {n:+d} iterations", with_crf(iterations=plus(n)), (IR_LABELS,)) for n in (-2, -1, 1)),
    *(
        Wrong(f"label-CRF: gt_prob {step:+}", with_crf(gt_prob=plus(step)), (IR_LABELS,))
        for step in (-0.1, 0.1)
    ),
    *(
        Wrong(f"label-CRF: {name} x {factor:.2g}", with_crf(**{name: times(factor)}), (IR_LABELS,))
        for name, factor in (
            ("gaussian_sxy", 2 / 3),
            ("gaussian_compat", 2 / 3),
            ("bilateral_sxy", 1.6),
            ("bilateral_srgb", 2.6),
            ("bilateral_compat", 0.8),
        )
    ),
    Wrong(
        "label-CRF left out",
        replaced(crf_inference_label, lambda _: lambda field, labels: labels),
        (IR_LABELS,),
    ),
    Wrong("second label-CRF left out", then(label_pair, lambda pair: (pair[0], pair[0])), (IR_LABELS,)),
    Wrong("IR label: background not scaled", changed(seed_pair, background_scale=1.0), (IR_LABELS,)),
    *(
        Wrong(
            f"IR label: scale of the background {step:+}", changed(seed_pair, background_scale=plus(step)), (IR_LABELS,)
        )
        for step in (-0.1, 0.1)
    ),
    *(
        Wrong(f"IR label: weight of M_P {step:+}", changed(final_cam, prototype_weight=plus(step)), (IR_LABELS,))
        for step in (-0.4, 0.3)
    ),
]

WALKS = [
    Wrong("pseudo mask: first walk not divided", replaced(over_maximum, undivided(0)), (MASKS,)),
    Wrong("pseudo mask: second walk not divided", replaced(over_maximum, undivided(1)), (MASKS,)),
    Wrong("pseudo mask: second walk left out", changed(walk_scores, maps=lambda maps: maps[:1]), (MASKS,)),
    *(
        Wrong(f"pseudo mask: weight of M_P {step:+}", changed(final_cam, prototype_weight=plus(step)), (MASKS,))
        for step in (-0.3, 0.4)
    ),
    Wrong("pseudo mask: powers 1", with_walk(walk_starts, power=lambda _: 1.0, all_power=lambda _: 1.0), (MASKS,)),
    Wrong(
        "pseudo mask: second power as the first", with_walk(walk_starts, all_power=lambda power: power**0.5), (MASKS,)
    ),
    *(
        Wrong(f"pseudo mask: background {step:+}", with_walk(walk_scores, background=plus(step)), (MASKS,))
        for step in (-0.05, 0.05)
    ),
    Wrong("pseudo mask: beta -2", with_walk(walk_along_edges, beta=plus(-2)), (MASKS,)),
    Wrong("pseudo mask: half of the steps", with_walk(walk_along_edges, exp_times=plus(-1)), (MASKS,)),
    *(Wrong(f"pseudo mask: radius {n:+d}", with_walk(walk_along_edges, radius=plus(n)), (MASKS,)) for n in (-1, 1)),
    Wrong(
        "pseudo mask: up-sampled with corners aligned", corners(pseudo_mask, lambda o: "scale_factor" in o), (MASKS,)
    ),
    Wrong(
        "pseudo mask: edge grid with corners aligned", corners(pseudo_mask, lambda o: "scale_factor" not in o), (MASKS,)
    ),
    Wrong("walk: radius 4", changed(propagate, radius=4), (WALK,)),
    Wrong("walk: edges keep their activation", replaced(propagate, from_edges_too), (WALK,)),
]

IRN_WRONGS = [
    Wrong("IRN: unknown pixels are background", changed(affinity_labels, label=unknown_as_background), (IRN_CROPS,)),
    Wrong("IRN: no pairs of one foreground class", then(affinity_labels, without_first_label), (IRN_CROPS,)),
    Wrong("IRN: labels sampled at the corner of a cell", replaced(downsample_label, interpolated), (IRN_CROPS,)),
    Wrong("IRN: edges not padded to 512", changed(IRN.predict_edge, pad_to=None), (IRN_EDGES,)),
    Wrong("IRN: edges padded to 640", changed(IRN.predict_edge, pad_to=640), (IRN_EDGES,)),
]

METRICS = [
    Wrong(
        "scores: ignored pixels counted",
        changed(ConfusionMatrix.update, ground_truth=lambda truth: truth % IGNORE),
        (SCORES,),
    ),
    Wrong("scores: truth and prediction exchanged", replaced(ConfusionMatrix.update, exchanged), (SCORES,)),
]

WRONGS = CRF + WALKS + IRN_WRONGS + METRICS
