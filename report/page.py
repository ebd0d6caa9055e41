"""Reports: what came out of a run, and runs side by side, each as one HTML file that opens without a network."""

import base64
import io
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from data.sample import IGNORE, InputError, write_text
from refine.metrics import ConfusionMatrix, as_prediction
from refine.scored_maps import FINAL_CAM_CRF, PSEUDO_MASK, STEP, plain
from report import charts
from report.finished_run import BACKGROUND, FinishedRun
from report.numbers import difference
from report.pictures import PALETTE, PANELS, as_rgb, stage_pictures
from report.published import FINAL_CAM, PROTOTYPE_CAM, WEIGHT_CAM
from report.scores_table import PAPER, rows
from runtime.command import default_workers
from runtime.device import AUTO
from runtime.parallel import map_images

# Maps in the order of the chain, as the paper writes them; the last one that was scored is drawn as bars.
CAM_LABELS = {WEIGHT_CAM: Markup("M<sub>W</sub>"), PROTOTYPE_CAM: Markup("M<sub>P</sub>"),
              FINAL_CAM: Markup("M<sub>final</sub>")}
LABELS = {name: label + STEP for name, label in CAM_LABELS.items()} | {
    FINAL_CAM_CRF: Markup("M<sub>final</sub> + CRF"), PSEUDO_MASK: Markup("pseudo mask")}
PLAIN_LABELS = {plain(name): label + ", plain" for name, label in CAM_LABELS.items()}
CHARTED = (WEIGHT_CAM, PROTOTYPE_CAM, FINAL_CAM, PSEUDO_MASK)
MAP_COLOURS = dict(zip(CHARTED, ("#d9822b", "#3d8bd4", "#a463c9", "#2a9d6f")))
PANEL_TITLES = {key: Markup(re.sub(r"\$M_{?(\w+)}?\$", r"M<sub>\1</sub>", title)) for key, title in PANELS.items()}

GROUP_SIZE = 6                      # images of each of the four groups
HEAD_SHARE = 0.25                   # of the classes are "head", and as many "tail"
PICTURE_SIDE = 320                  # pixels of the longer side of a picture
CHUNK = 32                          # images a process scores at a time


class ScoredImage(NamedTuple):
    """An image with the mIoU of its pseudo mask in per cent and the foreground classes of its ground truth."""
    name: str
    miou: float
    classes: tuple[str, ...]


# --- one run --------------------------------------------------------------------------------------------------

def write_report(path: str | Path, workers: int = default_workers(), device: str = AUTO) -> Path:
    """Write report.html into the work directory `path`; its path. Raises InputError for a directory without a run."""
    run = FinishedRun(path)
    groups, problem = picture_groups(run, workers, device)
    table = rows(run.metrics, run.benchmark)
    main_scores = [row for name in (*LABELS, *PLAIN_LABELS) for row in table if row[1] == name]
    main_scores += [row for row in table if row[0] == "eval_deeplab"]
    page = render("report.html.j2", run=run, labels=LABELS, row_labels=LABELS | PLAIN_LABELS,
                   paper=PAPER.get(run.benchmark or "", {}), main_scores=main_scores,
                   other_scores=[row for row in table if row not in main_scores],
                   map_colours=MAP_COLOURS, charts=class_charts(run),
                   curves=[chart for stage, curves in run.curves().items()
                           for chart in (charts.training_chart(stage, curves), charts.seed_chart(curves)) if chart],
                   facts=facts(run), stages=stage_rows(run), settings=setting_rows(run), class_rows=class_rows(run),
                   groups=groups, picture_problem=problem, panel_titles=PANEL_TITLES,
                   palette=class_colours(run.class_names))
    return _write(run.path / "report.html", page)


def facts(run: FinishedRun) -> dict[str, str]:
    """The line under the title: what ran where."""
    machines = [run.machine(stage) for stage in run.stages]

    def values(key: str) -> str:
        found = (machine[key] for machine in machines if machine.get(key))
        return ", ".join(dict.fromkeys(short_commit(v) if key == "commit" else str(v) for v in found)) or "unknown"

    return {"scored on": ", ".join(run.splits) or "nothing yet", "seed": str(run.settings.get("seed", "unknown")),
            "time": duration(sum(run.seconds().values())), "hardware": values("hardware"),
            "Python": values("python"), "PyTorch": values("torch"), "commit": values("commit"),
            "finished": max((machine.get("finished", "") for machine in machines), default="") or "not yet"}


def stage_rows(run: FinishedRun) -> list[dict]:
    """Time and speed of each stage. A training's speed is its own figure: its time includes start and end."""
    out = []
    for stage in run.stages:
        machine, metrics = run.machine(stage), run.metrics.get(stage, {})
        seconds = machine.get("seconds")
        speed = machine.get("images_per_second")
        if speed is None and seconds and "images" in metrics:
            speed = metrics["images"] / seconds
        out.append({"stage": stage, "complete": run.config[stage].get("complete", False), "seconds": seconds,
                    "speed": speed, "machine": machine})
    return out


