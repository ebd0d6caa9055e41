"""Stage 6: random walks along the edge map spread M_final into pseudo masks.

    python make_sem_seg_labels.py --voc12_root VOCdevkit/VOC2012 --work_dir runs/sfc
"""

import sys
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from data.cam_store import final_cam, full_size_cams, read_record
from data.loader import ScaledImages, image_loader
from data.sample import write_mask
from data.transforms import normalise
from tools import network, options
from tools.options import flag, non_negative, positive_int
from tools.parallel import map_images
from tools.random_walk import propagate

NAME = "make_sem_seg_labels"
OUTPUTS = ("sem_seg",)
select_ids = options.infer_ids


def _walk_options(group) -> None:
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
           options.Group("random walk", _walk_options))


def run(args, work_dir, data_set, ids) -> dict:
    """Write sem_seg/ID.png of every image: class indices, palette PNG."""
    cams = work_dir.require("cam", "make_cam")
    device = network.prepare_device(args.device)
    model = network.load_irn(args, work_dir.require("irn.pth", "train_irn")).to(device).eval()
    folder = work_dir / "sem_seg"
    folder.mkdir(exist_ok=True)
    todo = [i for i, name in enumerate(ids) if not (folder / f"{name}.png").exists()]
    loader = image_loader(ScaledImages(ids, data_set.image_path), [[i] for i in todo], min(1, args.num_workers))
    jobs = ((ids[index], edge) for index, edge in predict_edges(model, loader, device, args.irn_crop_size))
    work = partial(write_pseudo_mask, cams, folder, data_set.num_classes, args, model.stride)
    for _ in map_images(work, jobs, args.num_workers, NAME, total=len(todo)):
        pass
    return {"images": len(ids)}


@torch.no_grad()
def predict_edges(model, loader, device, pad_to: int):
    """Yield (position, edge map (1, h, w) float32) of every image."""
    for (index,), (image,), _ in loader:
        pixels = normalise(image.to(device), model.backbone.mean, model.backbone.std)[0]
        yield index, model.predict_edge(pixels, pad_to).cpu().numpy()


def write_pseudo_mask(cams, folder, num_classes: int, args, stride: int, job: tuple[str, np.ndarray]) -> None:
    """Write the pseudo mask of one image; job: its id and its edge map."""
    name, edge = job
    record = read_record(cams / f"{name}.npz", num_classes)
    maps = full_size_cams(record, args.background_offset if args.background_step else None)
    cam = final_cam(*maps, args.mask_prototype_weight)
    write_mask(folder / f"{name}.png", record.keys[pseudo_mask(cam, edge, stride, args)])


def pseudo_mask(cam: torch.Tensor, edge: np.ndarray, stride: int, args) -> np.ndarray:
    """Arg-max of the walked CAM.

    cam     (K+1, H, W) M_final at full size, background first
    edge    (1, h, w) edge probability
    stride  pixels a cell of the edge map covers
    Returns (H, W) channel indices.
    """
    size = cam.shape[1:]
    small = F.interpolate(cam[None], edge.shape[1:], mode="bilinear", align_corners=False)[0].numpy()
    start = small[1:] ** args.walk_power
    if args.walk_all_channels:
        start = np.concatenate([start, small ** args.walk_all_power])     # one matrix walks both
    walked = propagate(start, edge, args.walk_beta, args.walk_exp, args.walk_radius)
    walked = F.interpolate(torch.from_numpy(walked)[None], scale_factor=stride, mode="bilinear",
                           align_corners=False)[0, :, :size[0], :size[1]]
    foreground = walked[:len(small) - 1]
    scores = F.pad(foreground / foreground.max().clamp(min=1e-5), (0, 0, 0, 0, 1, 0), value=args.walk_background)
    if args.walk_all_channels:
        scores = scores + walked[len(small) - 1:]
    return scores.argmax(0).numpy()


if __name__ == "__main__":
    options.main(sys.modules[__name__])
