"""Stage 4: two label-CRFs turn M_final into confident foreground, background and unknown pixels.

    python cam_to_ir_label.py --voc12_root VOCdevkit/VOC2012 --work_dir runs/sfc
"""

import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data.cam_store import record_path
from data.sample import IGNORE, label_path, read_image, read_mask, write_mask
from frame import lists
from frame.flags import Flags
from frame.settings.cams import Background, FinalIr, IrLabels, LabelCrf
from frame.settings.common import Data, InferList, Run
from frame.stage import run_alone
from refine.crf import CRF, ir_label
from refine.fusion import read_final_cam
from runtime import distributed
from runtime.parallel import map_images
from runtime.work_dir import log

NAME = "cam_to_ir_label"
OUTPUTS = ("ir_label",)
OPTIONS = (Run, Data, InferList, Background, FinalIr, LabelCrf, IrLabels)
select_ids = lists.infer_ids


class Recipe(NamedTuple):
    """How a label is made.

    prototype_weight   of M_P in M_final
    offset             of the background step, None without it
    background_scale   of the background in the second CRF
    """
    prototype_weight: float
    offset: float | None
    background_scale: float
    crf: CRF


def run(flags: Flags, work_dir, data_set, ids: list[str]) -> dict:
    """Write ir_label/ID.png of every image. Returns the shares of foreground, background and unknown pixels."""
    cams = work_dir.require("cam", "make_cam")
    folder = work_dir / "ir_label"
    folder.mkdir(exist_ok=True)
    recipe = Recipe(flags[FinalIr].ir_prototype_weight, flags[Background].added, flags[IrLabels].ir_background,
                    flags[LabelCrf].crf)
    label_one = partial(label_image, cams, folder, data_set, recipe)
    own = sum(map_images(label_one, distributed.shard(ids), flags[Run].num_workers, NAME), start=np.zeros(3, np.int64))
    counts = sum(distributed.gather(own))
    shares = dict(zip(("foreground", "background", "unknown"), (counts / max(counts.sum(), 1)).round(4).tolist()))
    log.info("%s: shares of pixels %s", NAME, shares)
    return {"images": len(ids), "pixel_shares": shares}


def label_image(cams: Path, folder: Path, data_set, recipe: Recipe, name: str) -> np.ndarray:
    """Write the IR label of one image if it is not there yet; counts of foreground, background and unknown pixels."""
    path = label_path(folder, name)
    if path.exists():
        label = read_mask(path, data_set.num_classes)
    else:
        label = make_label(cams, data_set, recipe, name)
        write_mask(path, label)
    background, unknown = int((label == 0).sum()), int((label == IGNORE).sum())
    return np.array([label.size - background - unknown, background, unknown])


def make_label(cams: Path, data_set, recipe: Recipe, name: str) -> np.ndarray:
    """The IR label of one image, (H, W) uint8."""
    image = read_image(data_set.image_path(name))
    cam, keys = read_final_cam(record_path(cams, name), data_set.num_classes, recipe.prototype_weight, recipe.offset,
                               image.shape[:2])
    return ir_label(image, cam.numpy(), keys, recipe.background_scale, recipe.crf)


if __name__ == "__main__":
    run_alone(sys.modules[__name__])
