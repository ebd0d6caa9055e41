"""Stage 6: pseudo masks, by random walks along IRN's edge map; without IRN the IR labels, or the label-CRF's.

    python make_sem_seg_labels.py --voc12_root VOCdevkit/VOC2012 --work_dir runs/sfc
    python make_sem_seg_labels.py --voc12_root ... --no-with_irn                # IR labels, as the release on COCO
    python make_sem_seg_labels.py --voc12_root ... --no-with_irn --crf_masks    # every pixel has a class
"""

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from data.cam_store import record_path
from data.loader import ScaledImages, image_loader, upload
from data.sample import image_size, label_path, read_image, read_mask, write_mask
from frame import lists, network
from frame.flags import Flags
from frame.settings.cams import Background, FinalIr, FinalMask, LabelCrf
from frame.settings.common import BackboneChoice, Data, InferList, Run
from frame.settings.irn import IrnCrop, MaskSource, RandomWalk
from frame.stage import run_alone
from net.irn import IRN
from refine.crf import CRF, MeanField, crf_inference_label
from refine.fusion import read_final_cam
from refine.pseudo_mask import Walk, pseudo_mask
from runtime import device, distributed
from runtime.parallel import map_images

NAME = "make_sem_seg_labels"
OUTPUTS = ("sem_seg",)
OPTIONS = (Run, Data, InferList, BackboneChoice, IrnCrop, Background, FinalMask, FinalIr, LabelCrf, MaskSource,
           RandomWalk)
select_ids = lists.infer_ids


def run(flags: Flags, work_dir, data_set, ids: list[str]) -> dict:
    """Write sem_seg/ID.png of every image: class indices, palette PNG."""
    folder = work_dir / "sem_seg"
    todo = [name for name in distributed.shard(ids) if not label_path(folder, name).exists()]
    source = flags[MaskSource]
    prepare = walks if source.with_irn else crf_masks if source.crf_masks else ir_labels
    work, jobs = prepare(flags, work_dir, data_set, todo)
    folder.mkdir(exist_ok=True)
    for _ in map_images(partial(work, folder), jobs, flags[Run].num_workers, NAME, total=len(todo)):
        pass
    return {"images": len(ids)}


# --- what makes a mask of a job, and the jobs -------------------------------------------------------------------

def walks(flags: Flags, work_dir, data_set, todo: list[str]):
    """Random walks along IRN's edges, which this process predicts."""
    cams = work_dir.require("cam", "make_cam")
    place = device.prepare_device(flags[Run].device)
    model = network.load_irn(flags[BackboneChoice].backbone, work_dir.require("irn.pth", "train_irn")).to(place).eval()
    read = partial(read_final_cam, num_classes=data_set.num_classes, offset=flags[Background].added,
                   prototype_weight=flags[FinalMask].mask_prototype_weight)
    edges = predict_edges(model, todo, data_set, flags[IrnCrop].irn_crop_size, place, flags[Run].num_workers)
    return partial(walk_to_mask, cams, read, model.stride, flags[RandomWalk].walk), edges


def crf_masks(flags: Flags, work_dir, data_set, todo: list[str]):
    """The label-CRF on the IR labels' M_final."""
    read = partial(read_final_cam, num_classes=data_set.num_classes, offset=flags[Background].added,
                   prototype_weight=flags[FinalIr].ir_prototype_weight)
    return partial(refine_to_mask, work_dir.require("cam", "make_cam"), read, data_set, flags[LabelCrf].crf), todo


def ir_labels(flags: Flags, work_dir, data_set, todo: list[str]):
    """The IR labels, unknown pixels included."""
    labels = work_dir.require("ir_label", "cam_to_ir_label")
    lists.require_files(todo, partial(label_path, labels), "IR label",
                        "run cam_to_ir_label.py with the same --infer_list")
    return partial(copy_label, labels, data_set), todo


@torch.no_grad()
def predict_edges(model: IRN, ids: list[str], data_set, pad_to: int, place: torch.device,
                  num_workers: int) -> Iterator[tuple[str, np.ndarray]]:
    """(id, edge map (1, h, w) float32) of every image."""
    loader = image_loader(ScaledImages(ids, data_set.image_path), [[i] for i in range(len(ids))], min(1, num_workers),
                          place.type == "cuda")
    for (index,), (image,), _ in loader:
        pixels = model.backbone.prepare(upload(image, place))[0]
        yield ids[index], model.predict_edge(pixels, pad_to).cpu().numpy()


def walk_to_mask(cams: Path, read, stride: int, walk: Walk, folder: Path, job: tuple[str, np.ndarray]) -> None:
    """Write the pseudo mask of one image. job: its id and its edge map; read: refine.fusion.read_final_cam."""
    name, edge = job
    cam, keys = read(record_path(cams, name))
    write_mask(label_path(folder, name), keys[pseudo_mask(cam, edge, stride, walk)])


def copy_label(labels: Path, data_set, folder: Path, name: str) -> None:
    """The IR label of one image is its mask."""
    label = read_mask(label_path(labels, name), data_set.num_classes, image_size(data_set.image_path(name)))
    write_mask(label_path(folder, name), label)


def refine_to_mask(cams: Path, read, data_set, crf: CRF, folder: Path, name: str) -> None:
    """Write the pseudo mask of one image by the label-CRF alone."""
    image = read_image(data_set.image_path(name))
    cam, keys = read(record_path(cams, name), size=image.shape[:2])
    refined = crf_inference_label(MeanField(image, len(keys), crf), cam.argmax(0).numpy())
    write_mask(label_path(folder, name), keys[refined])


if __name__ == "__main__":
    run_alone(sys.modules[__name__])
