"""Stage 9: predictions of the segmentation network, with and without a dense CRF, and their mIoU.

    python eval_deeplab.py --voc12_root VOCdevkit/VOC2012 --work_dir runs/sfc                         # val
    python eval_deeplab.py --voc12_root ... --work_dir runs/sfc --split test --zip runs/sfc/test.zip  # for the server
"""

import sys
from functools import partial
from pathlib import Path

from data.sample import InputError, label_path, read_image, write_mask
from frame import lists, scores
from frame.flags import Flags, build_parser, parse
from frame.presets import overrides
from frame.settings.common import Data, Run
from frame.settings.segmentation import SegEvalList, SegTest, ServerArchive
from frame.stage import run_alone
from refine.metrics import ConfusionMatrix
from refine.scored_maps import PREDICTION, PREDICTION_CRF
from runtime.command import exit_with_message
from segmentation.prediction import Prediction, Trained, label_maps
from segmentation.server_archive import write_test_archive

NAME = "eval_deeplab"
FOLDERS = {PREDICTION: "prediction", PREDICTION_CRF: "prediction_crf"}
OUTPUTS = tuple(FOLDERS.values())
OPTIONS = (Run, Data, SegEvalList, SegTest)


def select_ids(data_set, flags: Flags) -> list[str]:
    return lists.choose_ids(data_set, "--seg_eval_list", flags[SegEvalList].seg_eval_list, "val")


def run(flags: Flags, work_dir, data_set, ids: list[str]) -> dict:
    """Write prediction/ID.png and prediction_crf/ID.png of every image and score them."""
    path = work_dir.require("deeplab.pth", "train_deeplab")
    trained = Trained(path, flags[SegTest], flags[Run].device, flags[Run].num_workers)
    if trained.class_names != tuple(data_set.class_names):
        raise InputError(f"{path}: trained on other classes than those of the data set; check --work_dir and "
                         "--voc12_root")
    for folder in OUTPUTS if trained.test.crf else OUTPUTS[:1]:
        (work_dir / folder).mkdir(exist_ok=True)
    count = partial(count_image, work_dir.path, data_set, trained.test)
    total = scores.merged_over_processes(trained.map_predictions(count, ids, data_set.image_path, NAME))
    return {"seg_net": trained.design.seg_net} | scores.metrics(
        total, flags[SegEvalList].seg_eval_list or "val", ids, data_set.class_names)


def count_image(work_dir: Path, data_set, test: SegTest, prediction: Prediction) -> scores.Counts:
    """Write the masks of one image; their counts."""
    truth = data_set.read_mask(prediction.name, prediction.mask.shape)
    counts: scores.Counts = {}
    for kind, mask in label_maps(test, read_image(data_set.image_path(prediction.name)), prediction).items():
        write_mask(label_path(work_dir / FOLDERS[kind], prediction.name), mask)
        counts[kind] = ConfusionMatrix(data_set.num_classes + 1)
        counts[kind].update(mask, truth)
    return counts


def main() -> None:
    """Entry of the script: the stage, or the archive for the test server."""
    parser = build_parser([*OPTIONS, ServerArchive], __doc__.splitlines()[0])
    use = Flags(vars(parser.parse_known_args()[0]))[ServerArchive]
    if not (use.split or use.zip):
        return run_alone(sys.modules[__name__])
    exit_with_message(lambda: write_test_archive(parse(parser, overrides)))


if __name__ == "__main__":
    main()
