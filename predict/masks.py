"""From what the networks say of an image to its masks: label-CRF, random walk, segmentation network."""

from typing import NamedTuple

import numpy as np

from frame.flags import Flags
from frame.settings.cams import Background, FinalIr, FinalMask, LabelCrf
from frame.settings.irn import RandomWalk
from frame.settings.segmentation import SegTest
from predict.predictor import Evidence, Predictor
from refine.crf import CRF, MeanField, crf_inference_label
from refine.fusion import final_cam, full_size_cams
from refine.pseudo_mask import Walk, pseudo_mask
from segmentation.prediction import final_mask

# The masks that a run can give, the best last, and the heading of each.
LABEL_CRF, WALK, SEGMENTATION = "label_crf", "walk", "deeplab"
TITLES = {LABEL_CRF: "label-CRF", WALK: "random walk", SEGMENTATION: "segmentation network"}


class Recipe(NamedTuple):
    """How the run made masks of its own images.

    offset                   of the background step, None without it
    ir_weight, mask_weight   of M_P in the M_final of label-CRF and of walk
    stride                   pixels a cell of the edge map covers
    test                     settings of the segmentation network
    kinds                    of masks that the run's networks give, the best last
    """
    offset: float | None
    ir_weight: float
    mask_weight: float
    crf: CRF
    walk: Walk
    stride: int
    test: SegTest | None
    kinds: tuple[str, ...]


def recipe_of(predictor: Predictor) -> Recipe:
    flags: Flags = predictor.flags
    networks = {LABEL_CRF: predictor.sfc, WALK: predictor.sfc and predictor.irn, SEGMENTATION: predictor.segmentation}
    return Recipe(flags[Background].added, flags[FinalIr].ir_prototype_weight, flags[FinalMask].mask_prototype_weight,
                  flags[LabelCrf].crf, flags[RandomWalk].walk, predictor.irn.stride if predictor.irn else 0,
                  predictor.segmentation.test if predictor.segmentation else None,
                  tuple(kind for kind, network in networks.items() if network))


def masks_of(evidence: Evidence, recipe: Recipe) -> dict[str, np.ndarray]:
    """Kind (of TITLES) -> mask (H, W) uint8 of class indices, for what the run has networks for."""
    masks = {}
    if evidence.record:
        keys = evidence.record.keys
        cams = full_size_cams(evidence.record, recipe.offset)
        seeds = final_cam(*cams, recipe.ir_weight).argmax(0).numpy()
        masks[LABEL_CRF] = keys[crf_inference_label(MeanField(evidence.image, len(keys), recipe.crf), seeds)]
        if evidence.edge is not None:
            masks[WALK] = np.zeros_like(masks[LABEL_CRF])
            if len(keys) > 1:                                       # without a class there is nothing to walk
                cam = final_cam(*cams, recipe.mask_weight)
                masks[WALK] = keys[pseudo_mask(cam, evidence.edge, recipe.stride, recipe.walk)]
    if evidence.prediction and recipe.test:
        masks[SEGMENTATION] = final_mask(recipe.test, evidence.image, evidence.prediction)
    return {kind: mask.astype(np.uint8) for kind, mask in masks.items()}
