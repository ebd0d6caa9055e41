"""Rows of the parity check: a quantity, its error, what is allowed, and the verdict."""

from contextlib import contextmanager

import numpy as np
import torch

# Tolerances of tests/golden/README.md.
ABSOLUTE, RELATIVE = 1e-4, 1e-3
LABEL_AGREEMENT = 0.999


class Report:
    """Collects the rows, and prints them.

    rows       (quantity, passed), in the order of the checks
    unchecked  arrays that no checker read
    """

    def __init__(self, show: bool = True):
        self.show = show
        self.rows: list[tuple[str, bool]] = []
        self.unchecked: list[str] = []

    @property
    def failed(self) -> list[str]:
        return [name for name, ok in self.rows if not ok]

    def close(self, name: str, value, expected, absolute: float = ABSOLUTE, relative: float = RELATIVE) -> None:
        """|value - expected| <= absolute + relative |expected|; nan equals nan."""
        value, expected = as_array(value), as_array(expected)
        if value.shape != expected.shape:
            self.fail(name, f"shape {value.shape}, expected {expected.shape}")
            return
        both_nan = np.isnan(value) & np.isnan(expected)
        error = np.where(both_nan, 0, np.abs(value - expected)).ravel()
        allowed = np.where(both_nan, absolute, absolute + relative * np.abs(expected)).ravel()
        off = ~(error <= allowed)                                        # also where only one of the two is nan
        if off.any():
            error, allowed = error[off], allowed[off]
        worst = np.argmax(error)
        note = "" if expected.any() or expected.ndim == 0 else "  (0 everywhere)"
        self._add(name, error[worst], allowed[worst], not off.any(), note)

    def equal(self, name: str, value, expected) -> None:
        """Exactly equal."""
        self.close(name, value, expected, absolute=0, relative=0)

    def agree(self, name: str, labels: np.ndarray, expected: np.ndarray, share: float = LABEL_AGREEMENT) -> None:
        """Label maps agree on at least this share of the pixels; the error is the share that differs."""
        if labels.shape != expected.shape:
            self.fail(name, f"shape {labels.shape}, expected {expected.shape}")
            return
        differ = float(np.mean(labels != expected))
        self._add(name, differ, 1 - share, differ <= 1 - share)

    def fail(self, name: str, reason: str) -> None:
        self.rows.append((name, False))
        self.say(f"  {name:<32} FAILED: {reason}")

    @contextmanager
    def attempt(self, name: str):
        """An exception inside is one failed row: what follows still deserves its own."""
        try:
            yield
        except Exception as error:
            self.fail(name, f"{type(error).__name__}: {error}")

    def say(self, line: str) -> None:
        if self.show:
            print(line)

    def _add(self, name: str, error: float, allowed: float, ok: bool, note: str = "") -> None:
        self.rows.append((name, bool(ok)))
        self.say(f"  {name:<32} {error:>12.3e} {allowed:>12.3e}  {'ok' if ok else 'FAILED'}{note}")


def as_array(x) -> np.ndarray:
    return np.asarray(x.detach() if isinstance(x, torch.Tensor) else x, np.float64)
