"""Many, medium and few classes, by the number of training images that show them (table 7 of the paper)."""

import numpy as np


def class_sets(counts, many: float, few: float) -> dict[str, list[int]]:
    """Divide classes as Wu et al. 2020 ("Distribution-Balanced Loss") do.

    counts   (C,) n_c, training images that show class c
    many     a class with n_c > many is of the set "many"; their VOC-MLT: 100
    few      a class with n_c < few is of the set "few"; their VOC-MLT: 20
    Returns  {"many", "medium", "few"} -> indices of the classes, ascending; every class is in exactly one set.
    Raises ValueError when many < few: a class could be of both sets.

    The SFC paper names Wu et al. and no thresholds for the full VOC; see default_thresholds.
    """
    if many < few:
        raise ValueError(f"thresholds many={many} and few={few} overlap")
    sets: dict[str, list[int]] = {"many": [], "medium": [], "few": []}
    for index, count in enumerate(counts):
        sets["many" if count > many else "few" if count < few else "medium"].append(index)
    return sets


def default_thresholds(counts) -> tuple[float, float]:
    """(many, few): the tertiles of the counts, so that the sets are of about equal size. Ours, not the paper's."""
    few, many = np.quantile(counts, [1 / 3, 2 / 3])
    return float(many), float(few)
