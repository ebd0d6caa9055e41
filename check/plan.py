"""What is about to run: the stages, their settings and their images."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from frame.data_sets import DataSet, open_data_set
from frame.flags import Flags
from frame.settings.common import Data, Run
from frame.stage import Stage
from runtime.work_dir import read_json


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
        return read_json(self.work_dir / "config.json") if self.work_dir.is_dir() else {}

    def is_complete(self, stage: str) -> bool:
        return self.config.get(stage, {}).get("complete", False)

    def to_do(self) -> list[str]:
        """Names of the stages that are not complete."""
        return [name for name in self.names if not self.is_complete(name)]
