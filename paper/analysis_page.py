"""What tools.analyse writes: tables in JSON, CSV and Markdown, and plots against class frequency."""

import csv
import io
import json
from pathlib import Path

from matplotlib.figure import Figure

from data.sample import write_atomically
from paper import markdown
from paper.cam_counts import ARGMAX, ORACLE
from paper.shared_features import PART_REGIONS, REGIONS
from refine.scored_maps import CAMS, PROTOTYPE_CAM, WEIGHT_CAM
from report.charts import COLOURS


def write(folder: Path, result: dict) -> None:
    """analysis.json, analysis.csv, analysis.md and the plots."""
    folder.mkdir(exist_ok=True)
    texts = {"analysis.json": json.dumps(result, indent=2) + "\n", "analysis.csv": csv_text(result), "analysis.md": page(result)}
    for name, text in texts.items():
        write_atomically(folder / name, lambda file: file.write(text.encode()))
    for name, figure in figures(result).items():
        write_atomically(folder / name, lambda file: figure.savefig(file, format="png", dpi=120))


def csv_text(result: dict) -> str:
    """A row a class, map and background rule. The projections are those of W_c beside M_W and of P_c beside M_P."""
    vectors = {WEIGHT_CAM: "weight", PROTOTYPE_CAM: "prototype"}
    of_class = {entry["class"]: entry for entry in result["classes"]}
    table = []
    for row in result["maps"]:
        entry = of_class[row["class"]]
        vector = entry.get(vectors.get(row["map"]), {})
        table.append({"class": row["class"], "n_c": entry["n_c"], "dc": entry["dc"], "set": entry["set"]} | row
                     | {f"{measure}_{region}": vector.get(region, {}).get(measure)
                        for region in REGIONS for measure in ("projection", "cosine")}
                     | {f"gradient_{key}": value for key, value in entry["gradient"].items()})
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, table[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return buffer.getvalue()


def page(result: dict) -> str:
    """analysis.md."""
    classes = sorted(result["classes"], key=lambda entry: -entry["n_c"])
    order = {entry["class"]: position for position, entry in enumerate(classes)}
    rows = sorted(result["maps"], key=lambda row: (order[row["class"]], list(CAMS).index(row["map"]), row["background"]))
    regions = [region for region in REGIONS if any(e["weight"][region]["cosine"] is not None for e in classes)]
    gradient = list(classes[0]["gradient"])
    parts = [f"# Shared features in {result['run']}",
             f"{result['images']} images scored, gradients of {result['training_images']} training images. Head class: "
             f"{result['head']}. Many: n_c > {result['thresholds']['many']:g}, few: n_c < {result['thresholds']['few']:g} "
             "(tertiles). Maps without background step; `oracle`: foreground above the threshold that gives the map its best "
             "mIoU, chosen with pixel labels. Scores in per cent; areas are ratios to the true area.",
             "## Against class frequency", summary(result), "## Class sets", table(result["sets"])]
    for kind, title in (("weight", "Classifier weights W_c on mean features of the last stage"),
                        ("prototype", "Prototypes P_c on mean side features")):
        parts += [f"## {title}", "Inner product / cosine. " + "; ".join(f"{r}: {REGIONS[r]}" for r in regions) + ".",
                  table([{"class": e["class"], "n_c": e["n_c"], "part": ", ".join(e["shared_parts"])}
                         | {r: f"{number(e[kind][r]['projection'])} / {number(e[kind][r]['cosine'])}" for r in regions}
                         for e in classes])]
    parts += ["## Gradients of L_cls", "Sums and means of |dL/ds_c| over whole training images at scale 1; `at_start`: all "
              "scores 0, the counts alone; `kin`: negatives among images that show a class with the same shared part.",
              table([{"class": e["class"], "n_c": e["n_c"]} | {key: e["gradient"][key] for key in gradient} for e in classes]),
              "## Maps", table([{"n_c": classes[order[row["class"]]]["n_c"]} | row for row in rows])]
    return "\n\n".join(parts) + "\n"


def summary(result: dict) -> str:
    return table(result["conclusions"])


def across_runs(results: list[dict]) -> str:
    """Table of the conclusions' quantities as mean ± standard deviation over runs.

    `agree`: runs whose rho has the sign that the paper expects, of those that have a rho.
    """
    rows = []
    for entries in zip(*(result["conclusions"] for result in results)):
        sign = {"rho > 0": 1, "rho < 0": -1}.get(entries[0]["expected"][:7])
        rhos = [entry["rho"] for entry in entries if entry["rho"] is not None]
        rows.append({"conclusion": entries[0]["conclusion"], "quantity": entries[0]["quantity"], "expected": entries[0]["expected"],
                     "rho": markdown.spread(rhos, number), "agree": f"{sum(rho * sign > 0 for rho in rhos)} of {len(rhos)}" if sign else None}
                    | {key: markdown.spread([entry[key] for entry in entries if entry[key] is not None], number)
                       for key in ("mean_many", "mean_medium", "mean_few")})
    return table(rows)


def table(rows: list[dict]) -> str:
    """A row a dictionary, all with the keys of the first."""
    return markdown.table(list(rows[0]), [[number(value) for value in row.values()] for row in rows])


def number(value) -> str:
    """A cell of a table; – for None."""
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def figures(result: dict) -> dict[str, Figure]:
    """file name -> plot against n_c; classes without training image are left out."""
    classes = {entry["class"]: entry for entry in result["classes"] if entry["n_c"]}
    count = {name: entry["n_c"] for name, entry in classes.items()}
    regions = PART_REGIONS if any(entry["shared_parts"] for entry in classes.values()) else ("own", "others", "background")

    def of_maps(key, rule):
        return {name: {row["class"]: row[key] for row in result["maps"] if row["map"] == name and row["background"] == rule}
                for name in CAMS}

    def cosines(kind):
        return {region: {name: entry[kind][region]["cosine"] for name, entry in classes.items()} for region in regions}

    ratios = {key: {name: entry["gradient"][key] for name, entry in classes.items()}
              for key in ("ratio", "ratio_at_start", "ratio_kin", "ratio_kin_at_start")}
    return {
        "area_ratio.png": against_frequency(count, {f"predicted / true area, {rule}": of_maps("area_ratio", rule)
                                                    for rule in (ARGMAX, ORACLE)}, neutral=1, log=True),
        "iou.png": against_frequency(count, {f"IoU in per cent, {rule}": of_maps("iou", rule) for rule in (ARGMAX, ORACLE)}),
        "projection.png": against_frequency(count, {"cosine of W_c and mean features": cosines("weight"),
                                                    "cosine of P_c and mean side features": cosines("prototype")}, neutral=0),
        "gradient.png": against_frequency(count, {"sum of positive / negative gradients": ratios}, neutral=1, log=True),
    }


def against_frequency(count: dict[str, int], panels: dict[str, dict[str, dict[str, float]]], neutral: float | None = None,
                      log: bool = False) -> Figure:
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
