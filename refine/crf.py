"""Dense CRF (Kraehenbuehl and Koltun, 2011) on label maps and on class probabilities, and IRN's training labels.

Needs pydensecrf2.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np

from data.sample import IGNORE


class CRF(NamedTuple):
    """Parameters of a dense CRF; the defaults are those of IRN's label-CRF. SFC's release changes the iterations to 12.

    iterations                     of the mean field
    gt_prob                        probability that a given label is right (label maps alone)
    gaussian_sxy, bilateral_sxy    reach in pixels
    bilateral_srgb                 reach in grey levels
    gaussian_compat, bilateral_compat   weights of the two Potts terms
    """
    iterations: int = 10
    gt_prob: float = 0.7
    gaussian_sxy: float = 3
    gaussian_compat: float = 3
    bilateral_sxy: float = 50
    bilateral_srgb: float = 5
    bilateral_compat: float = 10


LABEL_CRF = CRF()


class MeanField:
    """Mean-field inference on one image with a Gaussian and a bilateral Potts term.

    The lattices that filter the messages depend on the image alone: the first inference builds them, later ones, from
    other unary potentials, use them again and give the same bytes as with new ones.

    image       (H, W, 3) uint8
    num_labels  K
    """

    def __init__(self, image: np.ndarray, num_labels: int, crf: CRF = LABEL_CRF):
        self.image, self.num_labels, self.crf = image, num_labels, crf

    def marginals(self, unary: np.ndarray) -> np.ndarray:
        """Class probabilities (K, H, W) float32 from unary: (K, H W) negative log-probabilities.

        Raises ImportError without pydensecrf2.
        """
        self._field.setUnaryEnergy(np.ascontiguousarray(unary, np.float32))
        marginals = np.array(self._field.inference(self.crf.iterations), np.float32)
        return marginals.reshape(self.num_labels, *self.image.shape[:2])

    @cached_property
    def _field(self):
        densecrf, _ = import_pydensecrf()
        height, width = self.image.shape[:2]
        field = densecrf.DenseCRF2D(width, height, self.num_labels)
        field.addPairwiseGaussian(sxy=self.crf.gaussian_sxy, compat=self.crf.gaussian_compat)
        field.addPairwiseBilateral(sxy=self.crf.bilateral_sxy, srgb=self.crf.bilateral_srgb,
                                   rgbim=np.ascontiguousarray(self.image), compat=self.crf.bilateral_compat)
        return field


def crf_inference_label(field: MeanField, labels: np.ndarray) -> np.ndarray:
    """Refine a label map (IRN's label-CRF).

    labels: (H, W) int in [0, K).
    Returns (H, W) int64. Raises ImportError without pydensecrf2.
    """
    labels, gt_prob = np.asarray(labels, np.int64), field.crf.gt_prob
    if (gt_prob * field.num_labels > 1 and (labels == labels.flat[0]).all()) or field.num_labels == 1:
        return labels.copy()      # the likeliest label of every pixel, and the messages between pixels favour it too
    _, utils = import_pydensecrf()
    unary = utils.unary_from_labels(labels, field.num_labels, gt_prob=gt_prob, zero_unsure=False)
    return field.marginals(unary).argmax(axis=0)


def crf_inference_probs(field: MeanField, probs: np.ndarray) -> np.ndarray:
    """Refine class probabilities.

    probs: (K, H, W) float in [0, 1], summing to 1 over K; for a CAM with a background channel, its channels divided by
        their sum or its softmax.
    Returns (K, H, W) float32 probabilities. Raises ImportError without pydensecrf2.
    """
    _, utils = import_pydensecrf()
    return field.marginals(utils.unary_from_softmax(probs))


def ir_label(image: np.ndarray, cams: np.ndarray, keys: np.ndarray, background_scale: float = 0.5,
             crf: CRF = LABEL_CRF) -> np.ndarray:
    """Confident labels for the inter-pixel relation network: class, background, or 255 where unknown.

    A label-CRF refines the arg-max of the maps, another one the arg-max with a weaker background. Foreground of the
    first is confident foreground; background of both is confident background.

    image: (H, W, 3) uint8. cams: (K, H, W) float, M_final with the background channel first.
    keys: (K,) class id of each channel, 0 first.
    background_scale: factor of the background channel in the second run (SFC's release: 0.5).
    Returns (H, W) uint8.
    """
    keys = np.asarray(keys, np.uint8)
    strict, loose = label_pair(image, cams, background_scale, crf)
    return np.where(strict > 0, keys[strict], np.where(loose > 0, IGNORE, 0).astype(np.uint8))


def seed_pair(cams: np.ndarray, background_scale: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """What the two label-CRFs of `ir_label` start from: arg-max (H, W) of the maps, and with the background scaled."""
    return cams.argmax(axis=0), np.concatenate([cams[:1] * background_scale, cams[1:]]).argmax(axis=0)


def label_pair(image: np.ndarray, cams: np.ndarray, background_scale: float = 0.5,
               crf: CRF = LABEL_CRF) -> tuple[np.ndarray, np.ndarray]:
    """The two label-CRF runs of `ir_label`: channel indices (H, W) with the background as given, and scaled."""
    field = MeanField(image, len(cams), crf)
    strict_seeds, loose_seeds = seed_pair(cams, background_scale)
    strict = crf_inference_label(field, strict_seeds)
    if np.array_equal(strict_seeds, loose_seeds):
        return strict, strict
    return strict, crf_inference_label(field, loose_seeds)


def import_pydensecrf():
    """The modules densecrf and utils of pydensecrf."""
    try:
        from pydensecrf import densecrf, utils
    except ImportError as error:
        raise ImportError("the dense CRF needs pydensecrf: pip install pydensecrf2 (needs a C++ compiler)") from error
    return densecrf, utils
