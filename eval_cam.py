"""Stage 3: mIoU of M_W, M_P and M_final, after the background step and without it, and after the label-CRF.

    python eval_cam.py --voc12_root VOCdevkit/VOC2012 --work_dir runs/sfc
    python eval_cam.py --voc12_root ... --threshold_sweep --no-eval_crf
"""

import sys
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

from data.cam_store import read_record, record_path
from data.sample import image_size, read_image
from frame import lists, scores
from frame.flags import Flags
from frame.settings.cams import Background, CamScores, FinalIr, FinalMask, LabelCrf
from frame.settings.common import Data, EvalList, Run
from frame.stage import run_alone
from refine.crf import CRF, MeanField, crf_inference_label
from refine.fusion import final_cam, full_size_cams
from refine.metrics import ConfusionMatrix
from refine.scored_maps import FINAL_CAM_CRF, PLAIN, STEP, MapWeights, scored_maps
from refine.segmentation_scores import ThresholdSweep
from runtime.work_dir import log

NAME = "eval_cam"
OUTPUTS = ()
OPTIONS = (Run, Data, EvalList, Background, FinalIr, FinalMask, LabelCrf, CamScores)
select_ids = lists.eval_ids
CHUNK = 8                           # images a process scores before it hands its counts back


class Choice(NamedTuple):
    """What is scored.

    maps          name -> weights of M_W and M_P
    ir_weight     of M_P in the map that the CRF refines
    offset, step  of the background; `step` says whether the CRF sees it
    crf           None leaves that score out
    sweep         score every threshold too
    """
    maps: dict[str, MapWeights]
    ir_weight: float
    offset: float
    step: bool
    crf: CRF | None
    sweep: bool


def run(flags: Flags, work_dir, data_set, ids: list[str]) -> dict:
    """Score all maps in one pass over the CAM records."""
    folder = work_dir.require("cam", "make_cam")
    ir_weight, background = flags[FinalIr].ir_prototype_weight, flags[Background]
    choice = Choice(scored_maps(ir_weight, flags[FinalMask].mask_prototype_weight), ir_weight, background.offset,
                    background.step, flags[LabelCrf].crf if flags[CamScores].eval_crf else None,
                    flags[CamScores].threshold_sweep)
    count = partial(count_images, folder, data_set, choice)
    total = scores.total_counts(count, ids, CHUNK, flags[Run].num_workers, NAME)
    sweeps = {name: total.pop(name) for name in list(total) if isinstance(total[name], ThresholdSweep)}
    metrics = scores.metrics(total, flags[EvalList].eval_list or "train", ids, data_set.class_names)
    for (_, name), sweep in sweeps.items():
        curve = sweep.miou()
        threshold, best = max(curve, key=lambda point: point[1])
        metrics.setdefault("threshold_sweep", {})[name] = {
            "oracle_threshold": threshold, "oracle_miou": best, "curve": curve}
        log.info("  %-32s %6.2f (oracle threshold %.2f)", name, best, threshold)
    return metrics


def count_images(folder: Path, data_set, choice: Choice, names: list[str]) -> scores.Counts:
    """Counts of a few images: a confusion matrix a map, and ("sweep", map) -> ThresholdSweep."""
    counts: scores.Counts = {}

    def add(name, prediction) -> None:
        counts.setdefault(name, ConfusionMatrix(data_set.num_classes + 1)).update(prediction, truth)

    for name in names:
        size = image_size(data_set.image_path(name))
        record = read_record(record_path(folder, name), data_set.num_classes, size)
        truth = data_set.read_mask(name, size)
        plain, stepped = full_size_cams(record, None), full_size_cams(record, choice.offset)
        for (label, weights), (variant, cams) in product(choice.maps.items(), ((STEP, stepped), (PLAIN, plain))):
            add(label + variant, record.keys[weights.mix(*cams).argmax(0).numpy()])
            if choice.sweep and variant == PLAIN:
                sweep = counts.setdefault(("sweep", label), ThresholdSweep(data_set.num_classes))
                sweep.update(weights.mean(*cams).numpy(), record.keys, truth)
        if choice.crf:
            cam = final_cam(*(stepped if choice.step else plain), choice.ir_weight)
            field = MeanField(read_image(data_set.image_path(name)), len(cam), choice.crf)
            add(FINAL_CAM_CRF, record.keys[crf_inference_label(field, cam.argmax(0).numpy())])
    return counts


if __name__ == "__main__":
    run_alone(sys.modules[__name__])