def setting_rows(run: FinishedRun) -> list[tuple[str, str, str]]:
    """(flag, value, stages it holds for), sorted by flag."""
    stages: dict[tuple[str, str], list[str]] = {}
    for stage in run.stages:
        for name, value in run.config[stage]["settings"].items():
            stages.setdefault((name, str(value)), []).append(stage)
    return [(name, value, "all" if len(where) == len(run.stages) > 1 else ", ".join(where))
            for (name, value), where in sorted(stages.items())]


def class_charts(run: FinishedRun) -> list[Markup]:
    """IoU and area ratio of each class, the most frequent first; none before anything was scored."""
    maps = [name for name in CHARTED if name in run.scores]
    if not maps:
        return []
    classes = [*run.classes_by_frequency(), BACKGROUND]
    colours = MAP_COLOURS | {"bar": MAP_COLOURS[maps[-1]]}
    iou = {name: run.scores[name]["class_iou"] for name in maps}
    areas = {name: run.scores[name]["class_area_ratio"] for name in maps}
    before = {name: iou[name] for name in maps[:-1]}
    return [charts.iou_chart(classes, run.class_counts, iou[maps[-1]], before, colours),
            charts.area_chart(classes, areas, colours)]


def class_rows(run: FinishedRun) -> list[dict]:
    """The numbers behind the charts: n_c, DC_c, and IoU and area ratio of every map of LABELS."""
    coefficients = run.metrics.get("train_sfc", {}).get("distribution_coefficient", [])
    dc = dict(zip(run.class_names, coefficients)) if run.class_counts else {}
    scored = {label: run.scores[label] for label in LABELS if label in run.scores}
    return [{"name": name, "count": run.class_counts.get(name), "dc": dc.get(name),
             "scores": {label: (scores["class_iou"].get(name), scores["class_area_ratio"].get(name))
                        for label, scores in scored.items()}}
            for name in [*run.classes_by_frequency(), BACKGROUND]]


# --- pictures -------------------------------------------------------------------------------------------------

def picture_groups(run: FinishedRun, workers: int, device: str) -> tuple[list[tuple[str, list]], str | None]:
    """([(title, [(ScoredImage, {panel: data URI}), ...]), ...], why there are none or None)."""
    if run.data_set_problem:
        return [], run.data_set_problem
    images = score_images(run, workers)
    if not images:
        return [], "no pseudo mask of an image with ground truth yet (sem_seg/ID.png)"
    groups = choose_images(images, [name for name in run.classes_by_frequency() if run.class_counts.get(name)])
    chosen = list(dict.fromkeys(image.name for _, members in groups for image in members))
    pictures = {name: {key: data_uri(picture) for key, picture in found.items()}
                for name, found in stage_pictures(run, chosen, device)}
    return [(title, [(image, pictures[image.name]) for image in members]) for title, members in groups], None


def score_images(run: FinishedRun, workers: int) -> list[ScoredImage]:
    """Images of the data set's train split with a pseudo mask and ground truth, or of any split if those have none."""
    masked = sorted(path.stem for path in (run.path / "sem_seg").glob("*.png"))
    masked = [name for name in masked if run.data_set.mask_path(name).exists()]
    try:
        scored = set(run.data_set.split("train")[0])
    except InputError:
        scored = set()                              # own lists instead of the data set's
    ids = [name for name in masked if name in scored] or masked
    chunks = [ids[i:i + CHUNK] for i in range(0, len(ids), CHUNK)]
    work = partial(_score_chunk, run)
    return [image for part in map_images(work, chunks, workers, "report", images_of=len) for image in part]


def _score_chunk(run: FinishedRun, names: list[str]) -> list[ScoredImage]:
    data_set, out = run.data_set, []
    for name in names:
        truth = data_set.read_mask(name)
        confusion = ConfusionMatrix(data_set.num_classes + 1)
        confusion.update(as_prediction(run.read_mask("sem_seg", name, truth.shape)), truth)
        present = np.unique(truth[(truth != 0) & (truth != IGNORE)])
        out.append(ScoredImage(name, 100 * confusion.miou(), tuple(data_set.class_names[c - 1] for c in present)))
    return out


def choose_images(images: list[ScoredImage], by_frequency: list[str]) -> list[tuple[str, list[ScoredImage]]]:
    """Best, worst, and a spread from best to worst of the images with head and with tail classes; no image twice.

    by_frequency  foreground classes that occur, the most frequent first; empty leaves head and tail out
    """
    ranked = sorted((image for image in images if image.miou == image.miou), key=lambda image: image.miou)
    count = max(1, round(HEAD_SHARE * len(by_frequency)))
    head, tail = set(by_frequency[:count]), set(by_frequency[-count:])
    groups = [("Best pseudo masks", ranked[::-1][:GROUP_SIZE])]
    worst = [image for image in ranked[:GROUP_SIZE] if image not in groups[0][1]]
    groups += [("Worst pseudo masks", worst)] if worst else []
    for title, classes, others in (("Head classes", head, tail), ("Tail classes", tail, head)):
        shown = {image.name for _, group in groups for image in group}
        members = [image for image in ranked if image.name not in shown
                   and classes & set(image.classes) and not others & set(image.classes)]
        if by_frequency and members:
            spread = np.linspace(len(members) - 1, 0, min(GROUP_SIZE, len(members))).round().astype(int)
            names = ", ".join(name for name in by_frequency if name in classes)
            groups.append((f"{title} ({names}), from the best to the worst", [members[i] for i in spread]))
    return groups


