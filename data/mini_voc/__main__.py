"""Generate the mini VOC data set: python -m data.mini_voc OUT, or python data/mini_voc OUT from any folder."""

import argparse
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])     # the repository, also when run by path

from data.mini_voc import generate
from data.sample import InputError


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m data.mini_voc", description=__doc__.split(":")[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to write")
    parser.add_argument("--num_train", type=int, default=800, help="training images")
    parser.add_argument("--num_val", type=int, default=100, help="validation images")
    parser.add_argument("--image_size", type=int, default=128, help="side of the images in pixels")
    parser.add_argument("--num_classes", type=int, default=8, help="foreground classes, 2 to 16")
    parser.add_argument("--balanced", action=argparse.BooleanOptionalAction, default=False,
                        help="equal instead of long-tailed class frequencies")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    parser.add_argument("--workers", type=int, default=2, help="processes; they do not change the result")
    args = parser.parse_args()
    settings = {name: value for name, value in vars(args).items() if name != "out"}
    try:
        generate(args.out, **settings)
    except (ValueError, InputError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
