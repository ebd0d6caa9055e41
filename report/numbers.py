"""Arithmetic with numbers that may be missing: None in, None out."""

from collections.abc import Iterable

import numpy as np


def ratio(a: float | None, b: float | None) -> float | None:
    """a / b; None also where b is 0."""
    return a / b if a is not None and b else None


def per_cent(part: float, whole: float) -> float | None:
    """Share of the whole; None where that is 0."""
    return ratio(100 * float(part), float(whole))


def difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are there, None without any."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
