"""Finished runs as the paper's tables: Markdown to read and CSV to compute with, each number with its spread."""

import csv
import io
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from data.sample import write_text
from paper import markdown
from paper.class_sets import class_sets, default_thresholds
from refine.scored_maps import plain, variant_of
from report.finished_run import FinishedRun
from report.numbers import mean
from report.published import BASE, CLASS_SETS, GAIN_TITLE, GAINS, NO_SCORE, SETTINGS, TABLES, Row, compared_rows

# Ways to score a row: as the paper's number (a CAM after the background step), a CAM without the step, and with the
# foreground threshold that pixel labels say is best.
AS_PAPER, PLAIN, ORACLE = VARIANTS = ("scored as the paper", "plain", "oracle threshold")
LONG_TAILED, BALANCED = "long-tailed", "balanced"
COLUMNS = ("table", "row", "setting", "data", "map", "quantity", "paper", "mean", "standard deviation", "seeds",
           "values")


class Series(NamedTuple):
    """Runs that differ in setting and seed alone.

    data  LONG_TAILED or BALANCED for the generated twins, else the name of the data set
    runs  (setting, segmentation network, seed) -> run
    """
    data: str
    runs: dict[tuple[str, str, int], FinishedRun]

    def seeds(self) -> list[int]:
        return sorted({seed for _, _, seed in self.runs})


class Line(NamedTuple):
    """One quantity with its values over seeds."""
    row: str
    setting: str
    data: str
    map: str
    quantity: str
    paper: float | None
    values: dict[int, float]            # seed -> value

    def cell(self) -> str:
        return spread(list(self.values.values()))


def spread(values: list[float]) -> str:
    """"mean ± standard deviation (number)" of the values, "-" for none."""
    return f"{markdown.spread(values, '{:.1f}'.format)} ({len(values)})" if values else "-"


def switched_on(setting: str) -> str:
    """What a setting of Tables 4 and 5 has, in the paper's words."""
    flags = SETTINGS[setting]
    off = {name for name, value in zip(flags, (*flags[1:], "")) if value == "0" or name.startswith("--no-")}
    parts = [("IBR", "--no-ibr" not in off)]
    for loss, weight, dc in (("L_DW^P", "--dw_p_weight", "--no-dc_p"), ("L_DW^W", "--dw_w_weight", "--no-dc_w")):
        parts.append((loss + (" without DC" if dc in off else ""), weight not in off))
    return ", ".join(name for name, on in parts if on) or "none"


# --- numbers --------------------------------------------------------------------------------------------------

def score(run: FinishedRun, row: Row, variant: str) -> float | None:
    """mIoU in per cent of a row of a table, None where the run does not have it."""
    name = score_name(row, variant)
    if variant == ORACLE:
        return run.oracle_miou(row.stage, name)
    if variant == PLAIN and name == row.score:                   # of no CAM
        return None
    return run.score(row.stage, name).get("miou")


def score_name(row: Row, variant: str) -> str:
    """Name in metrics.json of what a variant of a row scores."""
    return row.score if variant == AS_PAPER else plain(row.score)


def row_line(series: Series, row: Row, heading: str) -> Line:
    values = {seed: value for seed in series.seeds() if (run := series.runs.get((row.setting, row.seg_net, seed)))
              and (value := score(run, row, heading)) is not None}
    return Line(row.label, row.setting, series.data, score_name(row, heading), heading, row.paper, values)


def minus(a: dict[int, float], b: dict[int, float]) -> dict[int, float]:
    """Differences of the seeds that both have."""
    return {seed: a[seed] - b[seed] for seed in a if seed in b}


def gain_lines(series: Series, sets_of: dict[int, dict[str, list[int]]]) -> list[Line]:
    """Table 7: what each setting gains over Base, on all classes and on each class set, with and without the step.

    sets_of  seed -> indices of the classes in "many", "medium" and "few"; seeds that it lacks have no sets
    """
    lines = []
    for setting, published in GAINS.items():
        final = next(row for row in compared_rows(7) if row.setting == setting)
        for name, paper in zip(CLASS_SETS, published):
            for heading in (AS_PAPER, PLAIN):
                values = {}
                for seed in series.seeds():
                    classes = None if name == CLASS_SETS[0] else sets_of.get(seed, {}).get(name, [])
                    of_final, of_base = (set_mean(series.runs.get((row.setting, "", seed)), row.stage,
                                                  score_name(row, heading), classes) for row in (final, BASE))
                    if of_final is not None and of_base is not None:
                        values[seed] = of_final - of_base
                lines.append(Line(f"{setting} {name}", setting, series.data, score_name(final, heading), heading, paper,
                                  values))
    return lines


def set_mean(run: FinishedRun | None, stage: str, name: str, classes: list[int] | None) -> float | None:
    """Mean IoU of foreground `classes` (0-based), None of none; with None the mIoU of all, background included."""
    scores = run and run.score(stage, name)
    if not scores:
        return None
    if classes is None:
        return scores["miou"]
    ious = list(scores["class_iou"].values())[1:]                        # without the background
    return mean(ious[index] for index in classes)


def sets_by_seed(series: Series, thresholds: tuple[float, float] | None) -> dict[int, dict[str, list[int]]]:
    """Class sets of each seed from the training counts n_c of its run."""
    out = {}
    for (setting, _, seed), run in series.runs.items():
        if setting == BASE.setting and run.counts:
            out[seed] = class_sets(run.counts, *(thresholds or default_thresholds(run.counts)))
    return out


# --- tables ---------------------------------------------------------------------------------------------------

