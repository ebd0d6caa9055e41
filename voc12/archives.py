"""A data set as it is distributed, read file by file: a folder, or a tar archive that is never unpacked as a whole."""

import contextlib
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

from data.sample import InputError, parse_list
from runtime import interrupt
from runtime.progress import progress


class Layout(NamedTuple):
    """How a data set is distributed.

    name    of it and of its archive, for messages
    roots   folders that it may lie in, below the archive or folder that was given
    lists   lists of ids below the root, all of which it has
    """
    name: str
    roots: tuple[str, ...]
    lists: tuple[str, ...]


class Source(Protocol):
    """The files of a data set.

    path    of the archive or folder
    sizes   bytes of each file, by its path below the root
    lists   ids of each list of the layout, in its order
    """
    path: Path
    sizes: dict[str, int]
    lists: dict[str, list[str]]

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Name and content of files, in the order that is the quickest. Raises InputError for damaged archives."""


def open_source(path: Path, layout: Layout) -> Source:
    """The data set in a folder or archive.

    Raises InputError when it is missing, is neither, is damaged, has members outside itself or another layout.
    """
    if path.is_dir():
        return _Folder(path, layout)
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder; give {layout.name} or the folder that it was unpacked into")
    return _Tar(path, layout)


def require_files(source: Source, names: Iterable[str]) -> None:
    """Raise InputError unless the source has all the files."""
    missing = [name for name in names if name not in source.sizes]
    if missing:
        raise InputError(f"{source.path}: {missing[0]} is missing, one of {len(missing)} files; fetch or unpack it "
                         "again")


def _root(path: Path, layout: Layout, has: Callable[[str], bool]) -> str:
    """The root that holds the lists."""
    for root in layout.roots:
        if all(has(str(PurePosixPath(root, name))) for name in layout.lists):
            return root
    raise InputError(f"{path}: not {layout.name}: no {' and '.join(layout.lists)} in it, nor below "
                     f"{' or '.join(filter(None, layout.roots))}; give its archive or the folder it was unpacked into")


@contextlib.contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """InputError that names the archive instead of what damaged ones raise."""
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        raise InputError(f"{path}: no tar archive that can be read, or a truncated one ({error}); fetch it "
                         "again") from None


class _Folder:
    def __init__(self, path: Path, layout: Layout):
        self.path = path
        self._root = path / _root(path, layout, lambda name: (path / name).is_file())
        self.sizes = {entry.relative_to(self._root).as_posix(): entry.stat().st_size
                      for folder, _, files in os.walk(self._root, followlinks=True)
                      for entry in (Path(folder, file) for file in files) if entry.is_file()}
        self.lists = {name: parse_list(content, self._root / name) for name, content in self.read(layout.lists)}

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        for name in names:
            yield name, (self._root / name).read_bytes()


class _Tar:
    def __init__(self, path: Path, layout: Layout):
        self.path = path
        self._tar, members, contents = self._index({PurePosixPath(name).name for name in layout.lists})
        root = _root(path, layout, members.__contains__)
        self._members = {str(PurePosixPath(name).relative_to(root)): member for name, member in members.items()
                         if PurePosixPath(name).is_relative_to(root)}
        self.sizes = {name: member.size for name, member in self._members.items()}
        self.lists = {name: parse_list(contents[str(PurePosixPath(root, name))], f"{path}: {name}")
                      for name in layout.lists}

    def _index(self, keep: set[str]) -> tuple[tarfile.TarFile, dict[str, tarfile.TarInfo], dict[str, bytes]]:
        """The archive, its files by normalised path, and the content of those named in `keep`.

        They are read on the way, because going back in a compressed archive means to unpack it from its start.
        """
        members, contents = {}, {}
        file = open(self.path, "rb")  # noqa: SIM115  it stays open for `read`
        with _named_errors(self.path), progress(total=self.path.stat().st_size, desc=self.path.name, unit="B",
                                                unit_scale=True) as bar:
            tar = tarfile.open(fileobj=file)  # noqa: SIM115
            for member in tar:
                bar.update(file.tell() - bar.n)
                interrupt.check()
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise InputError(f"{self.path}: member {member.name!r} lies outside the archive; fetch it again "
                                     "from its publisher")
                if member.isreg():
                    members[str(path)] = member
                    if path.name in keep:
                        contents[str(path)] = _content(tar, member)
        return tar, members, contents

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        for name in sorted(names, key=lambda name: self._members[name].offset):
            with _named_errors(self.path):
                content = _content(self._tar, self._members[name])
            yield name, content


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None                                     # as it is for every regular file
    return file.read()
