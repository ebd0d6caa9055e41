"""CAM records: what the network put out for one image, a few tens of KB; refine/fusion.py rebuilds the full-size CAM.

A record is an .npz without pickles:
    classes         (K,) int64, the foreground classes of the image, 1-based
    num_classes     C of the network
    size            (H, W) of the image
    weight_0, prototype_0, weight_1, ...   (K+1, h_s, w_s) uint16, M_W and M_P of each scale, background first, in
                                           steps of 1/65535 of the maximum of each map
    maxima          (2, S, K+1) float32, these maxima: of M_W and of M_P at each of the S scales

The steps are relative because a weak class can stay below 0.05 everywhere, and because the CRF after the arg-max can
turn one changed pixel into fifty. docs/PERFORMANCE.md has the errors of this and of other formats.
"""

import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from data.sample import InputError, write_atomically

STEPS = 65535                             # from 0 to the maximum of a map


class CamRecord(NamedTuple):
    classes: np.ndarray                   # (K,) 1-based foreground classes
    size: tuple[int, int]
    weight_maps: list[np.ndarray]         # per scale (K+1, h, w) float32 >= 0
    prototype_maps: list[np.ndarray]

    @property
    def keys(self) -> np.ndarray:
        """(K+1,) class index of each channel, the background first."""
        return np.concatenate([[0], self.classes])


def record_path(folder: str | Path, name: str) -> Path:
    """The record of image `name` in a folder of records."""
    return Path(folder) / f"{name}.npz"


def present_maps(maps: list[tuple[torch.Tensor, torch.Tensor]], label: torch.Tensor,
                 size: tuple[int, int]) -> CamRecord:
    """The record of one image: of its maps, only the background and the classes it shows.

    maps   M_W and M_P of each scale, (C+1, h_s, w_s)
    label  (C,) 0/1
    size   (H, W) of the image
    """
    classes = label.nonzero().flatten() + 1
    keys = torch.cat([torch.zeros(1, dtype=torch.int64), classes])
    return CamRecord(classes.numpy(), size, [weight[keys].numpy() for weight, _ in maps],
                     [prototype[keys].numpy() for _, prototype in maps])


def expected_bytes(size: tuple[int, int], classes: float, scales: tuple[float, ...], stride: int) -> float:
    """Bytes of a record before compression.

    size     (H, W) of the image
    classes  foreground classes of the image, or their mean over images
    scales, stride  of the maps: a cell covers `stride` pixels of the scaled image
    """
    cells = sum(size[0] * size[1] * scale ** 2 / stride ** 2 for scale in scales)
    return 2 * 2 * cells * (1 + classes) + 2000                                         # two maps of uint16


def write_record(path: str | Path, record: CamRecord, num_classes: int) -> None:
    arrays: dict[str, Any] = {"classes": record.classes.astype(np.int64), "num_classes": np.int64(num_classes),
                              "size": np.array(record.size, np.int64)}
    maxima = []
    for kind, maps in (("weight", record.weight_maps), ("prototype", record.prototype_maps)):
        cams = [np.asarray(cam, np.float32) for cam in maps]
        maxima.append([cam.max((1, 2)) for cam in cams])
        arrays |= {f"{kind}_{i}": to_steps(*pair) for i, pair in enumerate(zip(cams, maxima[-1]))}
    arrays["maxima"] = np.array(maxima)
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))


def to_steps(cam: np.ndarray, maximum: np.ndarray) -> np.ndarray:
    """Maps (K+1, h, w) float32 >= 0 and their maxima (K+1,) -> uint16 shares of the maximum; 0 where that is 0."""
    return np.rint(cam / np.where(maximum > 0, maximum, 1)[:, None, None] * STEPS).astype(np.uint16)


def from_steps(steps: np.ndarray, maximum: np.ndarray) -> np.ndarray:
    """What `to_steps` was given, to half a step: float32."""
    return steps * (maximum / np.float32(STEPS))[:, None, None]


def read_record(path: str | Path, num_classes: int, size: tuple[int, int] | None = None) -> CamRecord:
    """Read a record and check that it fits the data set.

    num_classes  C of the data set
    size         (H, W) of the image; None skips that check
    Raises InputError when it is missing, damaged, or of another class count or image size.
    """
    again = "run make_cam.py again (--overwrite)"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if "weight_0" in arrays and "maxima" not in arrays:
            raise InputError(f"{path}: CAM record of an earlier format, float16 maps; {again}")
        found, classes, maxima = int(arrays["num_classes"]), arrays["classes"], arrays["maxima"]
        written_size = tuple(int(side) for side in arrays["size"])
        steps = [[arrays[f"{kind}_{i}"] for i in range(len(of_kind))]
                 for kind, of_kind in zip(("weight", "prototype"), maxima)]
    except FileNotFoundError:
        raise InputError(f"{path}: CAM record is missing; run make_cam.py with this image in --infer_list") from None
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile,
            zlib.error) as error:
        raise InputError(f"{path}: damaged CAM record ({error}); delete it and {again}") from None
    if found != num_classes:
        raise InputError(f"{path}: CAM record of {found} classes, but the data set has {num_classes}; {again}")
    if size is not None and written_size != tuple(size):
        raise InputError(f"{path}: CAM record of an image of {written_size[1]}x{written_size[0]} pixels, "
                         f"but the image has {size[1]}x{size[0]}; {again}")
    if not (len(written_size) == 2 and _is_sound(classes, steps, maxima, num_classes)):
        raise InputError(f"{path}: damaged CAM record (its classes and maps are not what make_cam.py writes); delete "
                         f"it and {again}")
    return CamRecord(classes, written_size, *([from_steps(*map_of_scale) for map_of_scale in zip(*of_kind)]
                                              for of_kind in zip(steps, maxima)))


def _is_sound(classes: np.ndarray, steps: list[list[np.ndarray]], maxima: np.ndarray, num_classes: int) -> bool:
    """Whether there is a finite map of each kind, scale and class, and the classes are some of 1..num_classes."""
    return (classes.ndim == 1 and classes.dtype.kind == "i"
            and bool(np.isin(classes, np.arange(1, num_classes + 1)).all())
            and maxima.dtype == np.float32 and maxima.ndim == 3 and maxima.size > 0
            and maxima.shape[::2] == (2, len(classes) + 1) and bool((np.isfinite(maxima) & (maxima >= 0)).all())
            and all(cam.dtype == np.uint16 and cam.ndim == 3 and len(cam) == len(classes) + 1 and cam.size > 0
                    for of_kind in steps for cam in of_kind))
