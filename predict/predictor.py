"""The networks of a finished run, for any image: class scores, CAMs, edge map, segmentation."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from data.cam_store import CamRecord, present_maps, read_record
from data.loader import scaled_tensors
from data.sample import InputError, read_photo
from data.transforms import rescale
from frame import network
from frame.settings.cams import FinalIr, Inference, Network, Selection, SfcTraining
from frame.settings.common import BackboneChoice
from frame.settings.irn import IrnCrop
from frame.settings.segmentation import SegTest
from refine.fusion import final_cam, full_size_cams
from report.finished_run import FinishedRun
from runtime.device import prepare
from segmentation.prediction import Prediction, Trained

THRESHOLD = 0.5                    # probability from which on a class counts as shown
RECORDS = 100                      # CAM records whose image sizes are looked at


class Cams(NamedTuple):
    """CAMs of one image at its size; channel 0 is the background, channel k the class classes[k - 1].

    classes                   their names
    scores                    name -> probability, of all classes of the run
    weight_cam, prototype_cam (K+1, H, W) float32, M_W and M_P, fused over scales and mirror images
    final_cam                 M_W + --ir_prototype_weight * M_P, what the run's labels are made of
    """
    classes: tuple[str, ...]
    scores: dict[str, float]
    weight_cam: torch.Tensor
    prototype_cam: torch.Tensor
    final_cam: torch.Tensor


class Evidence(NamedTuple):
    """What the networks say of an image, (H, W) being its size after it was made smaller.

    image       (H, W, 3) uint8
    scores      (C,) probability of each class
    record      its CAMs, of the classes that it shows
    edge        (1, h, w) edge map of IRN
    prediction  of the segmentation network
    Each is None where the run has no such network.
    """
    image: np.ndarray
    scores: np.ndarray | None = None
    record: CamRecord | None = None
    edge: np.ndarray | None = None
    prediction: Prediction | None = None


class Predictor:
    """The networks that a work directory holds: sfc.pth, irn.pth, deeplab.pth.

    run          the work directory
    device       torch device
    max_side     larger images are made smaller to this many pixels; None: the largest of the run's own images, as the
                 networks know objects of that size
    class_names  foreground classes
    Raises InputError when there is no network, or those there do not fit each other.
    """

    def __init__(self, run: str | Path, device: str = "auto", max_side: int | None = None):
        self.run = FinishedRun(run)
        self.flags = self.run.flags
        self.compute = prepare(device)
        self.segmentation = self._load_segmentation(device)
        self.class_names = self.segmentation.class_names if self.segmentation else self.run.class_names
        self.max_side = max_side or self._own_max_side()
        self.sfc, self.irn = self._load_sfc(), self._load_irn()
        if not (self.sfc or self.segmentation):
            raise InputError(self._without_sfc() if self.flags[Inference].checkpoint else
                             f"{self.run.path}: neither {self.flags[Selection].result} nor deeplab.pth in it; name the "
                             "work directory of a trained run")

    def _load_segmentation(self, device: str) -> Trained | None:
        path = self.run.path / "deeplab.pth"
        return Trained(path, self.flags[SegTest], device, num_workers=0) if path.exists() else None

    @property
    def _sfc_path(self) -> Path:
        return Path(self.flags[Inference].checkpoint or self.run.path / self.flags[Selection].result)

    def _without_sfc(self) -> str:
        """What to say where the CAM network is needed and missing."""
        if self.flags[Inference].checkpoint:
            return (f"{self._sfc_path}: missing, the --checkpoint that {self.run.path} was made with; restore it, or "
                    "start where the run was started if its path is relative")
        return f"{self._sfc_path}: missing; train_sfc.py makes it"

    def _load_sfc(self):
        """The CAM network, in evaluation mode."""
        path = self._sfc_path
        if not path.exists():
            return None
        model = network.load_sfc(self.flags[Network], self.backbone, len(self.class_names), path)
        return model.to(self.compute.device).eval()

    def _load_irn(self):
        path = self.run.path / "irn.pth"
        if not path.exists():
            return None
        return network.load_irn(self.backbone, path).to(self.compute.device).eval()

    def _own_max_side(self) -> int:
        """The longest side among images of the run, by some of its CAM records; without records, that of its crops."""
        records = sorted((self.run.path / "cam").glob("*.npz"))[:RECORDS]
        sides = [max(read_record(path, len(self.class_names)).size) for path in records]
        return max(sides, default=self.flags[SfcTraining].crop_size)

    @property
    def backbone(self) -> str:
        return self.flags[BackboneChoice].backbone

    # --- one image ------------------------------------------------------------------------------------------

    def fit(self, image: np.ndarray) -> np.ndarray:
        """The image (H, W, 3), made smaller where a side is longer than max_side."""
        return np.array(rescale(image, min(1, self.max_side / max(image.shape[:2]))))  # writable: the CRF asks for that

    @torch.no_grad()
    def scores(self, image: np.ndarray) -> np.ndarray:
        """(C,) float32 probability of each class at scale 1, averaged over mirror images before the sigmoid."""
        output, = network.infer(self.sfc, self.compute, scaled_tensors([image], (1.0,)),
                                torch.ones(1, len(self.class_names)))
        return output.score[0].sigmoid().numpy()

    @torch.no_grad()
    def record(self, image: np.ndarray, present: np.ndarray) -> CamRecord:
        """CAMs of an image (H, W, 3) at all scales of the run. present: (C,) 0/1."""
        settings, label = self.flags[Inference], torch.from_numpy(present)
        outputs = network.infer(self.sfc, self.compute, scaled_tensors([image], settings.scales), label[None],
                                settings.mask_cam)
        return present_maps([(output.weight_cam[0], output.prototype_cam[0]) for output in outputs], label,
                            image.shape[:2])

    @torch.no_grad()
    def edge(self, image: np.ndarray) -> np.ndarray:
        """(1, h, w) edge map by the run's IRN."""
        pixels = self.irn.backbone.prepare(scaled_tensors([image], (1.0,))[0].to(self.compute.device))[0]
        return self.irn.predict_edge(pixels, self.flags[IrnCrop].irn_crop_size).cpu().numpy()

    def evidence(self, image: np.ndarray, labels: Iterable[str] | None = None,
                 threshold: float = THRESHOLD) -> Evidence:
        """Everything the networks say of an image (H, W, 3) uint8.

        labels  names of the classes that it shows; None: those of at least `threshold`
        """
        image = self.fit(image)
        scores = record = edge = prediction = None
        if self.sfc:
            scores = self.scores(image)
            record = self.record(image, self.present(scores, labels, threshold))
            edge = self.edge(image) if self.irn else None
        if self.segmentation and min(image.shape[:2]) >= self.segmentation.smallest_side:
            prediction = self.segmentation.predict("", scaled_tensors([image], self.segmentation.scales),
                                                   image.shape[:2])
        return Evidence(image, scores, record, edge, prediction)

    def present(self, scores: np.ndarray, names: Iterable[str] | None, threshold: float) -> np.ndarray:
        """(C,) 0/1: the classes of these names; without names those of at least `threshold`."""
        return (scores >= threshold).astype(np.uint8) if names is None else self.label(names)

    def label(self, names: Iterable[str]) -> np.ndarray:
        """Class names -> (C,) uint8. Raises InputError for an unknown one."""
        label = np.zeros(len(self.class_names), np.uint8)
        for name in names:
            if name not in self.class_names:
                raise InputError(f"--labels {name}: the run knows no such class; it knows "
                                 f"{', '.join(self.class_names)}")
            label[self.class_names.index(name)] = 1
        return label

    # --- from Python ----------------------------------------------------------------------------------------

    def cams(self, images: Iterable, labels: Sequence[Iterable[str] | None] | None = None,
             threshold: float = THRESHOLD) -> list[Cams]:
        """CAMs of images, each at its size.

        images  paths, PIL images, or (H, W, 3) uint8 arrays
        labels  class names of each image; None, for one image or for all: what the classifier says
        """
        if not self.sfc:
            raise InputError(self._without_sfc())
        images = list(images)
        out = []
        for image, names in zip(images, labels or [None] * len(images), strict=True):
            pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else
                                read_photo(image) if isinstance(image, str | Path) else image)
            small = self.fit(pixels)
            scores = self.scores(small)
            record = self.record(small, self.present(scores, names, threshold))
            out.append(self._named(record, scores, pixels.shape[:2]))
        return out

    def _named(self, record: CamRecord, scores: np.ndarray, size: tuple[int, int]) -> Cams:
        weight_cam, prototype_cam = full_size_cams(record._replace(size=size), offset=None)
        names = tuple(self.class_names[index - 1] for index in record.classes)
        return Cams(names, named_scores(self.class_names, scores), weight_cam, prototype_cam,
                    final_cam(weight_cam, prototype_cam, self.flags[FinalIr].ir_prototype_weight))


def named_scores(class_names: Sequence[str], scores: np.ndarray) -> dict[str, float]:
    """Class name -> its probability, the highest first."""
    return dict(sorted(zip(class_names, scores.tolist()), key=lambda named: -named[1]))
