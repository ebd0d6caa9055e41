"""Dense CRF (Kraehenbuehl and Koltun, 2011) on label maps and on class probabilities, and IRN's training labels.

Needs pydensecrf2.
"""

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


def crf_inference_label(image: np.ndarray, labels: np.ndarray, num_labels: int, crf: CRF = LABEL_CRF) -> np.ndarray:
    """Refine a label map (IRN's label-CRF).

    image: (H, W, 3) uint8. labels: (H, W) int in [0, num_labels).
    Returns (H, W) int64. Raises ImportError without pydensecrf2.
    """
    labels = np.asarray(labels, np.int64)
    if (crf.gt_prob * num_labels > 1 and (labels == labels.flat[0]).all()) or num_labels == 1:
        return labels.copy()      # the likeliest label of every pixel, and the messages between pixels favour it too
    _, utils = import_pydensecrf()
    unary = utils.unary_from_labels(labels, num_labels, gt_prob=crf.gt_prob, zero_unsure=False)
    return mean_field(image, unary, crf).argmax(axis=0)


def crf_inference_probs(image: np.ndarray, probs: np.ndarray, crf: CRF) -> np.ndarray:
    """Refine class probabilities.

    image: (H, W, 3) uint8. probs: (K, H, W) float in [0, 1], summing to 1 over K; for a CAM with a background channel,
        its channels divided by their sum or its softmax.
    Returns (K, H, W) float32 probabilities. Raises ImportError without pydensecrf2.
    """
    _, utils = import_pydensecrf()
    return mean_field(image, utils.unary_from_softmax(probs), crf)


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
    strict_seeds, loose_seeds = seed_pair(cams, background_scale)
    strict = crf_inference_label(image, strict_seeds, len(cams), crf)
    if np.array_equal(strict_seeds, loose_seeds):
        return strict, strict
    return strict, crf_inference_label(image, loose_seeds, len(cams), crf)


def mean_field(image: np.ndarray, unary: np.ndarray, crf: CRF) -> np.ndarray:
    """Mean-field inference with a Gaussian and a bilateral Potts term.

    image: (H, W, 3) uint8; unary: (K, H W) negative log-probabilities.
    Returns (K, H, W) float32 marginals.
    """
    densecrf, _ = import_pydensecrf()
    height, width = image.shape[:2]
    field = densecrf.DenseCRF2D(width, height, len(unary))
    field.setUnaryEnergy(np.ascontiguousarray(unary, np.float32))
    field.addPairwiseGaussian(sxy=crf.gaussian_sxy, compat=crf.gaussian_compat)
    field.addPairwiseBilateral(sxy=crf.bilateral_sxy, srgb=crf.bilateral_srgb, rgbim=np.ascontiguousarray(image),
                               compat=crf.bilateral_compat)
    return np.array(field.inference(crf.iterations), np.float32).reshape(len(unary), height, width)


def import_pydensecrf():
    """The modules densecrf and utils of pydensecrf."""
    try:
        from pydensecrf import densecrf, utils
    except ImportError as error:
        raise ImportError("the dense CRF needs pydensecrf: pip install pydensecrf2 (needs a C++ compiler)") from error
    return densecrf, utils
