"""Archives of VOC 2012 and SBD from their publishers: taken up where a download broke off, and checked."""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from data.sample import InputError
from runtime import interrupt
from runtime.disk import require_space
from runtime.progress import progress

BLOCK = 1 << 20                  # bytes
TIMEOUT = 60                     # seconds without an answer


class Remote(NamedTuple):
    """A published archive: its address and MD5 sum."""
    url: str
    md5: str

    @property
    def file_name(self) -> str:
        return self.url.rpartition("/")[2]


# The addresses and sums of torchvision's VOCSegmentation and SBDataset.
VOC = Remote("https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
             "6cd6e144f989b92b3379bac3b3de84fd")
SBD = Remote("https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
             "82b4d87ceb2ed10f6038a1cba92111cb")


def fetch(remote: Remote, folder: Path) -> Path:
    """The archive in `folder`, downloaded unless it is there. NAME.part is what has come so far.

    Raises InputError when it cannot be had, does not fit on the disk or comes with another sum.
    """
    path = folder / remote.file_name
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.touch()
    _receive_all(remote.url, part)
    found = _md5(part)
    if found != remote.md5:
        part.unlink()
        raise InputError(f"{remote.url}: came with MD5 sum {found}, not {remote.md5}, and was deleted; the same "
                         "command fetches it anew, or give an archive that you have with --voc or --sbd")
    os.replace(part, path)
    return path


def _receive_all(url: str, part: Path) -> None:
    """Append to `part` until it is complete; connections that break are renewed as long as each brings something."""
    while True:
        before = part.stat().st_size
        try:
            _receive(url, part)
            return
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:       # nothing is left to receive
                return
            raise _not_received(url, part, error) from None
        except (OSError, http.client.HTTPException) as error:
            if part.stat().st_size <= before:
                raise _not_received(url, part, error) from None


def _not_received(url: str, part: Path, error: Exception) -> InputError:
    return InputError(f"{url}: download stopped after {part.stat().st_size / 1e6:.0f} MB ({error}); the same command "
                      "goes on from there, or give an archive that you have with --voc or --sbd")


def _receive(url: str, part: Path) -> None:
    """Append what the server has beyond the bytes in `part`; a server that sends all from the start replaces them."""
    there = part.stat().st_size
    request = urllib.request.Request(url, headers={"Range": f"bytes={there}-"} if there else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            there = 0
        left = int(response.headers["Content-Length"] or 0)
        print(require_space(part.parent, left, part.name, "--out"))
        with open(part, "ab" if there else "wb") as file, progress(
                total=there + left or None, initial=there, desc=part.stem, unit="B", unit_scale=True) as bar:
            while block := response.read(BLOCK):
                file.write(block)
                bar.update(len(block))
                interrupt.check()
    if part.stat().st_size < there + left:
        raise ConnectionError("the connection broke")


def _md5(path: Path) -> str:
    """MD5 sum of a file, in hexadecimal digits."""
    md5 = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file, progress(total=path.stat().st_size, desc=f"sum of {path.stem}", unit="B",
                                            unit_scale=True) as bar:
        while block := file.read(BLOCK):
            md5.update(block)
            bar.update(len(block))
            interrupt.check()
    return md5.hexdigest()
