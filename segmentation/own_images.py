"""Masks and overlays of a folder of images, by a trained segmentation network; needs no data set."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import imageio.v3 as imageio

from data.sample import InputError, label_path, read_image, write_atomically, write_mask, write_text
from frame.flags import Flags
from frame.settings.common import Run
from frame.settings.segmentation import OtherUses, SegTest
from frame.stage import open_work_dir
from report.pictures import overlay_mask
from runtime import distributed
from runtime.work_dir import log
from segmentation.prediction import Prediction, Trained, final_mask

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def predict_folder(flags: Flags) -> None:
    """Write prediction_images/mask/NAME.png and overlay/NAME.png of every image in --images."""
    work_dir = open_work_dir(flags[Run])
    paths = images_of(Path(flags[OtherUses].images))
    trained = Trained(work_dir.require("deeplab.pth", "train_deeplab"), flags[SegTest], flags[Run].device,
                      flags[Run].num_workers)
    folder = work_dir / "prediction_images"
    for kind in ("mask", "overlay"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    work = partial(write_pictures, folder, paths.get, trained.test)
    for _ in trained.map_predictions(work, list(paths), paths.get, "images"):
        pass
    names = "".join(f"{index} {name}\n" for index, name in enumerate(("background", *trained.class_names)))
    if distributed.is_main():
        write_text(folder / "classes.txt", names)
    log.info("%s: masks and overlays of %d images; classes.txt names the indices", folder, len(paths))


def images_of(folder: Path) -> dict[str, Path]:
    """Name without suffix -> path of every image in a folder. Raises InputError when there is none, or a name twice."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; --images needs a folder of images")
    paths: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            if path.stem in paths:
                raise InputError(f"{path}: its mask would replace that of {paths[path.stem].name}; rename one of the "
                                 "two")
            paths[path.stem] = path
    if not paths:
        raise InputError(f"{folder}: no images in it ({', '.join(IMAGE_SUFFIXES)}); --images needs a folder of images")
    return paths


def write_pictures(folder: Path, image_path: Callable, test: SegTest, prediction: Prediction) -> None:
    """Write mask and overlay of one image."""
    image = read_image(image_path(prediction.name))
    mask = final_mask(test, image, prediction)
    write_mask(label_path(folder / "mask", prediction.name), mask)
    write_atomically(label_path(folder / "overlay", prediction.name),
                     lambda file: imageio.imwrite(file, overlay_mask(image, mask), extension=".png"))
