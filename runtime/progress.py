"""Progress bars on a terminal, a line a minute elsewhere, nothing with --quiet."""

import sys

from tqdm import tqdm

quiet = False                       # set by frame.options from --quiet


class _Lines:
    """Turns a bar's carriage returns into lines, for logs."""

    def write(self, text: str) -> None:
        text = text.strip("\r\n ")
        if text:
            sys.stderr.write(text + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


def progress(iterable=None, **options) -> tqdm:
    """tqdm with its arguments (total, desc, unit, initial)."""
    if sys.stderr.isatty():
        return tqdm(iterable, mininterval=0.5, disable=quiet, dynamic_ncols=True, **options)
    return tqdm(iterable, mininterval=60, maxinterval=60, disable=quiet, file=_Lines(), ncols=100, **options)
