"""Masks of the Semantic Boundaries Dataset (Hariharan et al., ICCV 2011), which come as MATLAB files."""

import io
import zlib

import numpy as np

from data.sample import IGNORE, InputError
from voc12.voc import CLASS_NAMES


def read_mat(content: bytes, name: str) -> np.ndarray:
    """Content of cls/ID.mat -> (H, W) uint8 class indices: 0 background, 1..20 the classes of VOC, 255 ignored.

    name  of the file, for messages
    Raises InputError when it is damaged, has no GTcls.Segmentation, or indices of no class.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError
    try:
        segmentation = loadmat(io.BytesIO(content), variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0]
    except (KeyError, IndexError):
        raise InputError(f"{name}: no GTcls.Segmentation in it; SBD's class masks are the files of its folder "
                         "cls") from None
    # What SciPy raises on files that are cut or changed, or (RuntimeError) of MATLAB's newer format, which SBD has not.
    except (MatReadError, zlib.error, RuntimeError, ValueError, TypeError, OSError) as error:
        raise InputError(f"{name}: damaged .mat file ({error}); fetch or unpack SBD again") from None
    if segmentation.ndim != 2 or not segmentation.size or segmentation.dtype.kind not in "ui":
        raise InputError(f"{name}: GTcls.Segmentation is no map of class indices; fetch or unpack SBD again")
    odd = segmentation[((segmentation < 0) | (segmentation > len(CLASS_NAMES))) & (segmentation != IGNORE)]
    if odd.size:
        raise InputError(f"{name}: class index {odd[0]}; 0 to {len(CLASS_NAMES)} and {IGNORE} are allowed; fetch or "
                         "unpack SBD again")
    return segmentation.astype(np.uint8)
