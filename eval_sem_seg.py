"""Stage 7: mIoU of the pseudo masks.

    python eval_sem_seg.py --voc12_root VOCdevkit/VOC2012 --work_dir runs/sfc
"""

import sys
from functools import partial
from pathlib import Path

from data.sample import image_size, label_path, read_mask
from frame import lists, scores
from frame.flags import Flags
from frame.settings.common import Data, EvalList, Run
from frame.stage import run_alone
from refine.metrics import ConfusionMatrix, as_prediction
from refine.scored_maps import PSEUDO_MASK

NAME = "eval_sem_seg"
OUTPUTS = ()
OPTIONS = (Run, Data, EvalList)
select_ids = lists.eval_ids
CHUNK = 32                          # images a process scores before it hands its counts back


def run(flags: Flags, work_dir, data_set, ids: list[str]) -> dict:
    """Score sem_seg/ID.png of every image of the list."""
    folder = work_dir.require("sem_seg", "make_sem_seg_labels")
    lists.require_files(ids, partial(label_path, folder), "pseudo mask", "run make_sem_seg_labels.py with these images "
                        "in --infer_list, or score others with --eval_list")
    total = scores.total_counts(partial(count_masks, folder, data_set), ids, CHUNK, flags[Run].num_workers, NAME)
    return scores.metrics(total, flags[EvalList].eval_list or "train", ids, data_set.class_names)


def count_masks(folder: Path, data_set, names: list[str]) -> scores.Counts:
    """Counts of a few images."""
    confusion = ConfusionMatrix(data_set.num_classes + 1)
    for name in names:
        size = image_size(data_set.image_path(name))
        mask = read_mask(label_path(folder, name), data_set.num_classes, size)
        confusion.update(as_prediction(mask), data_set.read_mask(name, size))
    return {PSEUDO_MASK: confusion}


if __name__ == "__main__":
    run_alone(sys.modules[__name__])
