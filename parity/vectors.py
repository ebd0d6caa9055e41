"""One file of reference vectors, read array by array."""

from pathlib import Path

import numpy as np
import torch


class Vectors:
    """The arrays of one file; remembers which were read, so that none goes unchecked.

    unread   names that nobody asked for
    ignored  name -> why it is not compared
    """

    def __init__(self, path: Path):
        self._file = np.load(path, allow_pickle=False)
        self.unread = set(self._file.files)
        self.ignored: dict[str, str] = {}

    @property
    def names(self) -> list[str]:
        return self._file.files

    def __contains__(self, name: str) -> bool:
        return name in self._file.files

    def __getitem__(self, name: str) -> np.ndarray:
        self.unread.discard(name)
        return self._file[name]

    def tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self[name])

    def number(self, name: str) -> int | float:
        """A setting: an array of one element."""
        return self[name].item()

    def cases(self, last: str) -> list[str]:
        """What stands before `last` in the names that end with it: the cases `0_`, `1_` of `0_image` and `1_image`."""
        return [name.removesuffix(last) for name in self.names if name.endswith(last)]

    def ignore(self, name: str, reason: str) -> None:
        """Say why an array is neither input nor result."""
        self.unread.discard(name)
        self.ignored[name] = reason
