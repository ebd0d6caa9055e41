"""A run that exists, read without writing into it: settings, scores, classes by frequency, training curves."""

import logging
from pathlib import Path

from data.sample import InputError
from frame.chain import STAGES
from frame.data_sets import open_data_set
from frame.flags import Flags
from frame.settings.common import Data
from frame.weights import load_file
from runtime.work_dir import read_json
from voc12.voc import CLASS_NAMES

BACKGROUND = "background"


class FinishedRun:
    """What the work directory `path` holds; stages that did not run yet are simply absent.

    settings          flags of all stages together
    data_set          the data set of the run, or None: then `data_set_problem` says why it cannot be used
    class_names       foreground classes, in the order of their indices if that is known (`class_counts` needs it)
    class_counts      n_c, training images of each class, {} if unknown
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
        self.data_set, self.data_set_problem = self._open_data_set()
        self.class_names, ordered = self._class_names()
        counts = self.metrics.get("train_sfc", {}).get("class_counts", [])
        fits = ordered and len(counts) == len(self.class_names)
        self.class_counts = dict(zip(self.class_names, counts)) if fits else {}

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def flags(self) -> Flags:
        """The settings as a stage gets them; flags that the run did not have are at their defaults."""
        return Flags(self.settings)

    @property
    def stages(self) -> list[str]:
        """Stages begun, in the order of the chain."""
        return [name for name in STAGES if name in self.config]

    @property
    def benchmark(self) -> str | None:
        """Whose published numbers may stand beside the scores; see the data set's property of this name."""
        if self.data_set:
            return self.data_set.benchmark
        return "voc12" if self.class_names == CLASS_NAMES else None

    @property
    def is_voc(self) -> bool:
        return self.benchmark == "voc12"

    def classes_by_frequency(self) -> list[str]:
        """Foreground classes, the most frequent first; as they come where the counts are unknown."""
        return sorted(self.class_names, key=lambda name: -self.class_counts.get(name, 0))

    def curves(self) -> dict[str, dict[str, tuple[list[int], list[float]]]]:
        """What TensorBoard holds: stage -> scalar -> (steps, values)."""
        # Imported here because it takes a second that only the report needs.
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        logging.getLogger("tensorboard").setLevel(logging.ERROR)
        out = {}
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

    def _check_scores(self) -> None:
        needed = {"miou", "class_iou", "class_area_ratio"}
        if not all(isinstance(scores, dict) and needed <= scores.keys() for scores in self.scores.values()):
            raise InputError(f"{self.path / 'metrics.json'}: scores without {', '.join(sorted(needed))}; write them "
                             "again: eval_cam.py --overwrite and eval_sem_seg.py --overwrite")

    def _open_data_set(self):
        try:
            return open_data_set(self.flags[Data]), None
        except InputError as error:
            return None, str(error)

    def _class_names(self) -> tuple[tuple[str, ...], bool]:
        """Foreground classes, and whether they stand in the order of their indices."""
        if self.data_set:
            return tuple(self.data_set.class_names), True
        if (self.path / "sfc.pth").exists():
            names = load_file(self.path / "sfc.pth").get("class_names")
            if names:
                return tuple(names), True
        scored = next(iter(self.scores.values()), {"class_iou": {}})["class_iou"]
        return tuple(name for name in scored if name != BACKGROUND), False
