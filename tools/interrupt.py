"""SIGINT and SIGTERM: finish what is under way, save, and say how to go on."""

import shlex
import signal
import sys

_received: int | None = None


class Interrupted(Exception):
    """A signal asked the run to stop, and what was under way is saved."""

    def __init__(self, signum: int):
        super().__init__(signal.Signals(signum).name)
        self.exit_status = 128 + signum


def watch() -> None:
    """Note the first SIGINT or SIGTERM for `check`; a second one stops at once."""
    global _received
    _received = None

    def note(signum, _frame):
        global _received
        _received = signum
        signal.signal(signum, signal.SIG_DFL)
        print(f"\n{signal.Signals(signum).name}: saving what is under way; once more to stop at once", file=sys.stderr)

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, note)


def requested() -> bool:
    """Whether a signal came since `watch`."""
    return _received is not None


def check() -> None:
    """Raise Interrupted if a signal came. Called between images and steps, where nothing is half done."""
    if _received is not None:
        raise Interrupted(_received)


def command_to_go_on() -> str:
    """The command of this process, for the user to type again (without --overwrite, which would start anew)."""
    return shlex.join(["python", *(word for word in sys.argv if word != "--overwrite")])
