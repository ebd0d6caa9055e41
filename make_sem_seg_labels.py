"""Stage 6: pseudo masks, by random walks along IRN's edge map or by the label-CRF alone.

    python make_sem_seg_labels.py --voc12_root VOCdevkit/VOC2012 --work_dir runs/sfc
    python make_sem_seg_labels.py --voc12_root ... --no-with_irn        # as the release does on COCO
"""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from data.cam_store import record_path
from data.loader import ScaledImages, image_loader
from data.sample import label_path, read_image, write_mask
from frame import lists, network
from frame.flags import Flags
from frame.settings.cams import Background, FinalIr, FinalMask, LabelCrf
from frame.settings.common import BackboneChoice, Data, InferList, Run
from frame.settings.irn import IrnCrop, MaskSource, RandomWalk
from frame.stage import run_alone
from net.irn import IRN
from refine.crf import CRF, crf_inference_label
from refine.fusion import read_final_cam
from refine.pseudo_mask import Walk, pseudo_mask
from runtime import device, distributed
from runtime.parallel import map_images

NAME = "make_sem_seg_labels"
OUTPUTS = ("sem_seg",)
OPTIONS = (Run, Data, InferList, BackboneChoice, IrnCrop, Background, FinalMask, FinalIr, LabelCrf, MaskSource, RandomWalk)
select_ids = lists.infer_ids


def run(flags: Flags, work_dir, data_set, ids: list[str]) -> dict:
    """Write sem_seg/ID.png of every image: class indices, palette PNG."""
    cams = work_dir.require("cam", "make_cam")
    folder = work_dir / "sem_seg"
    folder.mkdir(exist_ok=True)
    todo = [name for name in distributed.shard(ids) if not label_path(folder, name).exists()]
    offset, num_workers = flags[Background].added, flags[Run].num_workers
    if flags[MaskSource].with_irn:
        place = device.prepare_device(flags[Run].device)
        model = network.load_irn(flags[BackboneChoice].backbone, work_dir.require("irn.pth", "train_irn")).to(place).eval()
        jobs = predict_edges(model, todo, data_set, flags[IrnCrop].irn_crop_size, place, num_workers)
        read = partial(read_final_cam, num_classes=data_set.num_classes, offset=offset,
                       prototype_weight=flags[FinalMask].mask_prototype_weight)
        work = partial(walk_to_mask, cams, folder, read, model.stride, flags[RandomWalk].walk)
    else:
        jobs = todo
        read = partial(read_final_cam, num_classes=data_set.num_classes, offset=offset,
                       prototype_weight=flags[FinalIr].ir_prototype_weight)
        work = partial(refine_to_mask, cams, folder, read, data_set, flags[LabelCrf].crf)
    for _ in map_images(work, jobs, num_workers, NAME, total=len(todo)):
        pass
    return {"images": len(ids)}


@torch.no_grad()
def predict_edges(model: IRN, ids: list[str], data_set, pad_to: int, place: torch.device,
                  num_workers: int) -> Iterator[tuple[str, np.ndarray]]:
    """(id, edge map (1, h, w) float32) of every image."""
    loader = image_loader(ScaledImages(ids, data_set.image_path), [[i] for i in range(len(ids))], min(1, num_workers),
                          place.type == "cuda")
    for (index,), (image,), _ in loader:
        pixels = model.backbone.prepare(image.to(place))[0]
        yield ids[index], model.predict_edge(pixels, pad_to).cpu().numpy()


def walk_to_mask(cams: Path, folder: Path, read, stride: int, walk: Walk, job: tuple[str, np.ndarray]) -> None:
    """Write the pseudo mask of one image. job: its id and its edge map; read: refine.fusion.read_final_cam."""
    name, edge = job
    cam, keys = read(record_path(cams, name))
    write_mask(label_path(folder, name), keys[pseudo_mask(cam, edge, stride, walk)])


def refine_to_mask(cams: Path, folder: Path, read, data_set, crf: CRF, name: str) -> None:
    """Write the pseudo mask of one image without IRN."""
    image = read_image(data_set.image_path(name))
    cam, keys = read(record_path(cams, name), size=image.shape[:2])
    write_mask(label_path(folder, name), keys[crf_inference_label(image, cam.argmax(0).numpy(), len(keys), crf)])


if __name__ == "__main__":
    run_alone(sys.modules[__name__])
