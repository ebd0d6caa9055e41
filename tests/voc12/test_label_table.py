"""Image-level labels as a CSV table: the format of docs/LABELS.md, and tables that cannot be used."""

import re

import pytest

from data.sample import InputError
from frame.data_sets import open_data_set
from frame.flags import Flags, build_parser
from frame.settings.common import Data
from tests.helpers import ROOT
from voc12.label_table import read_label_table
from voc12.voc import Voc12

CLASSES = ("cat", "traffic light", "dog")


@pytest.fixture
def table(tmp_path):
    """table(text) -> path of a table of that content."""
    def write(text, encoding="utf-8"):
        path = tmp_path / "labels.csv"
        path.write_bytes(text.encode(encoding))
        return path
    return write


@pytest.fixture
def own(tmp_path):
    """Three images of own classes, without XML files and masks."""
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    for name in ("a", "b", "c"):
        (tmp_path / "JPEGImages" / f"{name}.jpg").touch()
    return tmp_path


@pytest.mark.parametrize("text", [
    "image,labels\na,cat\nb,dog;cat\n",
    "\ufeffimage , labels\r\n a.jpg ,  cat \r\n\r\nb , dog ; cat ;\r\n",         # as a spreadsheet may save it
    "labels,source,image\ncat,me,photos/a.JPG\n\"dog;cat\",you,b\n"])
def test_ways_to_write_the_same(table, text):
    assert read_label_table(table(text), CLASSES) == {"a": [0], "b": [2, 0]}


def test_the_documented_example(table):
    page = (ROOT / "docs/LABELS.md").read_text(encoding="utf-8")
    example = re.search(r"```\n(image,labels\n.*?)```", page, re.DOTALL)
    assert read_label_table(table(example[1]), CLASSES) == {"IMG_0412": [0], "IMG_0413": [0, 1]}


@pytest.mark.parametrize("text, reason", [
    ("image,labels\na,cat\nb,unicorn\n", "line 3: unknown class 'unicorn'"),
    ("image,labels\na,cat dog\n", "line 2: unknown class 'cat dog'"),
    ("a,cat\nb,dog\n", "no column 'image' in its first line (a,cat)"),
    ("image;labels\na;cat\n", "no column 'image' in its first line (image;labels)"),
    ("image,labels,labels\na,cat,dog\n", "2 column 'labels'"),
    ("image,labels\na,cat\na.jpg,dog\n", "line 3: image 'a' stands there twice; put all its labels into one row"),
    ("image,labels\na,cat;cat\n", "line 2: label 'cat' stands there twice"),
    ("image,labels\na,cat,dog\n", "line 2: more cells than the first line; separate the labels"),
    ("image,labels\n,cat\n", "line 2: no image"),
    ("image,labels\n", "without rows"),
    ("", "no column 'image'"),
    ('image,labels\na,"cat\n', "no CSV file that can be read")])
def test_unusable_tables(table, text, reason):
    with pytest.raises(InputError, match=re.escape(reason)) as error:
        read_label_table(table(text), CLASSES)
    assert "labels.csv" in str(error.value)


def test_files_that_are_no_table(table, tmp_path):
    with pytest.raises(InputError, match="save it as CSV in UTF-8"):
        read_label_table(table("image,labels\na,chât\n", "utf-16"), CLASSES)
    with pytest.raises(InputError, match="label table is missing"):
        read_label_table(tmp_path / "absent.csv", CLASSES)
    with pytest.raises(InputError, match="no CSV file"):
        read_label_table(tmp_path, CLASSES)


def test_labels_of_a_data_set(own, table):
    data_set = Voc12(own, str(table("image,labels\nb,dog;cat\nc,\na,traffic light\n")))
    assert data_set.image_labels(["a", "b"]).tolist() == [[0, 1, 0], [1, 0, 1]]
    with pytest.raises(InputError, match="no label in the row of image 'c'"):
        data_set.image_labels(["c"])


@pytest.mark.parametrize("text, reason", [
    ("image,labels\na,cat\n", "no row for image 'b'"),
    ("image,labels\na,cat\nb,cat\nz,cat\ny,cat\n", r"image 'z' is unknown, one of 2: .*JPEGImages/z\.jpg")])
def test_tables_and_images_that_differ(own, table, text, reason):
    with pytest.raises(InputError, match=reason):
        Voc12(own, str(table(text))).image_labels(["a", "b"])


def test_the_flag(own, table, capsys):
    parser = build_parser([Data], "")
    path = str(table("image,labels\na,dog\n"))
    data_set = open_data_set(Flags(vars(parser.parse_args(["--voc12_root", str(own), "--labels", path])))[Data])
    assert data_set.image_labels(["a"]).tolist() == [[0, 0, 1]]
    with pytest.raises(SystemExit):
        parser.parse_args(["--labels", "mask"])
    assert "neither xml nor masks nor the name of a .csv file" in capsys.readouterr().err
