"""The table at the end of a run: our scores beside the paper's."""

from frame.chain import STAGES
from frame.settings.segmentation import SEG_NETS
from refine.scored_maps import paper_first
from report.published import NO_SCORE, TABLES
from runtime.work_dir import RESULT, WorkDir, log

# mIoU in per cent of each map: the paper has them on VOC 12 train.
PAPER = {"voc12": {row.score: row.paper for number in (6, 1) for row in TABLES[number].rows}}
# Val of VOC 12 and COCO; the paper does not say whether a CRF refined the predictions.
PAPER_SEGMENTATION = {
    benchmark: {row.seg_net or SEG_NETS[0]: row.paper for row in TABLES[number].rows if row.score != NO_SCORE}
    for benchmark, number in (("voc12", 2), ("coco14", 3))}


def published(benchmark: str | None, entry: dict, name: str) -> str:
    """The paper's mIoU of a score, "-" where it has none. benchmark: "voc12", "coco14" or None for own data."""
    if "seg_net" in entry:
        value = PAPER_SEGMENTATION.get(benchmark or "", {}).get(entry["seg_net"])
    else:
        value = PAPER.get(benchmark or "", {}).get(name)
    return f"{value:.1f}" if value else "-"


def rows(metrics: dict, benchmark: str | None) -> list[tuple[str, ...]]:
    """(stage, map, mIoU, mean precision, mean recall, paper's mIoU, split) of every score in metrics.json.

    Of each stage those come first that the paper's numbers stand beside.
    """
    table = []
    for stage in STAGES:
        entry = metrics.get(stage, {})
        for name in paper_first(entry.get("scores", {})):
            scores = entry["scores"][name]
            numbers = ("-" if scores[key] is None else f"{scores[key]:.2f}" for key in ("miou", "precision", "recall"))
            table.append((stage, name, *numbers, published(benchmark, entry, name), entry["split"]))
        for name, sweep in entry.get("threshold_sweep", {}).items():
            table.append((stage, f"{name} oracle > {sweep['oracle_threshold']:.2f}", f"{sweep['oracle_miou']:.2f}",
                          "-", "-", "-", entry["split"]))
    return table


def print_table(work_dir: WorkDir, data_set) -> None:
    """Print and log all scores of a run. `oracle` rows chose their threshold with pixel labels."""
    table = [("stage", "map", "mIoU", "precision", "recall", "paper", "split"),
             *rows(work_dir.metrics(), data_set.benchmark)]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) if i in (0, 1, 6) else cell.rjust(width)
                       for i, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in table]
    log.log(RESULT, "\n%s\n%s", lines[0], "\n".join(["-" * len(lines[0]), *lines[1:]]))
    notes = ["+step: after the release's background step", "oracle: threshold chosen with pixel labels"]
    if data_set.benchmark:
        notes.append("paper: CAMs on VOC 12 train (1,464 images), beside ours after the step because the release "
                     "scores no others; predictions on val")
    log.log(RESULT, "%s. Details: %s", "; ".join(notes), work_dir / "metrics.json")
