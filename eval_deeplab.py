"""Stage 9: predictions of the segmentation network, with and without a dense CRF, and their mIoU.

    python eval_deeplab.py --voc12_root VOCdevkit/VOC2012 --work_dir runs/sfc                         # val
    python eval_deeplab.py --voc12_root ... --work_dir runs/sfc --split test --zip runs/sfc/test.zip  # for the server
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np

from data.sample import InputError, label_path, read_image, read_mask, write_mask
from frame import lists, scores
from frame.flags import Flags, build_parser, parse
from frame.presets import overrides
from frame.settings.common import Data, Run
from frame.settings.segmentation import SegEvalList, SegTest, ServerArchive
from frame.stage import run_alone
from refine.metrics import ConfusionMatrix
from refine.scored_maps import PREDICTION, PREDICTION_CRF
from runtime import distributed
from runtime.command import exit_with_message
from segmentation.prediction import Prediction, Trained, label_maps
from segmentation.server_archive import write_test_archive

NAME = "eval_deeplab"
FOLDERS = {PREDICTION: "prediction", PREDICTION_CRF: "prediction_crf"}
OUTPUTS = tuple(FOLDERS.values())
OPTIONS = (Run, Data, SegEvalList, SegTest)
CHUNK = 16                         # masks that a process counts at a time


def select_ids(data_set, flags: Flags) -> list[str]:
    return lists.choose_ids(data_set, "--seg_eval_list", flags[SegEvalList].seg_eval_list, "val")


def run(flags: Flags, work_dir, data_set, ids: list[str]) -> dict:
    """Write prediction/ID.png and prediction_crf/ID.png of every image and score them."""
    path = work_dir.require("deeplab.pth", "train_deeplab")
    trained = Trained(path, flags[SegTest], flags[Run].device, flags[Run].num_workers)
    if trained.class_names != tuple(data_set.class_names):
        raise InputError(f"{path}: trained on other classes than those of the data set; check --work_dir and "
                         "--voc12_root")
    folders = {kind: work_dir / folder for kind, folder in FOLDERS.items() if trained.test.crf or kind == PREDICTION}
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
    done = set(distributed.from_main(lambda: written(folders, ids)))
    missing = [name for name in ids if name not in done]
    count = partial(count_image, folders, data_set, trained.test)
    new = scores.merged_over_processes(trained.map_predictions(count, missing, data_set.image_path, NAME))
    old = scores.total_counts(partial(count_written, folders, data_set), sorted(done), CHUNK, flags[Run].num_workers,
                              f"{NAME}, written before") if done else {}
    total = scores.merged([new, old])
    return {"seg_net": trained.design.seg_net} | scores.metrics(
        total, flags[SegEvalList].seg_eval_list or "val", ids, data_set.class_names)


def written(folders: dict[str, Path], ids: list[str]) -> list[str]:
    """The images that have all their masks, from before an interruption."""
    return [name for name in ids if all(label_path(folder, name).exists() for folder in folders.values())]


def count_image(folders: dict[str, Path], data_set, test: SegTest, prediction: Prediction) -> scores.Counts:
    """Write the masks of one image; their counts."""
    masks = label_maps(test, read_image(data_set.image_path(prediction.name)), prediction)
    for kind, mask in masks.items():
        write_mask(label_path(folders[kind], prediction.name), mask)
    return counts_of(masks, data_set, prediction.name)


def count_written(folders: dict[str, Path], data_set, names: list[str]) -> scores.Counts:
    """Counts of masks that are there."""
    masks = ({kind: read_mask(label_path(folder, name), data_set.num_classes) for kind, folder in folders.items()}
             for name in names)
    return scores.merged(counts_of(of_image, data_set, name) for name, of_image in zip(names, masks))


def counts_of(masks: dict[str, np.ndarray], data_set, name: str) -> scores.Counts:
    """Counts of the masks of an image, by kind."""
    truth = data_set.read_mask(name, masks[PREDICTION].shape)
    counts: scores.Counts = {}
    for kind, mask in masks.items():
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
