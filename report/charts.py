"""Charts of a report: SVG that stands in the page itself, so that its text follows the page's light or dark colours."""

import io
import re
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

# Matplotlib knows no CSS variables; these colours stand for them until the SVG is written.
INK, FAINT = "#010203", "#010204"
CSS_COLOURS = {INK: "currentColor", FAINT: "var(--line)"}

# Colours of the maps, and of curves and runs; each reads on white and on near-black.
COLOURS = ("#d9822b", "#3d8bd4", "#a463c9", "#c9546b", "#2a9d6f", "#8a8f98", "#b59a1e", "#1aa3a8")

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",             # text stays text: small, sharp, and in the page's font
    "svg.hashsalt": "report",           # the same numbers give the same file
    "text.parse_math": False,           # a class may be called "$"
    "font.size": 8.5, "axes.titlesize": 9, "axes.titlelocation": "left", "axes.titlepad": 8,
    "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.titlecolor": INK,
    "axes.grid": True, "axes.grid.axis": "x", "axes.axisbelow": True, "grid.color": FAINT, "grid.linewidth": 0.6,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False, "axes.spines.right": False, "xtick.major.size": 0, "ytick.major.size": 0,
    "axes.facecolor": "none", "figure.facecolor": "none", "savefig.facecolor": "none",
}
WIDTH = 4.5                             # inches: 8.5 points stay readable on a screen of 400 pixels
ROW = 0.27                              # height of a class in inches
SEEDS = "seeds/"                        # of these curves, see frame.seed_health
RATIO_LIMITS = (1 / 16, 16)             # area ratios beyond are drawn at the border


def iou_chart(classes: list[str], counts: dict[str, int], bars: dict[str, float], dots: dict[str, dict[str, float]],
              colours: dict[str, str]) -> Markup:
    """Training images and IoU of each class, from the top in the order of `classes`.

    counts   class -> n_c; {} leaves the panel out
    bars     class -> IoU in per cent (or None) of the last result
    dots     map -> class -> IoU of the results before
    colours  map -> colour
    """
    with rc_context(STYLE):
        figure = _figure(len(classes))
        if counts:
            left, axes = figure.subplots(1, 2, sharey=True, width_ratios=(1, 2.6))
            _count_bars(left, classes, counts)
        else:
            left = axes = figure.subplots()
        iou = [bars.get(name) or 0 for name in classes]
        axes.barh(np.arange(len(classes)), iou, color=colours["bar"], alpha=0.45, height=0.62)
        _dots(axes, classes, dots, colours)
        axes.set_title("IoU in per cent")
        axes.set_xlim(0, 100)
        _name_rows(left, classes)
        return _svg(figure, "IoU of each class, the most frequent class first")


def _count_bars(axes, classes: list[str], counts: dict[str, int]) -> None:
    known = [counts.get(name, 0) for name in classes]
    axes.barh(np.arange(len(classes)), known, color=COLOURS[5], height=0.62)
    axes.set_title("training images")
    for row, count in enumerate(known):
        if classes[row] in counts:
            axes.annotate(f"{count}", (count, row), (3, 0), textcoords="offset points", va="center")
    axes.set_xlim(0, 1.35 * max(known))
    axes.set_xticks([])


