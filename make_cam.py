"""Stage 2: M_W and M_P of every image at several scales, stored as small records.

    python make_cam.py --voc12_root VOCdevkit/VOC2012 --work_dir runs/sfc
    python make_cam.py --voc12_root ... --work_dir runs/authors --checkpoint best.pth      # a released checkpoint
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch

from data.cam_store import present_maps, write_record
from data.loader import ScaledImages, image_loader, same_size_batches
from data.sample import image_size
from data.transforms import normalise
from frame import network, options
from runtime import distributed, interrupt
from runtime.command import flag, number_list, positive_int
from runtime.progress import progress
from runtime.work_dir import log

NAME = "make_cam"
OUTPUTS = ("cam",)
select_ids = options.infer_ids


def _inference_options(group) -> None:
    group.add_argument("--checkpoint", help="trained SFC network, ours or the authors'; default sfc.pth of the run")
    group.add_argument("--scales", type=number_list, default="1.0,0.5,1.5,2.0", help="image scales, each with its mirror image")
    flag(group, "mask_cam", False, "set absent classes to 0 before PCM, as in training (release: not at inference)")
    group.add_argument("--cam_batch_size", type=positive_int, default=8, help="images of equal size at a time")


OPTIONS = (options.RUN, options.HARDWARE, options.DATA, options.INFER_LIST, options.BACKBONE, options.NETWORK,
           options.Group("inference", _inference_options))


def run(args, work_dir, data_set, ids) -> dict:
    """Write cam/ID.npz of every image. Returns the number of images and their mean size in KB."""
    device = network.prepare_device(args.device)
    precision = network.autocast(args, device)
    checkpoint = args.checkpoint or work_dir.require("sfc.pth", "train_sfc")
    model = network.load_sfc(args, data_set.num_classes, checkpoint).to(device).eval()
    network.lay_out(model.backbone, args)
    labels = torch.from_numpy(data_set.image_labels(ids))
    folder = work_dir / "cam"
    folder.mkdir(exist_ok=True)

    # The batches depend on the whole list alone, so that a continued run computes what an uninterrupted one does.
    missing = {index for index, name in enumerate(ids) if not (folder / f"{name}.npz").exists()}
    batches = distributed.lazy_shard(same_size_batches(ids, data_set.image_path, args.cam_batch_size))
    batches = (batch for batch in batches if missing & set(batch))
    work_dir.need_space(len(missing) * record_bytes(data_set, ids, labels, args.scales, model.backbone.stride), "CAM records")
    loader = image_loader(ScaledImages(ids, data_set.image_path, args.scales), batches, args.num_workers)
    bar = progress(total=-(-len(missing) // distributed.world()), desc=NAME, unit="image")
    with torch.no_grad(), ThreadPoolExecutor(2) as writers, bar:
        pending = []
        for indices, scaled, size in loader:
            with precision:
                maps = [infer(model, images.to(device, non_blocking=True), labels[indices].to(device), args.mask_cam)
                        for images in scaled]
            for row, index in enumerate(indices):
                record = present_maps([(weight[row], prototype[row]) for weight, prototype in maps], labels[index], size)
                pending.append(writers.submit(
                    partial(write_record, folder / f"{ids[index]}.npz", record, data_set.num_classes)))
            while len(pending) > 4 * args.cam_batch_size:
                pending.pop(0).result()
            bar.update(len(missing & set(indices)))
            interrupt.check()
        for job in pending:
            job.result()
    distributed.barrier()
    kilobytes = sum((folder / f"{name}.npz").stat().st_size for name in ids) / len(ids) / 1024
    log.info("%s: %d records, %.1f KB an image", NAME, len(ids), kilobytes)
    return {"images": len(ids), "kilobytes_per_image": round(kilobytes, 2)}


def record_bytes(data_set, ids, labels, scales, stride: int) -> float:
    """Bytes of a record, from the size of the first image and the mean number of classes; compression takes some off."""
    height, width = image_size(data_set.image_path(ids[0]))
    cells = sum(height * width * scale ** 2 / stride ** 2 for scale in scales)
    return 2 * 2 * cells * (1 + float(labels.sum(1).float().mean())) + 2000             # two maps of uint16


def infer(model, images: torch.Tensor, labels: torch.Tensor, mask_cam: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 images (N, 3, H, W) of one scale -> M_W and M_P (N, C+1, h, w), float32 on the host."""
    output = model.infer(normalise(images, model.backbone.mean, model.backbone.std), labels, mask_cam)
    return output.weight_cam.cpu(), output.prototype_cam.cpu()


if __name__ == "__main__":
    from run_sample import run_alone
    run_alone(NAME)
