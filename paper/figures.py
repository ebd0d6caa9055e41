"""Figures 3 and 4 of the paper: CAMs of several settings for the same images, beside image and ground truth."""

from pathlib import Path

from data.sample import InputError, read_image, write_atomically
from refine.scored_maps import CAMS
from report.finished_run import FinishedRun
from report.pictures import as_rgb, heat_map
from report.published import FIGURES


def write_figure(number: int, runs: dict[str, FinishedRun], ids: list[str], path: Path) -> Path:
    """Draw a row an image and save it as PNG at `path`. Arguments as draw."""
    figure = draw(number, runs, ids)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=130))
    return path


def draw(number: int, runs: dict[str, FinishedRun], ids: list[str]):
    """The figure (Matplotlib's), a row an image.

    runs  setting -> its run, for every setting of the figure
    ids   images; [] chooses, see choose_ids
    Raises InputError for an image or record that is missing.
    """
    from matplotlib.figure import Figure  # takes a second that tables and --help save
    run = next(iter(runs.values()))
    names = ids or choose_ids(run)
    titles = ["image", *(title for title, _, _ in FIGURES[number]), "ground truth"]
    figure = Figure(figsize=(1.8 * len(titles), 1.6 * len(names) + 0.3), layout="constrained")
    grid = figure.subplots(len(names), len(titles), squeeze=False)
    for row, name in zip(grid, names):
        for axes, picture in zip(row, pictures(number, runs, name)):
            axes.imshow(picture)
            axes.set_xticks([])
            axes.set_yticks([])
        row[0].set_ylabel(label_of(run, name), fontsize=8, parse_math=False)
    for axes, title in zip(grid[0], titles):
        axes.set_title(title, fontsize=9)
    return figure


def pictures(number: int, runs: dict[str, FinishedRun], name: str) -> list:
    """Image, one CAM a column, ground truth: (H, W, 3) uint8 each."""
    data_set = next(iter(runs.values())).data_set
    if not data_set.image_path(name).exists():
        raise InputError(f"--ids {name}: the data set {data_set.root} has no such image; give ids of its lists")
    image = read_image(data_set.image_path(name))
    size = image.shape[:2]
    shown = [image]
    for _, setting, kind in FIGURES[number]:
        run = runs[setting]
        cam = CAMS[kind].mix(*run.cams(name, size))
        shown.append(heat_map(image, cam[1:].amax(0).numpy()))
    return [*shown, as_rgb(data_set.read_mask(name, size))]


def choose_ids(run: FinishedRun) -> list[str]:
    """The first scored image that shows one class alone, for the two most frequent and the two rarest classes."""
    by_frequency = [name for name in run.classes_by_frequency() if run.class_counts.get(name, 1)]
    chosen = list(dict.fromkeys(by_frequency[:2] + by_frequency[-2:]))
    ids = [name for name in run.data_set.split("train")[0] if run.record_path(name).exists()]
    labels = run.data_set.image_labels(ids)
    found = []
    for class_name in chosen:
        index = list(run.data_set.class_names).index(class_name)
        found += [name for name, label in zip(ids, labels) if label[index] and label.sum() == 1][:1]
    if not found:
        raise InputError(f"{run.path}: no scored image shows a single class; choose images with --ids")
    return found


def label_of(run: FinishedRun, name: str) -> str:
    """Classes of an image with their numbers of training images."""
    label = run.data_set.image_labels([name])[0]
    shown = [class_name for class_name, there in zip(run.data_set.class_names, label) if there]
    return "\n".join(f"{class_name} ({run.class_counts.get(class_name, '?')})" for class_name in shown)