def area_chart(classes: list[str], ratios: dict[str, dict[str, float]], colours: dict[str, str]) -> Markup:
    """Predicted area / true area of each class, logarithmic around 1. ratios: map -> class -> ratio, or None."""
    low, high = RATIO_LIMITS
    clipped = {label: {name: None if value is None else min(max(value, low), high) for name, value in values.items()}
               for label, values in ratios.items()}
    with rc_context(STYLE):
        figure = _figure(len(classes))
        axes = figure.subplots()
        axes.set_xscale("log", base=2)
        for row, name in enumerate(classes):
            found = [values[name] for values in clipped.values() if values.get(name) is not None]
            if found:
                axes.plot([min(found), max(found)], [row, row], color=FAINT, linewidth=3, zorder=1)
        _dots(axes, classes, clipped, colours)
        shown = [value for values in clipped.values() for value in values.values() if value is not None]
        reach = max([1.6] + [max(value, 1 / value) for value in shown]) * 1.12
        axes.set_xlim(1 / reach, reach)
        axes.axvline(1, color=INK, linewidth=1)
        powers = [2.0 ** power for power in range(-4, 5)] if reach > 2.5 else [0.5, 2 / 3, 0.8, 1, 1.25, 1.5, 2]
        axes.xaxis.set_major_locator(FixedLocator([power for power in powers if 1 / reach <= power <= reach]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2f}".rstrip("0").rstrip(".") + "×"))
        axes.set_title("← under-activated", loc="left")
        axes.set_title("over-activated →", loc="right")
        _name_rows(axes, classes)
        return _svg(figure, "Predicted area divided by true area of each class, the most frequent class first")


def training_chart(stage: str, curves: dict[str, tuple[list[int], list[float]]]) -> Markup:
    """Losses over the steps, and the learning rate below. curves: loss, or "lr" -> (steps, values)."""
    losses = {name: points for name, points in curves.items() if name != "lr" and not name.startswith(SEEDS)}
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
        for axes in (top, bottom):
            axes.grid(axis="y")
        for colour, (name, points) in zip(COLOURS * len(losses), losses.items()):
            top.plot(*points, color=colour, linewidth=1.4, label=name)
        if all(value > 0 for _, values in losses.values() for value in values):
            top.set_yscale("log")
            top.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            top.yaxis.set_minor_formatter(NullFormatter())
        top.set_title(f"{stage}: losses")
        figure.legend(loc="outside lower center", ncols=max(len(losses), 1), frameon=False, handlelength=1.2,
                      columnspacing=1.2)
        if "lr" in curves:
            bottom.plot(*curves["lr"], color=INK, linewidth=1.2)
            bottom.set_ylim(bottom=0)
        bottom.set_title("learning rate")
        bottom.set_xlabel("step")
        return _svg(figure, f"Losses and learning rate of {stage}")


def seed_chart(curves: dict[str, tuple[list[int], list[float]]]) -> Markup | None:
    """How the seeds of the prototypes were over the steps (frame.seed_health); None where that was not logged."""
    seeds = {name.removeprefix(SEEDS): points for name, points in curves.items() if name.startswith(SEEDS)}
    if not seeds:
        return None
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.grid(axis="y")
        for colour, (name, points) in zip(COLOURS, seeds.items()):
            axes.plot(*points, color=colour, linewidth=1.4, label=name.replace("_", " "))
        axes.set_ylim(0, 1)
        axes.set_title("seeds of the prototypes: shares, and M_W of the classes of an image")
        axes.set_xlabel("step")
        figure.legend(loc="outside lower center", ncols=2, frameon=False, handlelength=1.2, columnspacing=1.2)
        return _svg(figure, "Seeds of the prototypes over the steps")


def difference_chart(classes: list[str], differences: dict[str, dict[str, float | None]]) -> Markup:
    """Difference in IoU of each class. differences: run -> class -> points of per cent, or None."""
    thickness = 0.8 / max(len(differences), 1)
    with rc_context(STYLE):
        figure = _figure(len(classes), row=max(ROW, 0.13 * len(differences) + 0.08))
        axes = figure.subplots()
        for position, values in enumerate(differences.values()):
            rows = np.arange(len(classes)) - 0.4 + thickness * (position + 0.5)
            axes.barh(rows, [values.get(name) or 0 for name in classes], height=0.9 * thickness,
                      color=COLOURS[(position + 1) % len(COLOURS)])
        axes.axvline(0, color=INK, linewidth=1)
        axes.margins(x=0.08)
        axes.set_title("← worse", loc="left")
        axes.set_title("better →", loc="right")
        _name_rows(axes, classes)
        return _svg(figure, "Difference in IoU of each class, the most frequent class first")


def _figure(rows: int, row: float = ROW) -> Figure:
    return Figure(figsize=(WIDTH, 0.55 + row * rows), layout="constrained")


def _name_rows(axes, classes: list[str]) -> None:
    axes.set_yticks(range(len(classes)), classes)
    axes.set_ylim(len(classes) - 0.4, -0.6)


def _dots(axes, classes: list[str], values: dict[str, dict[str, float]], colours: dict[str, str]) -> None:
    for label, of_class in values.items():
        points = [(of_class[name], row) for row, name in enumerate(classes) if of_class.get(name) is not None]
        if points:
            axes.scatter(*zip(*points), s=22, color=colours[label], zorder=3, clip_on=False)


def _svg(figure: Figure, description: str) -> Markup:
    """The figure as an <svg> element that fills its column, without the names and addresses of an SVG file."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Format": None, "Type": None, "Creator": None, "Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg"):]
    view_box, = re.findall(r'viewBox="[^"]*"', text)[:1]
    opening = f'<svg {view_box} role="img" aria-label="{escape(description)}">'
    text = opening + text[text.index(">") + 1:]
    # Ids of groups repeat from chart to chart, and a style sheet would hold for the whole page.
    text = re.sub(r'<g id="[^"]*"', "<g", re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL))
    for stand_in, colour in CSS_COLOURS.items():
        text = text.replace(stand_in, colour)
    return Markup(text)
