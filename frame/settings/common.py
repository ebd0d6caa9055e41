"""Settings that stages of different subjects share: the run, the data set, lists, backbone, hardware."""

import argparse
from dataclasses import dataclass

from frame.flags import Group, option
from net.backbone import BACKBONES
from runtime.command import default_workers, path, positive_int, whole_number
from runtime.device import AMP_TYPES, AUTO

DATA_SETS = ("voc12", "coco14")              # frame/data_sets.py has an entry for each
PRESETS = ("lite", "mini", "paper", "released")  # frame/presets.py has an entry for each


def label_source(text: str) -> str:
    """xml, masks, or the name of a CSV file."""
    if text not in ("xml", "masks") and not text.lower().endswith(".csv"):
        raise argparse.ArgumentTypeError(f"{text} is neither xml nor masks nor the name of a .csv file")
    return text if text in ("xml", "masks") else path(text)


@dataclass(frozen=True)
class Run(Group, title="run"):
    work_dir: str = option("runs/sfc", "folder of this run: checkpoints, CAMs, labels, scores", changes_result=False)
    preset: str = option("released", "defaults of the method: what the authors released, the paper to the letter, "
                         "the settings of the bundled small images, or of photographs on a CPU; single flags still win",
                         choices=PRESETS, changes_result=False)
    seed: int = option(0, "seed of every random choice", whole_number)
    num_workers: int = option(default_workers(), "processes that load or compute, a rank", whole_number,
                              changes_result=False)
    device: str = option(AUTO, "torch device of the networks: cpu, cuda, cuda:1; auto is the GPU if there is one",
                         changes_result=False)
    overwrite: bool = option(False, "replace what the work directory holds of another configuration; a stage script of "
                             "its own then also redoes what is complete", changes_result=False)
    quiet: bool = option(False, "print warnings, errors and the table of scores only; log.txt has everything",
                         changes_result=False)


@dataclass(frozen=True)
class Data(Group, title="data set"):
    dataset: str = option("voc12", "layout of the data set", choices=DATA_SETS)
    voc12_root: str | None = option(None, "data set in VOC layout: the folder that holds JPEGImages", path)
    labels: str = option("xml", "voc12: source of the image-level labels: xml (Annotations/*.xml), masks (their class "
                         "indices), or a CSV file of image,labels (docs/LABELS.md)", label_source)
    coco_root: str | None = option(None, "coco14: the folder that holds train2014 and val2014", path)
    coco_prepared: str | None = option(None, "coco14: what coco14/prepare.py wrote (its --out)", path)
    coco_masks: str | None = option(None, "coco14: folder of ready-made masks, if it was prepared from them", path)


@dataclass(frozen=True)
class TrainList(Group, title="images to train on"):
    train_list: str | None = option(None, "list of ids to train on (one a line, or IRN's path lines); default "
                                    "train_aug of the data set", changes_result=False)


@dataclass(frozen=True)
class InferList(Group, title="images to label"):
    infer_list: str | None = option(None, "list of ids that get CAMs, labels and pseudo masks; default train_aug of "
                                    "the data set", changes_result=False)


@dataclass(frozen=True)
class EvalList(Group, title="images to score"):
    eval_list: str | None = option(None, "list of ids to score, with masks; default train of the data set",
                                   changes_result=False)


@dataclass(frozen=True)
class BackboneChoice(Group, title="backbone"):
    backbone: str = option("resnet50", "feature extractor", choices=BACKBONES)


@dataclass(frozen=True)
class Weights(Group, title="initial weights"):
    weights: str = option("imagenet", "initial weights: imagenet (torchvision, or the packages of the backbone), none, "
                          "or a file (ours, the authors', or torchvision's state dict)", path)


@dataclass(frozen=True)
class Hardware(Group, title="precision and memory layout (all off: their gain on a GPU is not measured yet)"):
    amp: str = option("off", "networks compute in bfloat16 or float16 (a GPU, scaled loss); weights, losses, PCM and "
                      "prototypes stay in float32", choices=AMP_TYPES)
    channels_last: bool = option(False, "networks keep the channels of a pixel together in memory")
    compile: bool = option(False, "torch.compile for the networks; the first step then takes minutes")


@dataclass(frozen=True)
class Memory(Group, title="memory"):
    grad_accum: int | None = option(None, "passes that the images of a training step are computed in, for small GPUs; "
                                    "clipping and schedule see the whole step; None means 1, and 2 for "
                                    "deeplabv2_resnet101 as in its port", positive_int)

    @property
    def passes(self) -> int:
        """Passes of a step in stages 1 and 5."""
        return self.grad_accum or 1