def data_uri(picture: np.ndarray) -> str:
    """A picture of stage_pictures, made smaller if need be, as the `src` of an <img>."""
    height, width = picture.shape[:2]
    scale = min(1, PICTURE_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    is_mask = picture.ndim == 2
    small = cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST if is_mask else cv2.INTER_AREA)
    kind, settings = ("PNG", {"optimize": True}) if is_mask else ("JPEG", {"quality": 85})
    buffer = io.BytesIO()
    Image.fromarray(as_rgb(small)).save(buffer, format=kind, **settings)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def class_colours(class_names: Sequence[str]) -> dict[str, str]:
    """Name -> CSS colour of background, classes and ignored pixels in the masks."""
    index = {BACKGROUND: 0} | {name: i for i, name in enumerate(class_names, 1)} | {"unknown": IGNORE}
    return {name: "#{:02x}{:02x}{:02x}".format(*PALETTE[i]) for name, i in index.items()}


# --- several runs ---------------------------------------------------------------------------------------------

def write_comparison(paths: list[str | Path], out: str | Path = "comparison.html") -> Path:
    """Write `out`: the scores of runs side by side, with their differences to the first run; its path.

    Raises InputError when a directory holds no run, or the runs have other classes than the first.
    """
    runs = [FinishedRun(path) for path in paths]
    for run in runs[1:]:
        if set(run.class_names) != set(runs[0].class_names):
            raise InputError(f"{run.path}: run on other classes than {runs[0].path}; compare runs on one data set")
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.path) for run in runs]
    scored = dict.fromkeys(name for run in runs for name in run.scores)
    maps = [name for name in LABELS if name in scored] + [name for name in scored if name not in LABELS]
    classes = [*runs[0].classes_by_frequency(), BACKGROUND]
    page = render("comparison.html.j2", runs=dict(zip(names, runs)), labels=LABELS, colours=charts.COLOURS,
                   first=runs[0], maps=maps, classes=classes, counts=runs[0].class_counts,
                   differing=differing_settings(runs), charts=difference_charts(runs, names, classes),
                   stages={name: {row["stage"]: row for row in stage_rows(run)} for name, run in zip(names, runs)},
                   facts={name: facts(run) for name, run in zip(names, runs)})
    return _write(Path(out), page)


def differing_settings(runs: list[FinishedRun]) -> list[tuple[str, list[str]]]:
    """(flag, its value in each run) of every flag that is not the same in all runs."""
    out = []
    for flag in sorted({name for run in runs for name in run.settings}):
        values = [str(run.settings[flag]) if flag in run.settings else "–" for run in runs]
        if len(set(values)) > 1:
            out.append((flag, values))
    return out


def difference_charts(runs: list[FinishedRun], names: list[str], classes: list[str]) -> dict[str, Markup]:
    """Map -> chart of the differences in IoU to the first run, for the maps that all runs have scored."""
    out = {}
    for label in (name for name in LABELS if all(name in run.scores for run in runs)):
        base = runs[0].scores[label]["class_iou"]
        differences = {name: {c: difference(run.scores[label]["class_iou"].get(c), base.get(c)) for c in classes}
                       for name, run in zip(names[1:], runs[1:])}
        out[label] = charts.difference_chart(classes, differences)
    return out


# --- the page -------------------------------------------------------------------------------------------------

def duration(seconds: float | None) -> str:
    """Seconds as a reader says them: 52 s, 2 min 10 s, 3 h 5 min."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.2g} s" if seconds < 10 else f"{rest} s"


def number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def short_commit(commit: str | None) -> str:
    """The first 12 characters of a commit, and whether files differed from it."""
    return f"{commit[:12]}{'-dirty' * commit.endswith('-dirty')}" if commit else "–"


def chip(colour: str, label: str) -> Markup:
    """An entry of a legend."""
    return Markup('<span class="chip"><i style="background:{}"></i><span>{}</span></span>').format(colour, label)


def delta(value: float | None) -> Markup:
    """A difference with its sign, green or red unless it is rounded to nothing."""
    if value is None:
        return Markup("")
    kind = " up" if value >= 0.05 else " down" if value <= -0.05 else ""
    return Markup('<span class="delta{}">{}</span>').format(kind, f"{value:+.1f}".replace("-", "−"))


def render(template: str, **values) -> str:
    """A page by one of the templates beside this file."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True,
                              lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters |= {"duration": duration, "number": number}
    environment.globals |= {"chip": chip, "delta": delta, "difference": difference, "short_commit": short_commit}
    return environment.get_template(template).render(values)


def _write(path: Path, page: str) -> Path:
    write_text(path, page)
    return path
