"""The table at the end of a run: our scores beside the paper's."""

from tools.work_dir import WorkDir, log

# VOC 12 train, mIoU in per cent, tables 1 and 6 of the paper.
PAPER = {"weight_cam": 64.2, "prototype_cam": 62.5, "final_cam 1": 64.7, "final_cam CRF": 69.4, "pseudo mask": 73.7}


def rows(work_dir: WorkDir, is_voc: bool) -> list[tuple[str, ...]]:
    """(stage, map, mIoU, mean precision, mean recall, paper's mIoU, split) of every stored score."""
    table = []
    for stage, metrics in work_dir.metrics().items():
        for name, scores in metrics.get("scores", {}).items():
            paper = f"{PAPER[name]:.1f}" if is_voc and name in PAPER else "-"
            numbers = ("-" if scores[key] is None else f"{scores[key]:.2f}" for key in ("miou", "precision", "recall"))
            table.append((stage, name, *numbers, paper, metrics["split"]))
        for name, sweep in metrics.get("threshold_sweep", {}).items():
            table.append((stage, f"{name} oracle > {sweep['oracle_threshold']:.2f}", f"{sweep['oracle_miou']:.2f}",
                          "-", "-", "-", metrics["split"]))
    return table


def print_table(work_dir: WorkDir, data_set) -> None:
    """Print and log all scores of a run. `oracle` rows chose their threshold with pixel labels."""
    table = [("stage", "map", "mIoU", "precision", "recall", "paper", "split")] + rows(work_dir, data_set.is_voc)
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) if i in (0, 1, 6) else cell.rjust(width)
                       for i, (cell, width) in enumerate(zip(row, widths))).rstrip() for row in table]
    log.info("\n%s\n%s", lines[0], "\n".join(["-" * len(lines[0])] + lines[1:]))
    log.info("\"+step\": with the release's background step. Details: %s", work_dir / "metrics.json")