def write_table(number: int, series: list[Series], folder: Path, name: str, command: str,
                thresholds: tuple[float, float] | None = None) -> list[Path]:
    """Write NAME_tableN.md and .csv into `folder`, print the first; their paths.

    series      the runs; of two, the second is the balanced twin of the first
    thresholds  (many, few) of Table 7, None: thirds of the classes
    """
    if number == 7:
        sets = sets_by_seed(series[0], thresholds)           # a twin is divided as the long-tailed set of its seed
        lines = [line for part in series for line in gain_lines(part, sets)]
        tables = [gain_table(lines, series)]
    else:
        lines = [row_line(part, row, heading) for part in series for row in TABLES[number].rows for heading in VARIANTS]
        lines = [line for line in lines if line.values or line.quantity == AS_PAPER]
        tables = [score_table(number, lines, series)]
        if len(series) == 2 and len(TABLES[number].rows) > 1:
            tables.append(twin_table(number, lines))
    title = GAIN_TITLE if number == 7 else TABLES[number].title
    text = "\n".join([f"# Table {number}: {title}", "", *(f"{table}\n" for table in tables),
                      *facts(number, series, command, thresholds), ""])
    print(text)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}_table{number}.md", folder / f"{name}_table{number}.csv"]
    for path, content in zip(paths, (text, as_csv(number, lines))):
        write_text(path, content)
    return paths


def score_table(number: int, lines: list[Line], series: list[Series]) -> str:
    """Rows of the paper's table; columns: its number, then ours on each data set in each variant that was scored."""
    columns = [(part.data, heading) for part in series for heading in VARIANTS
               if any((line.data, line.quantity) == (part.data, heading) and line.values for line in lines)]
    cells = {(line.row, line.data, line.quantity): line.cell() for line in lines}
    rows = [[row.label, switched_on(row.setting), "server" if row.score == NO_SCORE else row.score, f"{row.paper:.1f}",
             *(cells.get((row.label, *column), "-") for column in columns)] for row in TABLES[number].rows]
    return markdown.table(["row", "on", "scored", "paper", *(f"{data}, {heading}" for data, heading in columns)], rows)


def twin_table(number: int, lines: list[Line]) -> str:
    """Gains over the table's first row on both twins, paired by seed, and their difference: what the long tail does."""
    first, *others = TABLES[number].rows
    rows = []
    for heading in VARIANTS:
        found = {(line.row, line.data): line.values for line in lines if line.quantity == heading}
        for row in others:
            gains = [minus(found.get((row.label, data), {}), found.get((first.label, data), {}))
                     for data in (LONG_TAILED, BALANCED)]
            if gains[0] and gains[1]:
                rows.append([row.label, heading, f"{row.paper - first.paper:+.1f}",
                             *(spread(list(values.values())) for values in (*gains, minus(*gains)))])
    return markdown.table([f"gain over {first.label}", "variant", "paper", LONG_TAILED, BALANCED, "difference"], rows)


def gain_table(lines: list[Line], series: list[Series]) -> str:
    found = {(line.row, line.data, line.quantity): line.values for line in lines}
    published = {line.row: line.paper for line in lines}
    rows = []
    for row, paper in published.items():
        cells = []
        for heading in (AS_PAPER, PLAIN):
            parts = [found[row, part.data, heading] for part in series]
            cells += [*parts, minus(*parts)] if len(parts) == 2 else parts
        rows.append([row, f"{paper:.1f}", *(spread(list(values.values())) for values in cells)])
    columns = [part.data for part in series] + ["difference"] * (len(series) == 2)
    headings = [f"{column}, {heading}" for heading in (AS_PAPER, PLAIN) for column in columns]
    return markdown.table(["gain over Base", "paper", *headings], rows)


def facts(number: int, series: list[Series], command: str, thresholds) -> list[str]:
    """What the numbers are: split, seeds, machine, dates, command."""
    runs = [run for part in series for run in part.runs.values()]
    machines = [run.machine(stage) for run in runs for stage in run.stages]
    dates = sorted(machine["finished"][:10] for machine in machines if "finished" in machine)
    splits = listed("; ", (split for run in runs for split in run.splits))
    paper = "VOC 12 train" if number == 7 else TABLES[number].split
    lines = ["mIoU in per cent: mean ± standard deviation (number of seeds). \"-\": not run, or no such score.",
             f"Paper: {paper}. Ours: {splits or 'nothing run yet'}."]
    if any(variant_of(row.score) is not None for row in compared_rows(number)):
        lines.append("The paper's numbers of CAMs stand beside ours after the background step (+step), because the "
                     "release's scripts score no others; \"plain\": without the step.")
    if dates:
        hardware, torch = (listed(", ", (machine[key] for machine in machines)) for key in ("hardware", "torch"))
        lines.append(f"Run {dates[0]} to {dates[-1]} on {hardware} with PyTorch {torch}.")
    if number == 7:
        sets = ("thirds of the classes by n_c" if thresholds is None else
                f"many n_c > {thresholds[0]}, few n_c < {thresholds[1]}")
        lines.append(f"Class sets: {sets}; the paper gives no thresholds. Overall includes the background, the sets do "
                     "not.")
    return [*lines, f"Command: `{command}`"]


def listed(separator: str, items: Iterable[str]) -> str:
    """The items, each once."""
    return separator.join(dict.fromkeys(items))


def as_csv(number: int, lines: list[Line]) -> str:
    """One row a quantity; `values` are seed:value pairs."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in lines:
        values = list(line.values.values())
        writer.writerow([number, line.row, line.setting, line.data, line.map, line.quantity, line.paper,
                         round(statistics.mean(values), 3) if values else "",
                         round(statistics.stdev(values), 3) if len(values) > 1 else "", len(values),
                         " ".join(f"{seed}:{value:.3f}" for seed, value in line.values.items())])
    return text.getvalue()
