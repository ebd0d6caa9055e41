"""Command-line options that stages share, the presets, and the frame every stage script runs in.

A stage script lists the option groups it uses; run_sample.py takes the union. What a stage's result
depends on is then exactly the values of its groups, without those that only say where and how fast.
"""

import argparse
import time
import zlib
from typing import Callable, NamedTuple

import numpy as np
import torch

from coco14.coco import Coco14
from data.sample import InputError, read_list
from net.backbone import BACKBONES
from runtime import distributed, progress
from runtime.command import default_workers, flag, non_negative, positive_int
from runtime.work_dir import WorkDir, log
from voc12.voc import Voc12

# Options that change where or how fast, never what.
NOT_SETTINGS = {"work_dir", "preset", "num_workers", "device", "overwrite", "quiet", "train_list", "infer_list", "eval_list",
                "seg_eval_list"}

# What differs from `released`. Sources: paper equations, see docs/FIDELITY.md.
PRESETS = {
    "released": {},
    "paper": {
        "pcm_steps": 1, "seed_mode": "threshold", "cls_half": False, "dw_p_weight": 1.0, "dw_w_weight": 1.0,
        "dw_reduction": "l1", "normalise_prototype": False, "dc_scale": "total_demand", "ibr_classes": 0.0,
        "resize_long": "none", "flip": False,
        "background_step": False, "ir_prototype_weight": 1.0, "mask_prototype_weight": 1.0,
        "irn_scale_high": 1.5, "walk_power": 1.0, "walk_all_channels": False,
    },
    "mini": {                                # the bundled images of 128 pixels and their small backbone
        "backbone": "mini", "crop_size": 128, "resize_long": "112,160", "epochs": 6, "lr": 0.08, "momentum": 0.9,
        "dw_w_weight": 0.1, "scales": [1.0, 0.5, 1.5], "cam_batch_size": 4, "threshold_sweep": True,
        "irn_crop_size": 96, "irn_batch_size": 8, "irn_epochs": 1, "irn_radius": 5,
        "seg_init": "none", "seg_width": 8, "seg_blocks": [1, 1, 1, 1], "seg_crop_size": 128, "seg_batch_size": 8,
        "seg_accumulate": 1, "seg_iterations": 300, "seg_lr": 0.05, "seg_lr_head_factor": 1.0,
    },
}


# What the data set changes: the release leaves IRN out on COCO, deeplab-pytorch trains five times as long on it.
DATA_SET_DEFAULTS = {"voc12": {}, "coco14": {"with_irn": False, "seg_iterations": 100_000}}


class Group(NamedTuple):
    """A titled group of options; `add` puts them into the argparse group it is given."""
    title: str
    add: Callable


# --- groups ---------------------------------------------------------------------------------------------------

def _run_options(group) -> None:
    group.add_argument("--work_dir", default="runs/sfc", help="folder of this run: checkpoints, CAMs, labels, scores")
    group.add_argument("--preset", choices=sorted(PRESETS), default="released",
                       help="defaults of the method: what the authors released, the paper to the letter, or the "
                            "settings of the bundled small images; single flags still win")
    group.add_argument("--seed", type=int, default=0, help="seed of every random choice")
    group.add_argument("--num_workers", type=int, default=default_workers(), help="processes that load or compute, a rank")
    group.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="torch device")
    flag(group, "overwrite", False, "replace what the work directory holds of another configuration; a stage script "
                                    "of its own then also redoes what is complete")
    flag(group, "quiet", False, "print errors and the table of scores only; log.txt has everything")


def _data_options(group) -> None:
    group.add_argument("--dataset", choices=("voc12", "coco14"), default="voc12", help="layout of the data set")
    group.add_argument("--voc12_root", help="data set in VOC layout: the folder that holds JPEGImages")
    group.add_argument("--labels", choices=("xml", "masks"), default="xml",
                       help="voc12: source of the image-level labels: Annotations/*.xml, or the class indices of the masks")
    group.add_argument("--coco_root", help="coco14: the folder that holds train2014 and val2014")
    group.add_argument("--coco_prepared", help="coco14: what coco14/prepare.py wrote (its --out)")
    group.add_argument("--coco_masks", help="coco14: folder of ready-made masks, if it was prepared from them")


def _train_list(group) -> None:
    group.add_argument("--train_list", help="list of ids to train on (one a line, or IRN's path lines); "
                                            "default train_aug of the data set")


def _infer_list(group) -> None:
    group.add_argument("--infer_list", help="list of ids that get CAMs, labels and pseudo masks; "
                                            "default train_aug of the data set")


