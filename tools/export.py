"""Write the pseudo masks of a run as JSON in COCO's format, for detection and instance segmentation.

    python -m tools.export RUN --coco masks.json          # docs/INTERCHANGE.md

The masks themselves, RUN/sem_seg/ID.png, need no conversion for frameworks of semantic segmentation.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])     # the repository, also for python tools/export.py

from data.sample import InputError
from runtime.command import default_workers, exit_with_message, positive_int, require_place


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="work directory of a run that has pseudo masks")
    parser.add_argument("--coco", metavar="FILE", type=Path, required=True, default=argparse.SUPPRESS,
                        help="JSON file to write; each connected region of a class is one annotation (RLE)")
    parser.add_argument("--num_workers", type=positive_int, default=default_workers(), help="processes")
    args = parser.parse_args(argv)

    def write() -> None:
        require_place(args.coco, "--coco")
        # Late, so that --help is quick.
        try:
            from coco14.regions import write_coco_json
        except ImportError:
            raise InputError("pycocotools is missing, which writes the masks of COCO's format; pip install "
                             "pycocotools") from None
        from report.finished_run import FinishedRun
        run = FinishedRun(args.run)
        if not run.config.get("make_sem_seg_labels", {}).get("complete"):
            raise InputError(f"{args.run}: no pseudo masks, or not all of them; make_sem_seg_labels.py makes them")
        data_set = run.data_set
        ids = sorted(path.stem for path in (run.path / "sem_seg").glob("*.png"))
        count = write_coco_json(args.coco, data_set.class_names, ids,
                                lambda name: data_set.image_path(name).relative_to(data_set.root).as_posix(),
                                partial(run.mask_path, "sem_seg"), args.num_workers)
        print(f"{args.coco}: {count:,} regions of {len(ids):,} images; file names are below {data_set.root}")

    exit_with_message(write, "--coco")


if __name__ == "__main__":
    main()
