"""Small wrongs, put into the program one at a time: each must make a row of the parity check fail."""

from pathlib import Path

from parity.mutations import calibration, pseudo_labels, training
from parity.mutations.run import print_table

WRONGS = calibration.WRONGS + pseudo_labels.WRONGS + training.WRONGS


def main(files_by_kind: dict[str, list[Path]]) -> int:
    """Try every wrong and print the table; exit status 0 if each is noticed or explained."""
    return print_table(WRONGS, files_by_kind)
