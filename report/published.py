"""The paper's tables and figures as data: settings that they compare, scores of which stage, published numbers."""

from typing import NamedTuple

from refine import scored_maps
from refine.scored_maps import FINAL_CAM_CRF, PREDICTION, PSEUDO_MASK, beside_paper, final_cam_name

# What each setting of Tables 4 and 5 switches off in train_sfc.py; "V" is SFC with everything on.
SETTINGS = {
    "Base": ("--no-ibr", "--dw_p_weight", "0", "--dw_w_weight", "0"),
    "I": ("--dw_p_weight", "0", "--dw_w_weight", "0"),
    "II": ("--no-ibr",),
    "III": ("--dw_w_weight", "0"),
    "IV": ("--dw_p_weight", "0"),
    "V": (),
    "VI": ("--no-dc_p", "--no-dc_w"),
    "VII": ("--no-dc_w",),
    "VIII": ("--no-dc_p",),
}

# The scores that the paper's numbers of CAMs stand beside.
WEIGHT_CAM, PROTOTYPE_CAM = beside_paper(scored_maps.WEIGHT_CAM), beside_paper(scored_maps.PROTOTYPE_CAM)
FINAL_CAM = beside_paper(final_cam_name())
NO_SCORE = "-"                                        # the test split: only the VOC server can score it


class Row(NamedTuple):
    """A row of a table.

    label    as the paper writes it
    setting  of SETTINGS
    stage    that scores it
    score    name of its score in metrics.json
    paper    published number, mIoU in per cent, or a gain in Table 7
    seg_net  segmentation network, where it is not the default
    """
    label: str
    setting: str
    stage: str
    score: str
    paper: float
    seg_net: str = ""


class Table(NamedTuple):
    title: str
    rows: tuple[Row, ...]
    split: str                     # what the paper scores
    data_set: str = "voc12"        # that it is of


def _cam_row(setting: str, paper: float, score: str = FINAL_CAM, label: str = "") -> Row:
    return Row(label or setting, setting, "eval_cam", score, paper)


BASE = _cam_row("Base", 55.1, WEIGHT_CAM)

TABLES = {
    1: Table("quality of the pseudo labels", (
        _cam_row("V", 64.7, label="CAM"), _cam_row("V", 69.4, FINAL_CAM_CRF, "CRF"),
        Row("Mask", "V", "eval_sem_seg", PSEUDO_MASK, 73.7)), "VOC 12 train"),
    2: Table("semantic segmentation on PASCAL VOC 2012", (
        Row("ResNet101 val", "V", "eval_deeplab", PREDICTION, 71.2),
        Row("ResNet101 test", "V", "eval_deeplab", NO_SCORE, 72.5),
        Row("ResNet38 val", "V", "eval_deeplab", PREDICTION, 70.2, "deeplabv1_resnet38"),
        Row("ResNet38 test", "V", "eval_deeplab", NO_SCORE, 71.4, "deeplabv1_resnet38")), "VOC 12 val, test"),
    3: Table("semantic segmentation on MS COCO 2014", (
        Row("ResNet101 val", "V", "eval_deeplab", PREDICTION, 46.8),), "COCO 14 val", "coco14"),
    4: Table("parts of SFC: image bank, L_DW^P, L_DW^W", (
        BASE, _cam_row("I", 55.9, WEIGHT_CAM), _cam_row("II", 62.4), _cam_row("III", 62.4), _cam_row("IV", 58.1),
        _cam_row("V", 64.7)), "VOC 12 train"),
    5: Table("distribution coefficient: in neither loss, L_DW^P alone, L_DW^W alone, both", (
        _cam_row("VI", 62.0), _cam_row("VII", 63.7), _cam_row("VIII", 63.6), _cam_row("V", 64.7)), "VOC 12 train"),
    6: Table("maps at inference: M_W, M_P, M_final", (
        _cam_row("V", 64.2, WEIGHT_CAM, "IX"), _cam_row("V", 62.5, PROTOTYPE_CAM, "X"), _cam_row("V", 64.7)),
        "VOC 12 train"),
}

# Table 7: gain over Base on all classes with the background, and on the foreground classes of each class set.
CLASS_SETS = ("overall", "many", "medium", "few")
GAINS = {"VI": (6.9, 5.6, 6.5, 8.6), "V": (9.6, 9.5, 6.5, 12.9)}
GAIN_TITLE = "gain over Base on class sets"
TABLE_NUMBERS = (*TABLES, 7)


def tables_of(data_set: str) -> tuple[int, ...]:
    """Numbers of the tables on a data set: its own, and all of one that the paper does not know."""
    of = {number: TABLES[number].data_set if number in TABLES else "voc12" for number in TABLE_NUMBERS}
    return tuple(number for number in TABLE_NUMBERS if data_set not in of.values() or of[number] == data_set)


# Figures 3 and 4, CAMs of several settings: title, setting and map of each column.
FIGURES = {
    3: (("$M_W$", "Base", scored_maps.WEIGHT_CAM), ("$M_P$", "Base", scored_maps.PROTOTYPE_CAM),
        ("$M_{final}$ of SFC", "V", scored_maps.FINAL_CAM)),
    4: (("Base", "Base", scored_maps.WEIGHT_CAM), ("I: + IBR", "I", scored_maps.WEIGHT_CAM),
        ("II: MSDW, no IBR", "II", scored_maps.FINAL_CAM), ("V: SFC", "V", scored_maps.FINAL_CAM)),
}


def figure_settings(number: int) -> tuple[str, ...]:
    """Settings that a figure shows, each once."""
    return tuple(dict.fromkeys(setting for _, setting, _ in FIGURES[number]))


def compared_rows(table: int) -> tuple[Row, ...]:
    """Rows whose scores a table needs; those of Table 7 are Base and the settings whose gains it gives."""
    return TABLES[table].rows if table in TABLES else (BASE, *(_cam_row(setting, 0) for setting in GAINS))
