"""Plots of an analysis: what it measures of each class, against class frequency."""

from matplotlib.figure import Figure

from paper.cam_counts import ARGMAX, ORACLE
from paper.shared_features import PART_REGIONS
from refine.scored_maps import CAMS
from report.charts import COLOURS


def figures(result: dict) -> dict[str, Figure]:
    """file name -> plot against n_c; classes without training image are left out."""
    classes = {entry["class"]: entry for entry in result["classes"] if entry["n_c"]}
    count = {name: entry["n_c"] for name, entry in classes.items()}
    has_parts = any(entry["shared_parts"] for entry in classes.values())
    regions = PART_REGIONS if has_parts else ("own", "others", "background")

    def of_maps(key, rule):
        return {name: {row["class"]: row[key] for row in result["maps"]
                       if row["map"] == name and row["background"] == rule} for name in CAMS}

    def cosines(kind):
        return {region: {name: entry[kind][region]["cosine"] for name, entry in classes.items()} for region in regions}

    ratios = {key: {name: entry["gradient"][key] for name, entry in classes.items()}
              for key in ("ratio", "ratio_at_start", "ratio_kin", "ratio_kin_at_start")}
    rules = (ARGMAX, ORACLE)
    areas = {f"predicted / true area, {rule}": of_maps("area_ratio", rule) for rule in rules}
    ious = {f"IoU in per cent, {rule}": of_maps("iou", rule) for rule in rules}
    vectors = {"cosine of W_c and mean features": cosines("weight"),
               "cosine of P_c and mean side features": cosines("prototype")}
    return {
        "area_ratio.png": against_frequency(count, areas, neutral=1, log=True),
        "iou.png": against_frequency(count, ious),
        "projection.png": against_frequency(count, vectors, neutral=0),
        "gradient.png": against_frequency(count, {"sum of positive / negative gradients": ratios}, neutral=1, log=True),
    }


def against_frequency(count: dict[str, int], panels: dict[str, dict[str, dict[str, float]]],
                      neutral: float | None = None, log: bool = False) -> Figure:
    """Points of every class over n_c (logarithmic). panels: title -> label -> class -> value or None.

    neutral  a line at this value;  log: logarithmic values
    """
    figure = Figure(figsize=(5 * len(panels), 4), layout="constrained")
    for axes, (title, series) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        if log:
            axes.set_yscale("log", base=2)
            axes.yaxis.set_major_formatter("{x:g}")
        for colour, (label, values) in zip(COLOURS, series.items()):
            points = [(count[name], values[name]) for name in count
                      if values.get(name) is not None and (values[name] > 0 or not log)]
            if points:
                axes.scatter(*zip(*points), s=22, color=colour, label=label)
        if log:
            low, high = axes.get_ylim()
            axes.set_ylim(min(low, 0.45), max(high, 2.2))             # 0.5, 1 and 2 always have a tick
        if neutral is not None:
            axes.axhline(neutral, color="grey", linewidth=1)
        axes.set_title(title, fontsize=9, loc="left")
        axes.set_xlabel("training images n_c")
        axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=len(series))
    return figure