def _eval_list(group) -> None:
    group.add_argument("--eval_list", help="list of ids to score, with masks; default train of the data set")


def _backbone_options(group) -> None:
    group.add_argument("--backbone", choices=list(BACKBONES), default="resnet50", help="feature extractor")


def _network_options(group) -> None:
    group.add_argument("--pcm_steps", type=positive_int, default=2,
                       help="applications of the PCM affinity (release 2, SEAM 1)")
    group.add_argument("--seed_mode", choices=("argmax", "threshold"), default="argmax",
                       help="prototype seeds: arg-max class of M_W (release) or activation over a threshold (Eq. 3)")
    group.add_argument("--seed_background", type=float, default=0.3,
                       help="factor of the background channel before the seeds' arg-max (release)")
    group.add_argument("--seed_threshold", type=float, default=0.3,
                       help="activation above which a pixel is a seed, for --seed_mode threshold (the paper gives no value)")


def _irn_crop(group) -> None:
    group.add_argument("--irn_crop_size", type=positive_int, default=512,
                       help="side of IRN's training crops in pixels; at inference smaller images are padded to it")


def _background_options(group) -> None:
    flag(group, "background_step", True, "double the foreground of the fused CAMs and raise the background (release)")
    group.add_argument("--background_offset", type=float, default=0.4, help="what the background step adds")


def _hardware_options(group) -> None:
    group.add_argument("--amp", choices=("off", "bf16", "fp16"), default="off",
                       help="networks compute in bfloat16 or float16 (a GPU, scaled loss); weights, losses, PCM and "
                            "prototypes stay in float32")
    flag(group, "channels_last", False, "networks keep the channels of a pixel together in memory")
    flag(group, "compile", False, "torch.compile for the networks")


def _grad_accum_options(group) -> None:
    group.add_argument("--grad_accum", type=positive_int, default=1,
                       help="passes that the images of a step are computed in, for small GPUs; clipping and schedule see "
                            "the whole step")


def _weight_options(group) -> None:
    group.add_argument("--weights", default="imagenet",
                       help="initial weights: imagenet (torchvision, or the packages of the backbone), none, or a file "
                            "(ours, the authors', or torchvision's state dict)")


def background_offset(args: argparse.Namespace) -> float | None:
    """What the background step adds; None without it."""
    return args.background_offset if args.background_step else None


def _final_ir(group) -> None:
    group.add_argument("--ir_prototype_weight", type=non_negative, default=0.7,
                       help="M_final of the IR labels: M_W + this * M_P (release; Eq. 9: 1)")


def _final_mask(group) -> None:
    group.add_argument("--mask_prototype_weight", type=non_negative, default=0.3,
                       help="M_final of the pseudo masks: M_W + this * M_P (release; Eq. 9: 1)")


def _crf_options(group) -> None:
    group.add_argument("--crf_iterations", type=positive_int, default=10, help="mean-field iterations")
    group.add_argument("--crf_gt_prob", type=non_negative, default=0.7, help="probability that a given label is right")
    group.add_argument("--crf_gaussian_sxy", type=non_negative, default=3, help="Gaussian term: pixels")
    group.add_argument("--crf_gaussian_compat", type=non_negative, default=3, help="Gaussian term: weight")
    group.add_argument("--crf_bilateral_sxy", type=non_negative, default=50, help="bilateral term: pixels")
    group.add_argument("--crf_bilateral_srgb", type=non_negative, default=5, help="bilateral term: grey levels")
    group.add_argument("--crf_bilateral_compat", type=non_negative, default=10, help="bilateral term: weight")


def crf_options(args: argparse.Namespace) -> dict:
    """The label-CRF flags as arguments of refine.crf."""
    return {name.removeprefix("crf_"): value for name, value in vars(args).items() if name.startswith("crf_")}


RUN = Group("run", _run_options)
DATA = Group("data set", _data_options)
TRAIN_LIST = Group("images to train on", _train_list)
INFER_LIST = Group("images to label", _infer_list)
EVAL_LIST = Group("images to score", _eval_list)
BACKBONE = Group("backbone", _backbone_options)
NETWORK = Group("CAM network", _network_options)
WEIGHTS = Group("initial weights", _weight_options)
BACKGROUND = Group("fused CAMs", _background_options)
FINAL_IR = Group("M_final for IR labels", _final_ir)
FINAL_MASK = Group("M_final for pseudo masks", _final_mask)
HARDWARE = Group("precision and memory layout (all off: their gain on a GPU is not measured yet)", _hardware_options)
GRAD_ACCUM = Group("memory", _grad_accum_options)
IRN_CROP = Group("IRN", _irn_crop)
CRF = Group("label-CRF", _crf_options)


