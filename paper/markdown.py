"""Markdown tables, aligned so that they can be read as they stand, and numbers with their spread."""

import statistics
from collections.abc import Callable


def table(header: list[str], rows: list[list[str]]) -> str:
    """A table of cells."""
    cells = [header, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def spread(values: list[float], text: Callable[[float], str]) -> str | None:
    """"mean ± standard deviation" of a sample, each written by `text`; the mean alone of one value, None for none."""
    if not values:
        return None
    deviation = f" ± {text(statistics.stdev(values))}" if len(values) > 1 else ""
    return text(statistics.mean(values)) + deviation
