"""Puts in every wrong and lists which rows notice it."""

import itertools
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from parity.mutations.patch import Patch, replaced
from parity.report import Report
from parity.seeded_weights import seeded_tensor
from parity.vectors import Vectors
from runtime.command import default_workers
from runtime.parallel import map_images


class Check(NamedTuple):
    """A part of the parity check: the file of vectors it reads, and the function that adds rows."""

    file: str
    function: Callable[[Vectors, Report], None]


class Wrong(NamedTuple):
    """One mistake.

    name        what is wrong
    patch       puts it in
    checks      the parts of the parity check that it can touch
    unnoticed   why no row can notice it; empty if one must
    """

    name: str
    patch: Patch
    checks: tuple[Check, ...]
    unnoticed: str = ""


class Row(NamedTuple):
    """What came of a wrong: the rows that failed, or None where there are no vectors to run."""

    wrong: Wrong
    noticed: list[str] | None

    @property
    def ok(self) -> bool:
        return self.noticed is None or bool(self.noticed) or bool(self.wrong.unnoticed)

    def __str__(self) -> str:
        if self.noticed is None:
            said = "not run: no vectors"
        elif self.noticed:
            said = f"{len(self.noticed)}: {', '.join(self.noticed[:4])}{', ...' if len(self.noticed) > 4 else ''}"
        else:
            said = f"no row, and none can: {self.wrong.unnoticed}" if self.wrong.unnoticed else "NO ROW"
        return f"{self.wrong.name:<52} {said}"


def cached_weights() -> Patch:
    """Weights are the same for every wrong: a process draws them once. Callers may write into what they get."""

    def make(original):
        cached = lru_cache(maxsize=None)(original)
        return lambda name, shape: cached(name, shape).copy()

    return replaced(seeded_tensor, make)


def failed_rows(check: Check, files: list[Path]) -> list[str] | None:
    """Rows of the check that fail, on every file of its kind; None if there is none."""
    report = Report(show=False)
    for path in files:
        with report.attempt(f"{check.file}: stopped"):
            check.function(Vectors(path), report)
    return report.failed if files else None


def rows_that_notice(wrongs: list[Wrong], files_by_kind: dict[str, list[Path]], number: int) -> list[str] | None:
    """Rows that fail with the wrong of this number; None if there are no vectors for it."""
    wrong = wrongs[number]
    with wrong.patch():
        failed = [failed_rows(check, files_by_kind.get(check.file, [])) for check in wrong.checks]
    return None if all(names is None for names in failed) else [name for names in failed for name in names or []]


def try_all(wrongs: list[Wrong], files_by_kind: dict[str, list[Path]], workers: int = 1) -> list[Row]:
    """Run every wrong, and print a line for each as it comes. Ends the command if a check fails without any."""
    checks = dict.fromkeys(itertools.chain.from_iterable(wrong.checks for wrong in wrongs))
    jobs = [*(Wrong(check.file, nullcontext, (check,)) for check in checks), *wrongs]
    rows = []
    with cached_weights()():
        run = partial(rows_that_notice, jobs, files_by_kind)
        for wrong, noticed in zip(jobs, map_images(run, range(len(jobs)), workers, "mutations", unit="wrong")):
            if len(rows) < len(checks) and noticed:
                print(f"{wrong.name}: {', '.join(noticed)} fail without any mistake; mend that first", file=sys.stderr)
                sys.exit(1)
            rows.append(Row(wrong, noticed))
            if len(rows) > len(checks):
                print(rows[-1], flush=True)
    return rows[len(checks) :]


def print_table(wrongs: list[Wrong], files_by_kind: dict[str, list[Path]]) -> int:
    """Print the table; 0 if every wrong is noticed or explained."""
    start = time.perf_counter()
    print(f"{'wrong':<52} rows that noticed")
    rows = try_all(wrongs, files_by_kind, default_workers())
    unnoticed = [row for row in rows if not row.ok]
    print(
        f"{len(rows)} wrongs, {sum(bool(row.noticed) for row in rows)} noticed, {len(unnoticed)} unnoticed without a "
        f"reason, {time.perf_counter() - start:.0f} s"
    )
    return 1 if unnoticed else 0