def build_parser(groups, description: str, **kwargs) -> argparse.ArgumentParser:
    """A parser with the options of all groups, each once."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter,
                                     **kwargs)
    for group in dict.fromkeys(groups):
        group.add(parser.add_argument_group(group.title))
    return parser


def parse(parser: argparse.ArgumentParser, argv=None) -> argparse.Namespace:
    """Parse with the defaults of the chosen preset and data set."""
    chosen, _ = parser.parse_known_args(argv)
    parser.set_defaults(**DATA_SET_DEFAULTS[chosen.dataset] | PRESETS[chosen.preset])
    return parser.parse_args(argv)


def settings_of(stage, args: argparse.Namespace) -> dict:
    """What the result of a stage module depends on: the values of its option groups."""
    names = vars(build_parser(stage.OPTIONS, "").parse_args([])).keys() - NOT_SETTINGS
    return {name: getattr(args, name) for name in sorted(names)}


# --- data set and lists -----------------------------------------------------------------------------------------

def open_data_set(args: argparse.Namespace):
    """The data set the flags name. Raises InputError when none is named."""
    if args.dataset == "coco14":
        if not args.coco_root or not args.coco_prepared:
            raise InputError("--dataset coco14 needs --coco_root (the folder that holds train2014) and --coco_prepared "
                             "(the --out of coco14/prepare.py)")
        return Coco14(args.coco_root, args.coco_prepared, args.coco_masks)
    if not args.voc12_root:
        raise InputError("no data set given; --voc12_root must be the folder that holds JPEGImages, such as "
                         "VOCdevkit/VOC2012 (make sample runs the bundled one)")
    return Voc12(args.voc12_root, args.labels)


def choose_ids(data_set, kind: str, file: str | None, split: str) -> list[str]:
    """The ids of --{kind}_list, or of the data set's own split; says which and how many."""
    ids, origin = (read_list(file), file) if file else data_set.split(split)
    log.info("%s images: %d of %s", kind, len(ids), origin)
    return ids


def train_ids(data_set, args) -> list[str]:
    return choose_ids(data_set, "train", args.train_list, "train_aug")


def infer_ids(data_set, args) -> list[str]:
    return choose_ids(data_set, "infer", args.infer_list, "train_aug")


def eval_ids(data_set, args) -> list[str]:
    return choose_ids(data_set, "eval", args.eval_list, "train")


def check_images(data_set, ids: list[str]) -> None:
    """Raise InputError before any work is done or replaced if an image file is missing."""
    missing = [name for name in ids if not data_set.image_path(name).exists()]
    if missing:
        raise InputError(f"{data_set.image_path(missing[0])}: image file is missing ({len(missing)} of {len(ids)}); restore "
                         "it or take its id out of the list")


def fingerprint(ids: list[str]) -> str:
    """Short text that differs between lists."""
    return f"{len(ids)} ids, checksum {zlib.crc32(chr(10).join(ids).encode()):08x}"


# --- running --------------------------------------------------------------------------------------------------

def seed_everything(seed: int) -> None:
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def open_work_dir(args) -> WorkDir:
    """The work directory the flags name; from here on --quiet holds."""
    progress.quiet = args.quiet or not distributed.is_main()
    return WorkDir(args.work_dir, args.quiet)


def run_stage(stage, args: argparse.Namespace, force: bool = False) -> dict:
    """Run a stage module unless it is complete, and keep its settings, scores and time in the work directory.

    force  redo it even if it is complete
    """
    name = stage.NAME
    work_dir = open_work_dir(args)
    data_set = open_data_set(args)
    ids = stage.select_ids(data_set, args)
    check_images(data_set, ids)
    settings = settings_of(stage, args) | {"images": fingerprint(ids)}
    status = work_dir.begin(name, settings, stage.OUTPUTS, args.overwrite, force)
    if status == "complete":
        log.info("%s: complete, skipped (python %s.py --overwrite does it again)", name, name)
        return work_dir.metrics().get(name, {})
    log.info("%s: %s", name, "continued" if status == "resume" else "started")
    seed_everything(args.seed)
    start = time.perf_counter()
    metrics = stage.run(args, work_dir, data_set, ids)
    work_dir.finish(name, metrics, time.perf_counter() - start)
    log.info("%s: done in %.0f s", name, time.perf_counter() - start)
    return metrics
