"""What is about to run: the stages, their settings and their images."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from frame.chain import UPSTREAM
from frame.data_sets import DataSet, open_data_set
from frame.flags import Flags
from frame.lists import fingerprint
from frame.settings.common import Data, Run
from frame.stage import Stage, settings_of
from runtime.work_dir import entry_differences, files_left, read_config


class Look(NamedTuple):
    """What an image and its files are like.

    problems  kind of file ("image", "labels", "mask") -> why it cannot be used
    size      (H, W); None of an image that cannot be read
    turned    whether viewers turn it by its EXIF tag
    labels    classes of the image, from 1; None where they cannot be read
    shown     classes of its mask; None where there is none
    """
    name: str
    problems: dict[str, str]
    size: tuple[int, int] | None = None
    turned: bool = False
    labels: frozenset[int] | None = None
    shown: frozenset[int] | None = None


@dataclass
class Plan:
    """The stages that the flags chose, and what a check needs to know of them.

    full  look at every file, not at a sample
    ids   stage -> its images; a stage whose list cannot be read is not in it
    looks what check.images saw of them; both are filled by it
    data_set raises InputError when the data set cannot be used.
    """
    stages: Sequence[Stage]
    flags: Flags
    full: bool = False
    ids: dict[str, list[str]] = field(default_factory=dict)
    looks: list[Look] = field(default_factory=list)

    @cached_property
    def data_set(self) -> DataSet:
        return open_data_set(self.flags[Data])

    @property
    def names(self) -> list[str]:
        return [stage.NAME for stage in self.stages]

    @property
    def work_dir(self) -> Path:
        return Path(self.flags[Run].work_dir)

    @cached_property
    def config(self) -> dict:
        """config.json of the work directory; {} before its first run."""
        return read_config(self.work_dir)

    def is_complete(self, stage: str) -> bool:
        return self.config.get(stage, {}).get("complete", False)

    def to_do(self) -> list[str]:
        """Names of the stages that will run: those not complete, and what --overwrite does again."""
        again = self.differences() if self.flags[Run].overwrite else {}
        return [name for name in self.names if not self.is_complete(name) or name in again]

    def differences(self) -> dict[str, list[str]]:
        """Stage -> how what will be asked of it differs from what its results there were made with.

        As WorkDir.begin will find it when the stages before have run. Without --overwrite they will not, so that a
        stage has the differences of its own alone.
        """
        entries, out = dict(self.config), {}
        for stage in self.stages:
            found, wanted = self.config.get(stage.NAME), self.entry(stage, entries)
            if found is not None and self.has_results(stage):
                lines = entry_differences(found, wanted)
                if lines:
                    out[stage.NAME] = lines
                if not (lines and self.flags[Run].overwrite):
                    continue
            entries[stage.NAME] = wanted
        return out

    def entry(self, stage: Stage, entries: dict[str, dict]) -> dict:
        """What config.json will hold of a stage that reads the results of `entries`."""
        found = self.config.get(stage.NAME, {"settings": {}})
        ids = self.ids.get(stage.NAME)
        images = found["settings"].get("images") if ids is None else fingerprint(ids)
        return {"settings": settings_of(stage, self.flags, images), "begun": "by this run",
                "upstream": {name: entries[name] for name in UPSTREAM[stage.NAME] if name in entries}}

    def has_results(self, stage: Stage) -> bool:
        """Whether something lies there that would be gone on with, or be refused."""
        found = self.config.get(stage.NAME)
        return found is not None and not found.get("clearing") and (
            found["complete"] or any(path.exists() for path in files_left(self.work_dir, stage.NAME, stage.OUTPUTS)))
