"""Segment your own images with a trained run.

    python -m tools.predict runs/sfc --images FOLDER                       # classes as the classifier sees them
    python -m tools.predict runs/sfc --images FOLDER --labels cat,dog      # every image shows a cat and a dog

Writes into OUT, by default RUN/predict, for every image NAME:

    label_crf/NAME.png  walk/NAME.png  deeplab/NAME.png    masks by what the run has: sfc.pth, irn.pth, deeplab.pth
    overlay/NAME.jpg    heat/NAME_CLASS.jpg                the best of these masks over the image; CAMs
    scores.json         classes.txt  index.html            probabilities; names of the indices; all of it on a page
"""

import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])     # the repository, also for python tools/predict.py

from runtime.command import default_workers, exit_with_message, name_list, non_negative, positive_int


def main(argv=None) -> None:
    lines = __doc__.splitlines()
    parser = argparse.ArgumentParser(description=lines[0], epilog="\n".join(lines[1:]),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="work directory of a trained run")
    parser.add_argument("--images", metavar="FOLDER", required=True, help="folder of images of any size and format")
    parser.add_argument("--labels", metavar="A,B",
                        help="class names that every image shows; default: those that the classifier sees")
    parser.add_argument("--threshold", type=non_negative, default=0.5, metavar="P",
                        help="probability from which on the classifier sees a class (%(default)s)")
    parser.add_argument("--max_side", type=positive_int, metavar="PIXELS",
                        help="images with longer sides are made smaller, and their masks larger again; default: the "
                             "longest side among the run's own images")
    parser.add_argument("--out", metavar="DIR", help="folder to write; default: RUN/predict")
    parser.add_argument("--device", default="auto", help="torch device (%(default)s: a GPU where there is one)")
    parser.add_argument("--num_workers", type=int, default=default_workers(), help="processes (%(default)s)")
    args = parser.parse_args(argv)

    def predict() -> None:
        # Late, so that --help is quick.
        from predict.folder import Request, predict_folder
        from predict.predictor import Predictor
        labels = name_list(args.labels) if args.labels else None
        request = Request(Path(args.images), labels, args.threshold, Path(args.out or Path(args.run) / "predict"))
        print(predict_folder(Predictor(args.run, args.device, args.max_side), request, args.num_workers))

    exit_with_message(predict, "--out")


if __name__ == "__main__":
    main()
