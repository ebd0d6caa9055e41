"""Recompute every quantity of the reference vectors in some folders and compare.

    python tools/check_parity.py tests/golden [DIR ...]
    python tools/check_parity.py --mutations tests/golden

Prints a row for each quantity. Exit status: 0 all within tolerance, 1 a quantity is off, 2 no vectors found.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from parity import irn, labels, mutations, optimizer, samples, segmentation, sfc
from parity.report import Report
from parity.vectors import Vectors

Checker = Callable[[Vectors, Report], None]

# A file belongs to the checker whose key is the longest that its name starts with.
CHECKERS: dict[str, Checker] = {
    "sfc_train": sfc.check_sfc_step,
    "sfc_seeds": sfc.check_sfc_step,
    "cam_inference": sfc.check_cam_inference,
    "cam_inference_seeded": sfc.check_cam_inference,
    "irn": irn.check_irn,
    "irn_labels": samples.check_irn_labels,
    "random_walk": irn.check_random_walk,
    "pseudo_mask": labels.check_pseudo_mask,
    "crf_ir_label": labels.check_crf_ir_label,
    "ir_label_noisy": labels.check_ir_label_noisy,
    "chainercv_confusion": labels.check_chainercv_confusion,
    "optimizer": optimizer.check_optimizer,
    "augment": samples.check_augment,
    "image_bank": samples.check_image_bank,
    "deeplabv2": segmentation.check_deeplabv2,
    "deeplab_steps": segmentation.check_deeplab_steps,
    "resnet38": segmentation.check_resnet38,
}


def kind_of(path: Path) -> str | None:
    """The key of CHECKERS that a file belongs to."""
    return max((prefix for prefix in CHECKERS if path.name.startswith(prefix)), key=len, default=None)


def check_file(path: Path, report: Report) -> None:
    """Run the checker of one file; an exception is a failure, an array nobody looked at is named."""
    report.say(f"{path}\n  {'quantity':<32} {'max error':>12} {'allowed':>12}")
    with report.attempt(path.stem):
        vectors = Vectors(path)
        try:
            CHECKERS[kind_of(path)](vectors, report)
        finally:
            for name, reason in vectors.ignored.items():
                report.say(f"  {name:<32} not compared: {reason}")
            for name in sorted(vectors.unread):
                report.unchecked.append(name)
                report.say(f"  {name:<32} not checked: no quantity of this name is known")


def files_of(folders: list[Path]) -> list[Path]:
    """The files of some folders that have a checker; says which have none, and ends the command if nothing is left."""
    for folder in folders:
        if not folder.is_dir():
            print(f"{folder}: no such folder", file=sys.stderr)
            sys.exit(2)
    files = [path for folder in folders for path in sorted(folder.glob("*.npz"))]
    known = [path for path in files if kind_of(path)]
    for path in files:
        if path not in known:
            print(f"{path}: no checker for these vectors, skipped", file=sys.stderr)
    if not known:
        print(f"no reference vectors found in {', '.join(map(str, folders))}", file=sys.stderr)
        sys.exit(2)
    return known


def files_by_kind(files: list[Path]) -> dict[str, list[Path]]:
    """Key of CHECKERS -> its files."""
    return {kind: [path for path in files if kind_of(path) == kind] for kind in CHECKERS}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", metavar="DIR", type=Path, nargs="+", help="folder with reference vectors (*.npz)")
    parser.add_argument("--mutations", action="store_true",
                        help="put small wrongs into the program, one at a time, and list the rows that notice each; "
                             "exit status 1 if one goes unnoticed")
    args = parser.parse_args()
    files = files_of(args.folders)
    if args.mutations:
        return mutations.main(files_by_kind(files))
    report = Report()
    for path in files:
        check_file(path, report)
    missing = sorted(CHECKERS.keys() - {kind_of(path) for path in files})
    if missing:
        print(f"no vectors of: {', '.join(missing)}")
    print(f"{len(report.rows)} quantities, {len(report.failed)} failed" +
          (f", {len(report.unchecked)} arrays not checked" if report.unchecked else ""))
    return 1 if report.failed or report.unchecked else 0
