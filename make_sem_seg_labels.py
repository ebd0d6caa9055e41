"""Stage 6: pseudo masks, by random walks along IRN's edge map or by the label-CRF alone.

    python make_sem_seg_labels.py --voc12_root VOCdevkit/VOC2012 --work_dir runs/sfc
    python make_sem_seg_labels.py --voc12_root ... --no-with_irn        # as the release does on COCO
"""

from functools import partial

import numpy as np
import torch

from data.cam_store import read_final_cam
from data.loader import ScaledImages, image_loader
from data.sample import read_image, write_mask
from data.transforms import normalise
from frame import network, options
from frame.options import background_offset, crf_options
from refine.crf import crf_inference_label
from refine.pseudo_mask import Walk, pseudo_mask
from runtime import distributed
from runtime.command import flag, non_negative, positive_int
from runtime.parallel import map_images

NAME = "make_sem_seg_labels"
OUTPUTS = ("sem_seg",)
select_ids = options.infer_ids


def _walk_options(group) -> None:
    flag(group, "with_irn", True, "random walk along IRN's edges (coco14: off by default); without it the masks are the "
                                  "arg-max of the IR labels' M_final after the label-CRF")
    group.add_argument("--walk_beta", type=non_negative, default=10.0, help="exponent of the affinity along edges")
    group.add_argument("--walk_exp", type=int, default=8, help="the transition matrix is applied 2^this times")
    group.add_argument("--walk_radius", type=positive_int, default=5, help="reach of one step in cells of 4 pixels")
    group.add_argument("--walk_power", type=non_negative, default=1.3,
                       help="exponent of the foreground CAM before the walk (release; IRN 1)")
    group.add_argument("--walk_background", type=non_negative, default=0.25,
                       help="background of the walked foreground, whose maximum is 1")
    flag(group, "walk_all_channels", True, "add a walk of all channels, the CAM's own background among them (release)")
    group.add_argument("--walk_all_power", type=non_negative, default=1.69, help="exponent of the CAM before that walk")


OPTIONS = (options.RUN, options.DATA, options.INFER_LIST, options.BACKBONE, options.IRN_CROP, options.BACKGROUND, options.FINAL_MASK,
           options.FINAL_IR, options.CRF, options.Group("pseudo masks", _walk_options))


def run(args, work_dir, data_set, ids) -> dict:
    """Write sem_seg/ID.png of every image: class indices, palette PNG."""
    cams = work_dir.require("cam", "make_cam")
    folder = work_dir / "sem_seg"
    folder.mkdir(exist_ok=True)
    todo = [name for name in distributed.shard(ids) if not (folder / f"{name}.png").exists()]
    if args.with_irn:
        device = network.prepare_device(args.device)
        model = network.load_irn(args, work_dir.require("irn.pth", "train_irn")).to(device).eval()
        jobs = predict_edges(model, todo, data_set, device, args)
        work = partial(walk_to_mask, cams, folder, data_set.num_classes, args, model.stride)
    else:
        jobs, work = todo, partial(refine_to_mask, cams, folder, data_set, args)
    for _ in map_images(work, jobs, args.num_workers, NAME, total=len(todo)):
        pass
    return {"images": len(ids)}


@torch.no_grad()
def predict_edges(model, ids, data_set, device, args):
    """Yield (id, edge map (1, h, w) float32) of every image."""
    loader = image_loader(ScaledImages(ids, data_set.image_path), [[i] for i in range(len(ids))], min(1, args.num_workers))
    for (index,), (image,), _ in loader:
        pixels = normalise(image.to(device), model.backbone.mean, model.backbone.std)[0]
        yield ids[index], model.predict_edge(pixels, args.irn_crop_size).cpu().numpy()


def walk_to_mask(cams, folder, num_classes: int, args, stride: int, job: tuple[str, np.ndarray]) -> None:
    """Write the pseudo mask of one image; job: its id and its edge map."""
    name, edge = job
    cam, keys = read_final_cam(cams / f"{name}.npz", num_classes, args.mask_prototype_weight, background_offset(args))
    write_mask(folder / f"{name}.png", keys[pseudo_mask(cam, edge, stride, walk_settings(args))])


def refine_to_mask(cams, folder, data_set, args, name: str) -> None:
    """Write the pseudo mask of one image without IRN."""
    image = read_image(data_set.image_path(name))
    cam, keys = read_final_cam(cams / f"{name}.npz", data_set.num_classes, args.ir_prototype_weight,
                               background_offset(args), image.shape[:2])
    refined = crf_inference_label(image, cam.argmax(0).numpy(), len(keys), **crf_options(args))
    write_mask(folder / f"{name}.png", keys[refined])


def walk_settings(args) -> Walk:
    """The flags of the walks as settings of refine.pseudo_mask."""
    return Walk(args.walk_beta, args.walk_exp, args.walk_radius, args.walk_power, args.walk_background,
                args.walk_all_channels, args.walk_all_power)


if __name__ == "__main__":
    from run_sample import run_alone
    run_alone(NAME)
