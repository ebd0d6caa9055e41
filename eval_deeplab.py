"""Stage 9: predictions of the segmentation network, with and without a dense CRF, and their mIoU.

    python eval_deeplab.py --voc12_root VOCdevkit/VOC2012 --work_dir runs/sfc                         # val
    python eval_deeplab.py --voc12_root ... --work_dir runs/sfc --split test --zip runs/sfc/test.zip  # for the server
    python eval_deeplab.py --work_dir runs/sfc --images FOLDER                                        # own images
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Callable, Iterator, NamedTuple

import imageio.v3 as imageio
import numpy as np
import torch

from data.loader import ScaledImages, image_loader
from data.sample import InputError, read_image, write_atomically, write_mask
from frame import network, options, segmentation_network
from frame.segmentation_network import add_own_option
from net.deeplabv2 import MultiScale, class_probabilities
from refine.crf import crf_inference_probs
from refine.metrics import ConfusionMatrix
from refine.segmentation_scores import summary
from report.pictures import overlay_mask
from runtime import distributed
from runtime.command import exit_with_message, flag, non_negative, number_list, positive_int
from runtime.parallel import map_images
from runtime.work_dir import WorkDir, log
from voc12.submission import COMPETITIONS, check_archive, write_archive

NAME = "eval_deeplab"
FOLDERS = {"prediction": "prediction", "prediction CRF": "prediction_crf"}
OUTPUTS = tuple(FOLDERS.values())
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

# What the flags left at None mean: the recipes of deeplab-pytorch and of SEAM's second stage.
DEFAULTS = {
    "deeplabv2_resnet101": {
        "seg_test_scales": [1.0, 0.5, 0.75], "seg_test_flip": False, "seg_crf_iterations": 10,
        "seg_crf_gaussian_sxy": 1.0, "seg_crf_gaussian_compat": 3.0,
        "seg_crf_bilateral_sxy": 67.0, "seg_crf_bilateral_srgb": 3.0, "seg_crf_bilateral_compat": 4.0},
    "deeplabv1_resnet38": {
        "seg_test_scales": [0.5, 0.75, 1.0, 1.25, 1.5, 1.75], "seg_test_flip": True, "seg_crf_iterations": 1,
        "seg_crf_gaussian_sxy": 3.0, "seg_crf_gaussian_compat": 3.0,
        "seg_crf_bilateral_sxy": 32.0, "seg_crf_bilateral_srgb": 13.0, "seg_crf_bilateral_compat": 10.0},
}


def _test_options(group) -> None:
    own = partial(add_own_option, group, DEFAULTS)
    group.add_argument("--seg_eval_list",
                       help="list of ids to predict and score, with masks; default val of the data set")
    own("seg_test_scales", "scales of the image; deeplabv2_resnet101 takes the maximum of the logits of these and 1, "
                           "deeplabv1_resnet38 the mean of the probabilities", type=number_list)
    own("seg_test_flip", "average with the mirrored image", action=argparse.BooleanOptionalAction)
    flag(group, "seg_crf", True, "refine the predictions with a dense CRF too")
    own("seg_crf_iterations", "mean-field iterations", type=positive_int)
    own("seg_crf_gaussian_sxy", "Gaussian term: pixels", type=non_negative)
    own("seg_crf_gaussian_compat", "Gaussian term: weight", type=non_negative)
    own("seg_crf_bilateral_sxy", "bilateral term: pixels", type=non_negative)
    own("seg_crf_bilateral_srgb", "bilateral term: grey levels", type=non_negative)
    own("seg_crf_bilateral_compat", "bilateral term: weight", type=non_negative)


def _other_uses(group) -> None:
    group.add_argument("--split", choices=("test",), help="predict this split, which has no masks, for the server")
    group.add_argument("--zip", help="archive for the VOC evaluation server, written with --split test")
    group.add_argument("--competition", choices=COMPETITIONS, default="comp6",
                       help="comp5: trained on VOC alone; comp6: on other data too, such as ImageNet")
    group.add_argument("--images", help="folder of images to predict; masks and overlays go to prediction_images")


OPTIONS = (options.RUN, options.DATA, options.Group("prediction and scores", _test_options))
OTHER_USES = options.Group("other uses", _other_uses)


def select_ids(data_set, args) -> list[str]:
    return options.choose_ids(data_set, "evaluation", args.seg_eval_list, "val")


def run(args, work_dir, data_set, ids) -> dict:
    """Write prediction/ID.png and prediction_crf/ID.png of every image and score them."""
    trained = Trained(args, work_dir)
    if trained.class_names != tuple(data_set.class_names):
        raise InputError(f"{work_dir / 'deeplab.pth'}: trained on other classes than those of the data set; "
                         "check --work_dir and --voc12_root")
    for folder in FOLDERS.values() if args.seg_crf else OUTPUTS[:1]:
        (work_dir / folder).mkdir(exist_ok=True)
    own, total = {}, {}
    score = partial(score_image, work_dir.path, data_set, trained.args)
    for part in trained.map_predictions(score, ids, data_set.image_path, NAME):
        merge_scores(own, part)
    for part in distributed.gather(own):
        merge_scores(total, part)
    metrics = {"split": f"{args.seg_eval_list or 'val'} ({len(ids)} images)", "images": len(ids),
               "seg_net": trained.design.seg_net,
               "scores": {name: summary(confusion, data_set.class_names) for name, confusion in total.items()}}
    log.info("mIoU on %s", metrics["split"])
    for name, scores in metrics["scores"].items():
        log.info("  %-32s %6.2f", name, scores["miou"])
    return metrics


def merge_scores(total: dict[str, ConfusionMatrix], part: dict[str, ConfusionMatrix]) -> None:
    """Add the counts of `part` to those of `total`, name by name."""
    for name, confusion in part.items():
        total.setdefault(name, ConfusionMatrix(confusion.num_classes)).merge(confusion)


# --- prediction -----------------------------------------------------------------------------------------------

class Prediction(NamedTuple):
    """name; mask (H, W) uint8 arg-max; probabilities (C+1, H, W) float32 for the CRF, None without one."""
    name: str
    mask: np.ndarray
    probabilities: np.ndarray | None


class Trained:
    """The network of deeplab.pth, ready to predict.

    args   the flags, with the network's own values where they were None
    """

    def __init__(self, args, work_dir: WorkDir):
        model, self.design, self.class_names = segmentation_network.load_trained(
            work_dir.require("deeplab.pth", "train_deeplab"))
        self.args = segmentation_network.with_defaults(args, DEFAULTS[self.design.seg_net])
        self.device = network.prepare_device(args.device)
        self.takes_maximum = self.design.seg_net == "deeplabv2_resnet101"
        if self.takes_maximum:
            model = MultiScale(model, tuple(scale for scale in self.args.seg_test_scales if scale != 1))
        self.model = model.to(self.device).eval()

    def map_predictions(self, function: Callable, ids: list[str], image_path: Callable, description: str) -> Iterator:
        """function(prediction) of every image that falls to this process; arguments as runtime.parallel.map_images."""
        own = distributed.shard(ids)
        return map_images(function, self.predictions(own, image_path), self.args.num_workers, description, total=len(own))

    def predictions(self, ids: list[str], image_path: Callable) -> Iterator[Prediction]:
        """The prediction of every image, at its original size. Raises InputError for one of a single pixel a side."""
        scales = (1.0,) if self.takes_maximum else tuple(self.args.seg_test_scales)
        loader = image_loader(ScaledImages(ids, image_path, scales), [[i] for i in range(len(ids))],
                              min(1, self.args.num_workers))
        for (index,), images, size in loader:
            if self.takes_maximum and min(size) * min(self.args.seg_test_scales) < 1:
                raise InputError(f"{image_path(ids[index])}: image of {size[1]}x{size[0]} pixels, of which scale "
                                 f"{min(self.args.seg_test_scales):g} leaves none; take it out")
            probabilities = self.class_probabilities(images, size)
            mask = probabilities.argmax(0).byte().cpu().numpy()
            yield Prediction(ids[index], mask, probabilities.cpu().numpy() if self.args.seg_crf else None)

    @torch.no_grad()
    def class_probabilities(self, images: list[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """Mean of the softmax over scales and mirror images.

        images   (1, 3, h, w) uint8 of every scale
        Returns (C+1, H, W) float32 at `size`.
        """
        mirrors = (False, True) if self.args.seg_test_flip else (False,)
        total = 0
        for image in images:
            pixels = segmentation_network.normalised(image.to(self.device), self.design)
            for mirrored in mirrors:
                logits = self.model(pixels.flip(3)).flip(3) if mirrored else self.model(pixels)
                # Corners aligned as the network itself up-samples: in SEAM's, not in deeplab-pytorch.
                total = total + class_probabilities(logits, size, align_corners=not self.takes_maximum)[0]
        return total / (len(images) * len(mirrors))


def label_maps(args, image_path: Callable, prediction: Prediction) -> dict[str, np.ndarray]:
    """The keys of FOLDERS -> mask (H, W) uint8: the prediction, and with --seg_crf what the CRF makes of it."""
    maps = {"prediction": prediction.mask}
    if args.seg_crf:
        refined = crf_inference_probs(
            read_image(image_path(prediction.name)), prediction.probabilities, iterations=args.seg_crf_iterations,
            gaussian_sxy=args.seg_crf_gaussian_sxy, gaussian_compat=args.seg_crf_gaussian_compat,
            bilateral_sxy=args.seg_crf_bilateral_sxy, bilateral_srgb=args.seg_crf_bilateral_srgb,
            bilateral_compat=args.seg_crf_bilateral_compat)
        maps["prediction CRF"] = refined.argmax(0).astype(np.uint8)
    return maps


def score_image(work_dir: Path, data_set, args, prediction: Prediction) -> dict[str, ConfusionMatrix]:
    """Write the masks of one image; their counts."""
    truth = data_set.read_mask(prediction.name, prediction.mask.shape)
    counts = {}
    for kind, mask in label_maps(args, data_set.image_path, prediction).items():
        write_mask(work_dir / FOLDERS[kind] / f"{prediction.name}.png", mask)
        counts[kind] = ConfusionMatrix(data_set.num_classes + 1)
        counts[kind].update(mask, truth)
    return counts


def final_mask(args, image_path: Callable, prediction: Prediction) -> np.ndarray:
    """(H, W) uint8: after the CRF if there is one."""
    return list(label_maps(args, image_path, prediction).values())[-1]


# --- the test server ------------------------------------------------------------------------------------------

def write_test_archive(args) -> None:
    """Predict the test split into prediction_test/ID.png, then write and check --zip."""
    if args.split != "test" or not args.zip:
        raise InputError("--split test and --zip FILE belong together; give both, or none to score val")
    work_dir, data_set = options.open_work_dir(args), options.open_data_set(args)
    if data_set.name != "voc12":
        raise InputError("--split test: only PASCAL VOC has this server; give --voc12_root")
    ids, _ = data_set.split("test")
    require_test_images(ids, data_set.image_path)
    trained = Trained(args, work_dir)
    folder = work_dir / "prediction_test"
    folder.mkdir(exist_ok=True)
    work = partial(write_final_mask, folder, data_set.image_path, trained.args)
    for _ in trained.map_predictions(work, ids, data_set.image_path, "test"):
        pass
    distributed.barrier()
    if distributed.is_main():
        write_archive(args.zip, folder, ids, args.competition)
        check_archive(args.zip, ids, args.competition, data_set.num_classes, data_set.image_path)
    log.info("%s: %d masks, checked; upload it as %s", args.zip, len(ids), args.competition)


def require_test_images(ids, image_path) -> None:
    missing = [name for name in ids if not image_path(name).exists()]
    if missing:
        raise InputError(f"{image_path(missing[0])}: image is missing ({len(missing)} of {len(ids)} of test); VOC has "
                         "the images of test in an archive of their own, VOC2012test.tar: unpack it over the data set")


def write_final_mask(folder: Path, image_path: Callable, args, prediction: Prediction) -> None:
    write_mask(folder / f"{prediction.name}.png", final_mask(args, image_path, prediction))


# --- own images -----------------------------------------------------------------------------------------------

def predict_folder(args) -> None:
    """Write prediction_images/mask/NAME.png and overlay/NAME.png of every image in --images; needs no data set."""
    work_dir = options.open_work_dir(args)
    paths = images_of(Path(args.images))
    trained = Trained(args, work_dir)
    folder = work_dir / "prediction_images"
    for kind in ("mask", "overlay"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    work = partial(write_pictures, folder, paths.get, trained.args)
    for _ in trained.map_predictions(work, list(paths), paths.get, "images"):
        pass
    names = "".join(f"{index} {name}\n" for index, name in enumerate(("background", *trained.class_names)))
    if distributed.is_main():
        write_atomically(folder / "classes.txt", lambda file: file.write(names.encode()))
    log.info("%s: masks and overlays of %d images; classes.txt names the indices", folder, len(paths))


def images_of(folder: Path) -> dict[str, Path]:
    """Name without suffix -> path of every image in a folder. Raises InputError when there is none, or a name twice."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; --images needs a folder of images")
    paths = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            if path.stem in paths:
                raise InputError(f"{path}: its mask would replace that of {paths[path.stem].name}; rename one of the "
                                 "two")
            paths[path.stem] = path
    if not paths:
        raise InputError(f"{folder}: no images in it ({', '.join(IMAGE_SUFFIXES)}); --images needs a folder of images")
    return paths


def write_pictures(folder: Path, image_path: Callable, args, prediction: Prediction) -> None:
    """Write mask and overlay of one image."""
    mask = final_mask(args, image_path, prediction)
    write_mask(folder / "mask" / f"{prediction.name}.png", mask)
    overlay = overlay_mask(read_image(image_path(prediction.name)), mask)
    write_atomically(folder / "overlay" / f"{prediction.name}.png",
                     lambda file: imageio.imwrite(file, overlay, extension=".png"))


def main() -> None:
    """Entry of the script: the stage, the archive for the test server, or one's own images."""
    parser = options.build_parser([*OPTIONS, OTHER_USES], __doc__.splitlines()[0])
    uses, _ = parser.parse_known_args()
    if uses.images:
        exit_with_message(lambda: predict_folder(options.parse(parser)))
    elif uses.split or uses.zip:
        exit_with_message(lambda: write_test_archive(options.parse(parser)))
    else:
        from run_sample import run_alone
        run_alone(NAME)


if __name__ == "__main__":
    main()
