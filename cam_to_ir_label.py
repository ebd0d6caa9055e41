"""Stage 4: two label-CRFs turn M_final into confident foreground, background and unknown pixels.

    python cam_to_ir_label.py --voc12_root VOCdevkit/VOC2012 --work_dir runs/sfc
"""

from functools import partial

import numpy as np

from data.cam_store import read_final_cam
from data.sample import IGNORE, read_image, read_mask, write_mask
from frame import options
from frame.options import background_offset, crf_options
from refine.crf import ir_label
from runtime import distributed
from runtime.command import non_negative
from runtime.parallel import map_images
from runtime.work_dir import log

NAME = "cam_to_ir_label"
OUTPUTS = ("ir_label",)
select_ids = options.infer_ids


def _label_options(group) -> None:
    group.add_argument("--ir_background", type=non_negative, default=0.5,
                       help="factor of the background channel in the second CRF, which decides what is background")


OPTIONS = (options.RUN, options.DATA, options.INFER_LIST, options.BACKGROUND, options.FINAL_IR, options.CRF,
           options.Group("IR labels", _label_options))


def run(args, work_dir, data_set, ids) -> dict:
    """Write ir_label/ID.png of every image. Returns the shares of foreground, background and unknown pixels."""
    cams = work_dir.require("cam", "make_cam")
    folder = work_dir / "ir_label"
    folder.mkdir(exist_ok=True)
    own = sum(map_images(partial(label_image, cams, folder, data_set, args), distributed.shard(ids), args.num_workers, NAME),
              start=np.zeros(3, np.int64))
    counts = sum(distributed.gather(own))
    shares = dict(zip(("foreground", "background", "unknown"), (counts / max(counts.sum(), 1)).round(4).tolist()))
    log.info("%s: shares of pixels %s", NAME, shares)
    return {"images": len(ids), "pixel_shares": shares}


def label_image(cams, folder, data_set, args, name: str) -> np.ndarray:
    """Write the IR label of one image if it is not there yet; counts of foreground, background and unknown pixels."""
    path = folder / f"{name}.png"
    if path.exists():
        label = read_mask(path, data_set.num_classes)
    else:
        label = make_label(cams, data_set, args, name)
        write_mask(path, label)
    background, unknown = int((label == 0).sum()), int((label == IGNORE).sum())
    return np.array([label.size - background - unknown, background, unknown])


def make_label(cams, data_set, args, name: str) -> np.ndarray:
    """The IR label of one image, (H, W) uint8."""
    image = read_image(data_set.image_path(name))
    cam, keys = read_final_cam(cams / f"{name}.npz", data_set.num_classes, args.ir_prototype_weight,
                               background_offset(args), image.shape[:2])
    return ir_label(image, cam.numpy(), keys, args.ir_background, **crf_options(args))


if __name__ == "__main__":
    from run_sample import run_alone
    run_alone(NAME)
