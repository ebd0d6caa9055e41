"""What tools.analyse writes: tables in JSON, CSV and Markdown, and plots against class frequency."""

import csv
import io
import json
from functools import partial
from pathlib import Path

from data.sample import write_atomically, write_text
from paper import markdown
from paper.shared_features import REGIONS
from refine.scored_maps import CAMS, PROTOTYPE_CAM, WEIGHT_CAM

ABOUT = (
    "{images} images scored, gradients of {training_images} training images. Head class: {head}. Many: n_c > "
    "{thresholds[many]:g}, few: n_c < {thresholds[few]:g} (tertiles). Maps without background step; `oracle`: "
    "foreground above the threshold that gives the map its best mIoU, chosen with pixel labels. Scores in per cent; "
    "areas are ratios to the true area.")


def write(folder: Path, result: dict) -> None:
    """analysis.json, analysis.csv, analysis.md and the plots."""
    from paper.analysis_plots import figures  # matplotlib takes a second that --help saves
    folder.mkdir(exist_ok=True)
    texts = {"analysis.json": json.dumps(result, indent=2) + "\n", "analysis.csv": csv_text(result),
             "analysis.md": page(result)}
    for name, text in texts.items():
        write_text(folder / name, text)
    for name, figure in figures(result).items():
        write_atomically(folder / name, partial(figure.savefig, format="png", dpi=120))


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
    rows = sorted(result["maps"],
                  key=lambda row: (order[row["class"]], list(CAMS).index(row["map"]), row["background"]))
    regions = [region for region in REGIONS if any(e["weight"][region]["cosine"] is not None for e in classes)]
    parts = [f"# Shared features in {result['run']}", ABOUT.format(**result),
             "## Against class frequency", summary(result), "## Class sets", table(result["sets"])]
    for kind, title in (("weight", "Classifier weights W_c on mean features of the last stage"),
                        ("prototype", "Prototypes P_c on mean side features")):
        parts += [f"## {title}", "Inner product / cosine. " + "; ".join(f"{r}: {REGIONS[r]}" for r in regions) + ".",
                  table([{"class": e["class"], "n_c": e["n_c"], "part": ", ".join(e["shared_parts"])}
                         | {r: f"{number(e[kind][r]['projection'])} / {number(e[kind][r]['cosine'])}" for r in regions}
                         for e in classes])]
    parts += ["## Gradients of L_cls",
              "Sums and means of |dL/ds_c| over whole training images at scale 1; `at_start`: all scores 0, the counts "
              "alone; `kin`: negatives among images that show a class with the same shared part.",
              table([{"class": e["class"], "n_c": e["n_c"]} | e["gradient"] for e in classes]),
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
        agree = f"{sum(rho * sign > 0 for rho in rhos)} of {len(rhos)}" if sign else None
        rows.append({key: entries[0][key] for key in ("conclusion", "quantity", "expected")}
                    | {"rho": markdown.spread(rhos, number), "agree": agree}
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
