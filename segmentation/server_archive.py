"""Predictions of a test split without masks, as the archive that an evaluation server takes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from data.sample import InputError, label_path, read_image, write_mask
from frame import lists
from frame.data_sets import open_data_set
from frame.flags import Flags
from frame.settings.common import Data, Run
from frame.settings.segmentation import SegTest, ServerArchive
from frame.stage import open_work_dir
from runtime import distributed
from runtime.command import require_place
from runtime.work_dir import log
from segmentation.prediction import Prediction, Trained, final_mask
from voc12.submission import check_archive, write_archive


def write_test_archive(flags: Flags) -> None:
    """Predict the test split into prediction_test/ID.png, then write and check --zip."""
    use = flags[ServerArchive]
    if use.split != "test" or not use.zip:
        raise InputError("--split test and --zip FILE belong together; give both, or none to score val")
    require_place(use.zip, "--zip")
    work_dir, data_set = open_work_dir(flags[Run]), open_data_set(flags[Data])
    if not data_set.test_server:
        raise InputError("--split test: only PASCAL VOC has this server; give --voc12_root")
    ids, _ = data_set.split("test")
    lists.require_files(ids, data_set.image_path, "image", "VOC has the images of test in an archive of their own, "
                        "VOC2012test.tar: unpack it over the data set")
    trained = Trained(work_dir.require("deeplab.pth", "train_deeplab"), flags[SegTest], flags[Run].device,
                      flags[Run].num_workers)
    folder = work_dir / "prediction_test"
    folder.mkdir(exist_ok=True)
    work = partial(write_final_mask, folder, data_set.image_path, trained.test)
    for _ in trained.map_predictions(work, ids, data_set.image_path, "test"):
        pass
    distributed.barrier()
    if distributed.is_main():
        write_archive(use.zip, folder, ids, use.competition)
        check_archive(use.zip, ids, use.competition, data_set.num_classes, data_set.image_path)
    log.info("%s: %d masks, checked; upload it as %s", use.zip, len(ids), use.competition)


def write_final_mask(folder: Path, image_path: Callable, test: SegTest, prediction: Prediction) -> None:
    mask = final_mask(test, read_image(image_path(prediction.name)), prediction)
    write_mask(label_path(folder, prediction.name), mask)
