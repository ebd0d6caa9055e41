"""CAM records: what the network put out for one image, a few tens of KB; the full-size CAM is rebuilt on reading.

A record is an .npz without pickles:
    classes         (K,) int64, the foreground classes of the image, 1-based
    num_classes     C of the network
    size            (H, W) of the image
    weight_0, prototype_0, weight_1, ...   (K+1, h_s, w_s) float16, M_W and M_P of each scale, background first
"""

import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from data.sample import InputError, write_atomically

EPS = 1e-5


class CamRecord(NamedTuple):
    classes: np.ndarray                   # (K,) 1-based foreground classes
    size: tuple[int, int]
    weight_maps: list[np.ndarray]         # per scale (K+1, h, w)
    prototype_maps: list[np.ndarray]

    @property
    def keys(self) -> np.ndarray:
        """(K+1,) class index of each channel, the background first."""
        return np.concatenate([[0], self.classes])


def write_record(path: str | Path, record: CamRecord, num_classes: int) -> None:
    arrays = {"classes": record.classes.astype(np.int64), "num_classes": np.int64(num_classes),
              "size": np.array(record.size, np.int64)}
    for kind, maps in (("weight", record.weight_maps), ("prototype", record.prototype_maps)):
        arrays |= {f"{kind}_{i}": np.asarray(cam, np.float16) for i, cam in enumerate(maps)}
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))


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
        scales = sum(name.startswith("weight_") for name in arrays)
        record = CamRecord(arrays["classes"], tuple(int(side) for side in arrays["size"]),
                           [arrays[f"weight_{i}"] for i in range(scales)],
                           [arrays[f"prototype_{i}"] for i in range(scales)])
        found = int(arrays["num_classes"])
    except FileNotFoundError:
        raise InputError(f"{path}: CAM record is missing; run make_cam.py with this image in --infer_list") from None
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile,
            zlib.error) as error:
        raise InputError(f"{path}: damaged CAM record ({error}); delete it and {again}") from None
    if found != num_classes:
        raise InputError(f"{path}: CAM record of {found} classes, but the data set has {num_classes}; {again}")
    if size is not None and record.size != tuple(size):
        raise InputError(f"{path}: CAM record of an image of {record.size[1]}x{record.size[0]} pixels, "
                         f"but the image has {size[1]}x{size[0]}; {again}")
    if not _is_sound(record, num_classes):
        raise InputError(f"{path}: damaged CAM record (its classes and maps are not what make_cam.py writes); delete it "
                         f"and {again}")
    return record


def _is_sound(record: CamRecord, num_classes: int) -> bool:
    """Whether there is a finite map of each kind, scale and class, and the classes are some of 1..num_classes."""
    classes, maps = record.classes, record.weight_maps + record.prototype_maps
    return (len(maps) > 0 and len(record.size) == 2 and classes.ndim == 1 and classes.dtype.kind == "i"
            and np.isin(classes, np.arange(1, num_classes + 1)).all()
            and all(cam.dtype == np.float16 and cam.ndim == 3 and len(cam) == len(classes) + 1 and cam.size > 0
                    and np.isfinite(cam).all() for cam in maps))


def fuse_scales(maps: list[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
    """Sum over scales at full size, divided by the maximum of each channel.

    maps     per scale (K+1, h_s, w_s) float
    Returns  (K+1, H, W) float32.
    """
    total = sum(F.interpolate(cam[None].float(), size, mode="bilinear", align_corners=False)[0] for cam in maps)
    return total / (total.amax((1, 2), keepdim=True) + EPS)


def background_step(cam: torch.Tensor, offset: float = 0.4) -> torch.Tensor:
    """Release: add to a map (K+1, H, W) a copy whose background is the constant `offset`.

    The foreground is doubled, the background raised by `offset`.
    """
    return torch.cat([cam[:1] + offset, 2 * cam[1:]])


def full_size_cams(record: CamRecord, offset: float | None = 0.4) -> tuple[torch.Tensor, torch.Tensor]:
    """M_W and M_P of a record at full size, each (K+1, H, W).

    offset  of the background step; None leaves the step out (paper)
    """
    cams = [fuse_scales([torch.from_numpy(cam) for cam in maps], record.size)
            for maps in (record.weight_maps, record.prototype_maps)]
    if offset is not None:
        cams = [background_step(cam, offset) for cam in cams]
    return cams[0], cams[1]


def final_cam(weight_cam: torch.Tensor, prototype_cam: torch.Tensor, prototype_weight: float = 1.0) -> torch.Tensor:
    """M_final = M_W + prototype_weight * M_P (Eq. 9: weight 1)."""
    return weight_cam + prototype_weight * prototype_cam


def read_final_cam(path: str | Path, num_classes: int, prototype_weight: float, offset: float | None,
                   size: tuple[int, int] | None = None) -> tuple[torch.Tensor, np.ndarray]:
    """M_final (K+1, H, W) of a record at full size, and the class index of each channel.

    Arguments as read_record, final_cam and full_size_cams.
    """
    record = read_record(path, num_classes, size)
    return final_cam(*full_size_cams(record, offset), prototype_weight), record.keys
