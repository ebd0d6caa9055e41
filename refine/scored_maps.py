"""Names of the scores in metrics.json, and how much of M_W and M_P is in each scored map.

A CAM is scored twice: plain, and after the release's background step ("weight_cam", "weight_cam +step").
"""

from collections.abc import Iterable
from typing import NamedTuple


class MapWeights(NamedTuple):
    """A scored map is weight * M_W + prototype * M_P."""
    weight: float
    prototype: float

    def mix(self, weight_cam, prototype_cam):
        """The map of M_W and M_P, both (K+1, H, W) arrays or tensors."""
        return self.weight * weight_cam + self.prototype * prototype_cam

    def mean(self, weight_cam, prototype_cam):
        """`mix`, back in the range of M_W and M_P, so that one threshold fits all maps."""
        return self.mix(weight_cam, prototype_cam) / sum(self)


WEIGHT_CAM, PROTOTYPE_CAM, FINAL_CAM = "weight_cam", "prototype_cam", "final_cam"
CAMS = {WEIGHT_CAM: MapWeights(1, 0), PROTOTYPE_CAM: MapWeights(0, 1), FINAL_CAM: MapWeights(1, 1)}     # last: Eq. 9

PLAIN, STEP = "", " +step"                     # what follows the name of a CAM: without and after the background step
FINAL_CAM_CRF = f"{FINAL_CAM} CRF"             # arg-max of M_final after the label-CRF
PSEUDO_MASK = "pseudo mask"
PREDICTION = "prediction"
PREDICTION_CRF = f"{PREDICTION} CRF"

# The variant of a CAM that the paper's number stands beside: the release's scripts score no other.
PAPER_VARIANT = STEP


def final_cam_name(prototype_weight: float = 1) -> str:
    """Name of the score of M_W + prototype_weight * M_P."""
    return f"{FINAL_CAM} {prototype_weight:g}"


def scored_maps(*prototype_weights: float) -> dict[str, MapWeights]:
    """Name -> weights of every scored CAM: M_W, M_P, M_final of Eq. 9 and of `prototype_weights`, the largest first."""
    finals = sorted({1.0, *prototype_weights}, reverse=True)
    return ({name: CAMS[name] for name in (WEIGHT_CAM, PROTOTYPE_CAM)}
            | {final_cam_name(weight): MapWeights(1, weight) for weight in finals})


def variant_of(score: str) -> str | None:
    """PLAIN or STEP of a CAM's score; None of what has no variants: CRF, masks, predictions."""
    name = score.removesuffix(STEP)
    is_cam = name in (WEIGHT_CAM, PROTOTYPE_CAM) or (name.startswith(f"{FINAL_CAM} ") and name != FINAL_CAM_CRF)
    return None if not is_cam else STEP if score.endswith(STEP) else PLAIN


def beside_paper(name: str) -> str:
    """Score of a CAM that the paper's number stands beside."""
    return name + PAPER_VARIANT


def paper_first(scores: Iterable[str]) -> list[str]:
    """Scores in their order, but CAMs in the variant that has no number of the paper last."""
    return sorted(scores, key=lambda score: variant_of(score) not in (None, PAPER_VARIANT))


def plain(score: str) -> str:
    """The score of the same CAM without the background step."""
    return score.removesuffix(STEP)
