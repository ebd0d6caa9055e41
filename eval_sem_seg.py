"""Stage 7: mIoU of the pseudo masks.

    python eval_sem_seg.py --voc12_root VOCdevkit/VOC2012 --work_dir runs/sfc
"""

from functools import partial

from data.sample import InputError, image_size, read_mask
from frame import options
from refine.metrics import ConfusionMatrix
from refine.segmentation_scores import split_name, summary
from runtime import distributed
from runtime.parallel import map_images
from runtime.work_dir import log

NAME = "eval_sem_seg"
OUTPUTS = ()
OPTIONS = (options.RUN, options.DATA, options.EVAL_LIST)
select_ids = options.eval_ids
CHUNK = 32                          # images a process scores before it hands its counts back


def run(args, work_dir, data_set, ids) -> dict:
    """Score sem_seg/ID.png of every image of the list."""
    folder = work_dir.require("sem_seg", "make_sem_seg_labels")
    missing = [name for name in ids if not (folder / f"{name}.png").exists()]
    if missing:
        raise InputError(f"{folder / missing[0]}.png: pseudo mask is missing ({len(missing)} of {len(ids)}); run "
                         "make_sem_seg_labels.py with these images in --infer_list, or score others with --eval_list")
    chunks = distributed.shard(ids[i:i + CHUNK] for i in range(0, len(ids), CHUNK))
    own, confusion = ConfusionMatrix(data_set.num_classes + 1), ConfusionMatrix(data_set.num_classes + 1)
    for part in map_images(partial(score_masks, folder, data_set), chunks, args.num_workers, NAME, images_of=len):
        own.merge(part)
    for part in distributed.gather(own):
        confusion.merge(part)
    scores = summary(confusion, data_set.class_names)
    metrics = {"split": split_name(args, ids), "images": len(ids), "scores": {"pseudo mask": scores}}
    log.info("mIoU on %s\n  %-32s %6.2f", metrics["split"], "pseudo mask", scores["miou"])
    return metrics


def score_masks(folder, data_set, names: list[str]) -> ConfusionMatrix:
    """Counts of a few images."""
    confusion = ConfusionMatrix(data_set.num_classes + 1)
    for name in names:
        size = image_size(data_set.image_path(name))
        confusion.update(read_mask(folder / f"{name}.png", data_set.num_classes, size), data_set.read_mask(name, size))
    return confusion


if __name__ == "__main__":
    from run_sample import run_alone
    run_alone(NAME)
