"""SIGINT and SIGTERM: finish what is under way, save, and say how to go on."""

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from runtime import distributed

_received: int | None = None


class Interrupted(Exception):
    """A signal asked the run to stop, and what was under way is saved."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.exit_status = 128 + signum


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """While it is open, note the first SIGINT or SIGTERM for `check`; a second one stops at once."""
    global _received
    _received = None
    process = os.getpid()

    def note(signum, _frame):
        global _received
        if os.getpid() != process:                                  # a forked child: the signal is the parent's affair
            return
        signal.signal(signum, signal.SIG_DFL)
        _received = signum
        if distributed.is_main():
            print(f"\n{signal.Signals(signum).name}: saving what is under way; once more to stop at once",
                  file=sys.stderr)

    before = {signum: signal.signal(signum, note) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def requested() -> bool:
    """Whether a signal came while `watched`, to any process of the run: all of them must ask at the same step."""
    global _received
    _received = distributed.maximum(_received or 0) or None
    return _received is not None


def check() -> None:
    """Raise Interrupted if a signal came. Called between images and steps, where nothing is half done."""
    if _received is not None:
        raise Interrupted(_received)


def command_to_go_on() -> str:
    """The command of this process, for the user to type again: of a single stage without --overwrite, which would start
    it anew; the chain needs it for the stages to come."""
    spec = sys.modules["__main__"].__spec__
    program = [sys.argv[0]]
    if spec and spec.origin == sys.argv[0]:                         # python -m tools.reproduce
        program = ["-m", spec.name.removesuffix(".__main__")]
    chain = Path(sys.argv[0]).stem == "run_sample"
    flags = [word for word in sys.argv[1:] if chain or word != "--overwrite"]
    return shlex.join([*distributed.launcher(), *program, *flags])
