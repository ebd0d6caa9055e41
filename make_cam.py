"""Stage 2: M_W and M_P of every image at several scales, stored as small records.

    python make_cam.py --voc12_root VOCdevkit/VOC2012 --work_dir runs/sfc
    python make_cam.py --voc12_root ... --work_dir runs/authors --checkpoint best.pth      # a released checkpoint
"""

import sys
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from data.cam_store import expected_bytes, present_maps, record_path, write_record
from data.loader import ScaledImages, image_loader, same_size_batches
from data.sample import image_size
from frame import lists, network
from frame.flags import Flags
from frame.settings.cams import Inference, Network, Selection
from frame.settings.common import BackboneChoice, Data, Hardware, InferList, Run
from frame.stage import run_alone
from runtime import device, distributed, interrupt
from runtime.progress import progress
from runtime.work_dir import log

NAME = "make_cam"
OUTPUTS = ("cam",)
OPTIONS = (Run, Hardware, Data, InferList, BackboneChoice, Network, Selection, Inference)
select_ids = lists.infer_ids


def run(flags: Flags, work_dir, data_set, ids: list[str]) -> dict:
    """Write cam/ID.npz of every image. Returns the number of images and their mean size in KB."""
    settings, hardware = flags[Inference], flags[Hardware]
    compute = device.prepare(flags[Run].device, hardware.amp)
    checkpoint = settings.checkpoint or work_dir.require(flags[Selection].result, "train_sfc")
    model = network.load_sfc(flags[Network], flags[BackboneChoice].backbone, data_set.num_classes, checkpoint)
    device.lay_out(model.backbone, hardware.channels_last, hardware.compile, sizes_vary=True)
    model.to(compute.device).eval()
    labels = torch.from_numpy(data_set.image_labels(ids))
    folder = work_dir / "cam"
    folder.mkdir(exist_ok=True)

    # The batches depend on the whole list alone, so that a continued run computes what an uninterrupted one does.
    missing = {index for index, name in enumerate(ids) if not record_path(folder, name).exists()}
    batches = distributed.lazy_shard(same_size_batches(ids, data_set.image_path, settings.cam_batch_size))
    batches = (batch for batch in batches if missing & set(batch))
    first_size, mean_classes = image_size(data_set.image_path(ids[0])), float(labels.sum(1).float().mean())
    work_dir.need_space(
        len(missing) * expected_bytes(first_size, mean_classes, settings.scales, model.backbone.stride), "CAM records")
    loader = image_loader(ScaledImages(ids, data_set.image_path, settings.scales), batches, flags[Run].num_workers,
                          compute.device.type == "cuda")
    bar = progress(total=-(-len(missing) // distributed.world()), desc=NAME, unit="image")
    with torch.no_grad(), ThreadPoolExecutor(2) as writers, bar:
        pending: list[Future] = []
        for indices, scaled, size in loader:
            maps = network.infer(model, compute, scaled, labels[indices], settings.mask_cam)
            for row, index in enumerate(indices):
                of_image = [(output.weight_cam[row], output.prototype_cam[row]) for output in maps]
                record, path = present_maps(of_image, labels[index], size), record_path(folder, ids[index])
                pending.append(writers.submit(write_record, path, record, data_set.num_classes))
            while len(pending) > 4 * settings.cam_batch_size:
                pending.pop(0).result()
            bar.update(len(missing & set(indices)))
            interrupt.check()
        for job in pending:
            job.result()
    distributed.barrier()
    kilobytes = sum(record_path(folder, name).stat().st_size for name in ids) / len(ids) / 1024
    log.info("%s: %d records, %.1f KB an image", NAME, len(ids), kilobytes)
    return {"images": len(ids), "kilobytes_per_image": round(kilobytes, 2)}


if __name__ == "__main__":
    run_alone(sys.modules[__name__])
