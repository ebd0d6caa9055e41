"""Puts in every wrong and lists which rows notice it."""

import itertools
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Callable, NamedTuple

from parity.mutations.patch import Patch, replaced
from parity.report import Report
from parity.seeded_weights import seeded_tensor
from parity.vectors import Vectors


class Check(NamedTuple):
    """A part of the parity check: the file of vectors it reads, and the function that adds rows."""
    file: str
    function: Callable[[Vectors, Report], None]


class Wrong(NamedTuple):
    """One mistake.

    name      what is wrong
    patch     puts it in
    checks    the parts of the parity check that it can touch
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


def cached_weights() -> Patch:
    """Weights are the same for every wrong: they are drawn once. Callers may write into what they get."""
    def make(original):
        cached = lru_cache(maxsize=None)(original)
        return lambda name, shape: cached(name, shape).copy()
    return replaced(seeded_tensor, make)


def run(check: Check, files: list[Path]) -> list[str] | None:
    """Rows of the check that fail, on every file of its kind; None if there is none."""
    report = Report(show=False)
    for path in files:
        with report.attempt(f"{check.file}: stopped"):
            check.function(Vectors(path), report)
    return report.failed if files else None


def try_out(wrongs: list[Wrong], files_by_kind: dict[str, list[Path]]) -> list[Row]:
    """Run every wrong; prints as it goes. Ends the command if a check fails without any."""
    rows = []
    with cached_weights()():
        for check in dict.fromkeys(itertools.chain.from_iterable(wrong.checks for wrong in wrongs)):
            failed = run(check, files_by_kind.get(check.file, []))
            if failed:
                print(f"{check.file}: {', '.join(failed)} fail without any mistake; mend that first", file=sys.stderr)
                sys.exit(1)
        for wrong in wrongs:
            rows.append(notice(wrong, files_by_kind))
            print(line_of(rows[-1]), flush=True)
    return rows


def notice(wrong: Wrong, files_by_kind: dict[str, list[Path]]) -> Row:
    with wrong.patch():
        failed = [run(check, files_by_kind.get(check.file, [])) for check in wrong.checks]
    if all(names is None for names in failed):
        return Row(wrong, None)
    return Row(wrong, [name for names in failed for name in names or []])


def line_of(row: Row) -> str:
    if row.noticed is None:
        said = "not run: no vectors"
    elif row.noticed:
        said = f"{len(row.noticed)}: {', '.join(row.noticed[:4])}{', ...' if len(row.noticed) > 4 else ''}"
    else:
        said = f"no row, and none can: {row.wrong.unnoticed}" if row.wrong.unnoticed else "NO ROW"
    return f"{row.wrong.name:<52} {said}"


def try_all(wrongs: list[Wrong], files_by_kind: dict[str, list[Path]]) -> int:
    """Print the table; 0 if every wrong is noticed or explained."""
    start = time.perf_counter()
    print(f"{'wrong':<52} rows that noticed")
    rows = try_out(wrongs, files_by_kind)
    unnoticed = [row.wrong.name for row in rows if not row.ok]
    noticed = sum(bool(row.noticed) for row in rows)
    print(f"{len(rows)} wrongs, {noticed} noticed, {len(unnoticed)} unnoticed without a reason, "
          f"{time.perf_counter() - start:.0f} s")
    return 1 if unnoticed else 0
