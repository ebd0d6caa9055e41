"""A run that exists, read without writing into it: settings, scores, maps, classes by frequency, training curves."""

import logging
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from data.cam_store import read_record, record_path
from data.sample import InputError, read_mask
from frame.chain import STAGES
from frame.data_sets import DataSet, open_data_set
from frame.flags import Flags
from frame.settings.common import Data
from frame.weights import load_file
from refine.fusion import full_size_cams
from runtime.work_dir import read_json
from voc12.voc import CLASS_NAMES

BACKGROUND = "background"


class FinishedRun:
    """What the work directory `path` holds; stages that did not run yet are simply absent.

    config, metrics   what config.json and metrics.json hold, an entry a stage
    settings          flags of all stages together
    scores            name -> scores of everything that was scored: mIoU and, of each class, IoU and area ratio
    Everything else is read when it is asked for.
    Raises InputError when there is no run, or its files are damaged.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = read_json(self.path / "config.json")
        self.metrics = read_json(self.path / "metrics.json")
        if not self.config:
            raise InputError(f"{self.path / 'config.json'}: missing; name the work directory of a run, which is what "
                             "--work_dir of run_sample.py names")
        try:
            self.settings = {flag: value for entry in self.config.values() for flag, value in entry["settings"].items()}
            self.scores = {name: scores for entry in self.metrics.values()
                           for name, scores in entry.get("scores", {}).items()}
        except (KeyError, TypeError, AttributeError):
            raise InputError(f"{self.path / 'config.json'} or metrics.json: not as a stage writes it; run the stages "
                             "again in another --work_dir") from None
        self._check_scores()

    def _check_scores(self) -> None:
        needed = {"miou", "class_iou", "class_area_ratio"}
        if not all(isinstance(scores, dict) and needed <= scores.keys() for scores in self.scores.values()):
            raise InputError(f"{self.path / 'metrics.json'}: scores without {', '.join(sorted(needed))}; write them "
                             "again: eval_cam.py --overwrite and eval_sem_seg.py --overwrite")

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def flags(self) -> Flags:
        """The settings as a stage gets them; flags that the run did not have are at their defaults."""
        return Flags(self.settings)

    # --- stages ---------------------------------------------------------------------------------------------

    @property
    def stages(self) -> list[str]:
        """Stages begun, in the order of the chain."""
        return [name for name in STAGES if name in self.config]

    def machine(self, stage: str) -> dict:
        """Where and how fast a stage ran: hardware, versions and commit; seconds and date once it has finished."""
        return self.config[stage].get("machine", {})

    def seconds(self) -> dict[str, float]:
        """Time of each finished stage."""
        return {stage: self.machine(stage)["seconds"] for stage in self.stages if "seconds" in self.machine(stage)}

    # --- scores ---------------------------------------------------------------------------------------------

    def score(self, stage: str, name: str) -> dict:
        """What `stage` wrote of a score; {} where it has none."""
        return self.metrics.get(stage, {}).get("scores", {}).get(name, {})

    def oracle_miou(self, stage: str, name: str) -> float | None:
        """mIoU at the foreground threshold that pixel labels say is best; None where no threshold was tried."""
        return self.metrics.get(stage, {}).get("threshold_sweep", {}).get(name, {}).get("oracle_miou")

    @property
    def splits(self) -> list[str]:
        """What was scored, each once."""
        return list(dict.fromkeys(entry["split"] for entry in self.metrics.values() if "split" in entry))

    @property
    def benchmark(self) -> str | None:
        """Whose published numbers may stand beside the scores; see the data set's property of this name."""
        if not self.data_set_problem:
            return self.data_set.benchmark
        return "voc12" if self.class_names == CLASS_NAMES else None

    # --- data set and classes -------------------------------------------------------------------------------

    @cached_property
    def data_set(self) -> DataSet:
        """The data set of the run. Raises InputError where it cannot be used any more."""
        return open_data_set(self.flags[Data])

    @cached_property
    def data_set_problem(self) -> str:
        """Why the data set cannot be used; "" if it can."""
        try:
            _ = self.data_set                        # opened once: the index of a large one takes seconds
        except InputError as error:
            return str(error)
        return ""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Foreground classes, in the order of their indices if that is known (`class_counts` needs it)."""
        return self._class_names_and_ordered[0]

    @cached_property
    def _class_names_and_ordered(self) -> tuple[tuple[str, ...], bool]:
        if not self.data_set_problem:
            return tuple(self.data_set.class_names), True
        if (self.path / "sfc.pth").exists():
            names = load_file(self.path / "sfc.pth").get("class_names")
            if names:
                return tuple(names), True
        scored: dict[str, float] = next(iter(self.scores.values()), {"class_iou": {}})["class_iou"]
        return tuple(name for name in scored if name != BACKGROUND), False

    @property
    def counts(self) -> list[int]:
        """n_c, training images of each class, in the order of the indices; [] before stage 1."""
        return self.metrics.get("train_sfc", {}).get("class_counts", [])

    @cached_property
    def class_counts(self) -> dict[str, int]:
        """Class -> n_c; {} if unknown."""
        names, ordered = self._class_names_and_ordered
        return dict(zip(names, self.counts)) if ordered and len(self.counts) == len(names) else {}

    def classes_by_frequency(self) -> list[str]:
        """Foreground classes, the most frequent first; as they come where the counts are unknown."""
        return sorted(self.class_names, key=lambda name: -self.class_counts.get(name, 0))

    # --- files of an image ----------------------------------------------------------------------------------

    def record_path(self, name: str) -> Path:
        return record_path(self.path / "cam", name)

    def cams(self, name: str, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        """M_W and M_P of an image, each (K+1, H, W), without background step; errors as read_record."""
        return full_size_cams(read_record(self.record_path(name), self.data_set.num_classes, size), None)

    def mask_path(self, folder: str, name: str) -> Path:
        """folder: ir_label or sem_seg."""
        return self.path / folder / f"{name}.png"

    def read_mask(self, folder: str, name: str, size: tuple[int, int]) -> np.ndarray:
        """(H, W) uint8 class indices of a mask that a stage wrote; errors as data.sample.read_mask."""
        return read_mask(self.mask_path(folder, name), self.data_set.num_classes, size)

    # --- curves ---------------------------------------------------------------------------------------------

    def curves(self) -> dict[str, dict[str, tuple[list[int], list[float]]]]:
        """What TensorBoard holds: stage -> scalar -> (steps, values)."""
        # Imported here because it takes a second that only the report needs.
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        logging.getLogger("tensorboard").setLevel(logging.ERROR)
        out: dict[str, dict[str, tuple[list[int], list[float]]]] = {}
        for stage in self.stages:
            folder = self.path / "tensorboard" / stage
            if not folder.is_dir():
                continue
            events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 1})
            events.Reload()
            for tag in events.Tags()["scalars"]:
                points = events.Scalars(tag)
                out.setdefault(stage, {})[tag.removeprefix(f"{stage}/")] = (
                    [point.step for point in points], [point.value for point in points])
        return out
