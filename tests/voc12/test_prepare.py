"""python -m voc12.prepare on small archives of the true layout: what it writes, resuming, and bad input."""

import tarfile

import numpy as np
import pytest

from data.sample import read_list
from tests.helpers import files_of
from tests.voc12 import distributed as small
from voc12 import prepare
from voc12.voc import Voc12


def run(*flags):
    """Exit status of the command."""
    try:
        prepare.main([str(flag) for flag in ("--num_workers", 1, *flags)])
    except SystemExit as stop:
        return stop.code
    return 0


@pytest.fixture
def archives(tmp_path):
    """--voc and --sbd with archives."""
    return ("--voc", small.write_tar(tmp_path / "voc.tar", small.voc_files()),
            "--sbd", small.write_tar(tmp_path / "sbd.tgz", small.sbd_files(), "w:gz"))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


# --- what it writes -------------------------------------------------------------------------------------------------

def test_from_archives(archives, out, capsys):
    assert run("--out", out, *archives) == 0
    data_set = Voc12(out / "VOC2012")
    assert data_set.split("train_aug") == (small.TRAIN_AUG, f"train_aug ({data_set.list_path('train_aug')})")
    assert data_set.split("train")[0] == small.TRAIN and data_set.split("val")[0] == small.VAL
    assert data_set.image_labels(small.TRAIN_AUG).sum() == 4
    augmented = out / "VOC2012" / "SegmentationClassAug"
    assert sorted(path.stem for path in augmented.iterdir()) == sorted([*small.TRAIN_AUG, *small.VAL])
    for name in (*small.TRAIN, *small.VAL):                                       # official, byte for byte
        official = (out / "VOC2012/SegmentationClass" / f"{name}.png").read_bytes()
        assert official == (augmented / f"{name}.png").read_bytes() == small.encoded(small.official_mask(name), "PNG")
    for name in ("2008_d", "2008_e"):
        np.testing.assert_array_equal(data_set.read_mask(name, small.SIZE), small.sbd_mask(name))
    assert (out / "VOC2012/JPEGImages/2009_x.jpg").exists()
    assert not list(out.rglob("SegmentationObject")) and not list(out.rglob("cat_train.txt"))
    said = capsys.readouterr().out
    assert "train_aug      4 images   warning: the official list has 10,582" in said and "MB free" in said


def test_the_list_is_that_of_the_masks(archives, out):
    """Without train_aug.txt, the data set would take the same ids in the same order from the masks."""
    run("--out", out, *archives)
    (out / "VOC2012/ImageSets/Segmentation/train_aug.txt").unlink()
    ids, origin = Voc12(out / "VOC2012").split("train_aug")
    assert ids == small.TRAIN_AUG and "SegmentationClassAug" in origin


def test_no_warning_for_official_counts(archives, out, monkeypatch, capsys):
    monkeypatch.setattr(prepare, "COUNTS", {"train": 2, "val": 1, "train_aug": 4, "test": 1456})
    run("--out", out, *archives)
    assert "warning:" not in capsys.readouterr().out


@pytest.mark.parametrize("voc, sbd", [("", ""), ("VOCdevkit", "benchmark_RELEASE"), (small.VOC_ROOT, small.SBD_ROOT)])
def test_from_folders(archives, out, tmp_path, voc, sbd):
    run("--out", out, *archives)
    folders = [small.write_folder(tmp_path / "voc", small.voc_files()),
               small.write_folder(tmp_path / "sbd", small.sbd_files())]
    assert run("--out", tmp_path / "other", "--voc", folders[0] / voc, "--sbd", folders[1] / sbd) == 0
    assert files_of(tmp_path / "other") == files_of(out)


def test_what_a_file_manager_left_is_not_copied(archives, out, tmp_path):
    run("--out", out, *archives)
    stray = {f"{small.VOC_ROOT}/SegmentationClass/{name}": b"" for name in (".DS_Store", "Thumbs.db", "._2007_a.png")}
    voc = small.write_folder(tmp_path / "voc", small.voc_files() | stray)
    assert run("--out", tmp_path / "other", "--voc", voc, *archives[2:]) == 0
    assert files_of(tmp_path / "other") == files_of(out)


def test_a_list_beside_the_images_of_voc_is_not_taken(archives, out, tmp_path):
    """The augmented list is that of these two releases, whatever somebody made beside one of them."""
    run("--out", out, *archives)
    voc = small.write_folder(tmp_path / "voc", small.voc_files() | {
        f"{small.VOC_ROOT}/ImageSets/Segmentation/train_aug.txt": small.lines(small.TRAIN)})
    for _ in range(2):
        assert run("--out", tmp_path / "other", "--voc", voc, *archives[2:]) == 0
        assert files_of(tmp_path / "other") == files_of(out)


def test_in_place(archives, out, tmp_path):
    run("--out", out, *archives)
    kit = small.write_folder(tmp_path / "voc", small.voc_files()) / "VOCdevkit"
    before = {path: path.stat().st_mtime_ns for path in kit.rglob("*") if path.is_file()}
    assert run("--out", kit, "--voc", kit, *archives[2:]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert files_of(out).items() <= files_of(kit).items()


def test_workers_give_the_same(archives, out, tmp_path):
    run("--out", out, *archives)
    run("--out", tmp_path / "other", *archives, "--num_workers", 2)
    assert files_of(tmp_path / "other") == files_of(out)


def test_test_images(archives, out, tmp_path, capsys):
    test = small.write_tar(tmp_path / "test.tar", small.voc_test_files())
    assert run("--out", out, *archives) == 0 and run("--out", out, "--test", test) == 0
    assert Voc12(out / "VOC2012").split("test")[0] == ["2008_t"]
    assert (out / "VOC2012/JPEGImages/2008_t.jpg").read_bytes() == b"t"
    assert not (out / "VOC2012/JPEGImages/2008_u.jpg").exists()
    assert "test           1 images   warning: the official list has 1,456" in capsys.readouterr().out


# --- resuming -------------------------------------------------------------------------------------------------------

def test_interrupted_run_goes_on(archives, out):
    run("--out", out, *archives)
    root, whole = out / "VOC2012", files_of(out)
    kept = root / "JPEGImages/2007_b.jpg", root / "SegmentationClassAug/2008_d.png"
    before = [path.stat().st_mtime_ns for path in kept]
    for name in ("JPEGImages/2007_a.jpg", "SegmentationClassAug/2007_a.png", "SegmentationClassAug/2008_e.png",
                 "ImageSets/Segmentation/train_aug.txt"):
        (root / name).unlink()
    (root / "JPEGImages/2007_c.jpg").write_bytes(b"torn by another program")
    assert run("--out", out, *archives) == 0
    assert files_of(out) == whole and [path.stat().st_mtime_ns for path in kept] == before


def test_a_list_of_other_images_is_not_replaced(archives, out, capsys):
    run("--out", out, *archives)
    path = out / "VOC2012/ImageSets/Segmentation/train_aug.txt"
    path.write_text("".join(f"/JPEGImages/{name}.jpg /SegmentationClassAug/{name}.png\n" for name in small.TRAIN_AUG))
    assert run("--out", out, *archives) == 0 and read_list(path) == small.TRAIN_AUG
    path.write_text("2007_a\n")
    assert run("--out", out, *archives) == 2
    assert "lists other images than VOC and SBD give" in capsys.readouterr().err


# --- bad input ------------------------------------------------------------------------------------------------------

def without(name):
    return lambda files: files.pop(name)


def replaced(name, content):
    return lambda files: files.update({name: content})


MAT = f"{small.SBD_ROOT}/cls/2008_e.mat"
BEFORE = {                                          # found before anything is written
    "no image": ("voc", without(f"{small.VOC_ROOT}/JPEGImages/2008_d.jpg"), "2008_d.jpg is missing, one of 1"),
    "no annotation": ("voc", without(f"{small.VOC_ROOT}/Annotations/2008_d.xml"), "Annotations/2008_d.xml is missing"),
    "no mask": ("voc", without(f"{small.VOC_ROOT}/SegmentationClass/2007_c.png"), "SegmentationClass/2007_c.png is"),
    "no .mat": ("sbd", without(MAT), "sbd.tar: cls/2008_e.mat is missing, one of 1"),
    "no list": ("sbd", without(f"{small.SBD_ROOT}/val.txt"), "sbd.tar: not SBD: no train.txt and val.txt in it"),
    "empty list": ("sbd", replaced(f"{small.SBD_ROOT}/val.txt", b""), "val.txt: list is empty"),
    "VOC for SBD": ("sbd", lambda files: (files.clear(), files.update(small.voc_files())), "not SBD"),
    "SBD for VOC": ("voc", lambda files: (files.clear(), files.update(small.sbd_files())), "not VOC 2012 trainval"),
    "outside": ("voc", replaced("VOCdevkit/../../x.jpg", b""), "member 'VOCdevkit/../../x.jpg' lies outside"),
    "absolute": ("voc", replaced("/etc/x.jpg", b""), "member '/etc/x.jpg' lies outside"),
}
MASKS = {
    "no GTcls": (small.mat(small.sbd_mask("2008_e"), "GTinst"), "no GTcls.Segmentation"),
    "truncated": (small.mat(small.sbd_mask("2008_e"))[:150], "damaged .mat file"),
    "no .mat": (b"not a matrix", "damaged .mat file"),
    "size": (small.mat(np.zeros((12, 10), np.uint8)), "mask of 10x12 pixels for an image of 12x10"),
    "index": (small.mat(np.full(small.SIZE, 21, np.uint8)), "class index 21; 0 to 20 and 255 are allowed"),
    "fractions": (small.mat(np.full(small.SIZE, 0.5)), "GTcls.Segmentation is no map of class indices"),
}


def run_spoilt(out, folder, which, spoil):
    files = {"voc": small.voc_files(), "sbd": small.sbd_files()}
    spoil(files[which])
    paths = {name: small.write_tar(folder / f"{name}.tar", content) for name, content in files.items()}
    return run("--out", out, "--voc", paths["voc"], "--sbd", paths["sbd"])


@pytest.mark.parametrize("which, spoil, message", BEFORE.values(), ids=BEFORE.keys())
def test_unusable_archives(out, tmp_path, capsys, which, spoil, message):
    assert run_spoilt(out, tmp_path, which, spoil) == 2
    assert message in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize("content, message", MASKS.values(), ids=MASKS.keys())
def test_unusable_masks_of_sbd(out, tmp_path, capsys, content, message):
    assert run_spoilt(out, tmp_path, "sbd", replaced(MAT, content)) == 2
    assert f"cls/2008_e.mat: {message}" in capsys.readouterr().err
    assert not (out / "VOC2012/ImageSets/Segmentation/train_aug.txt").exists()


def test_official_mask_of_another_size(out, tmp_path, capsys):
    mask = small.encoded(np.zeros((12, 10), np.uint8), "PNG")
    assert run_spoilt(out, tmp_path, "voc", replaced(f"{small.VOC_ROOT}/SegmentationClass/2007_c.png", mask)) == 2
    assert "2007_c.png: mask of 10x12 pixels for an image of 12x10" in capsys.readouterr().err


@pytest.mark.parametrize("flag, end, message", [
    ("--voc", lambda mask: mask.offset_data + 1, "voc.tar: no tar archive that can be read, or a truncated one"),
    ("--voc", lambda mask: mask.offset, "SegmentationClass/2007_c.png is missing"),     # tarfile sees no more files
    ("--voc", 0, "voc.tar: no tar archive that can be read"),
    ("--sbd", 400, "sbd.tgz: no tar archive that can be read, or a truncated one"),
    ("--sbd", 5, "sbd.tgz: no tar archive that can be read")])
def test_truncated_archives(archives, out, capsys, flag, end, message):
    path = archives[archives.index(flag) + 1]
    if callable(end):
        with tarfile.open(path) as archive:
            end = end(archive.getmember(f"{small.VOC_ROOT}/SegmentationClass/2007_c.png"))
    path.write_bytes(path.read_bytes()[:end])
    assert run("--out", out, *archives) == 2
    assert message in capsys.readouterr().err and not out.exists()


def test_links_are_not_followed(out, tmp_path, archives, capsys):
    path = archives[1]
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo(f"{small.VOC_ROOT}/JPEGImages/link.jpg")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    assert run("--out", out, *archives) == 0
    assert not (out / "VOC2012/JPEGImages/link.jpg").exists()


def test_other_bad_input(archives, out, tmp_path, capsys, monkeypatch):
    text = tmp_path / "text.tar"
    text.write_text("<html>404</html>")
    flags = ("--out", out, *archives[:2], "--sbd")
    for wrong, message in ((text, "text.tar: no tar archive"), (tmp_path / "absent", "absent: no such file or folder"),
                           (tmp_path, "not SBD: no train.txt and val.txt in it, nor below dataset or")):
        assert run(*flags, wrong) == 2 and message in capsys.readouterr().err
    assert run("--out", text, *archives) == 2 and "choose another --out" in capsys.readouterr().err
    assert run("--out", out, *archives[:2]) == 2 and "needs --voc and --sbd" in capsys.readouterr().err
    monkeypatch.setattr("runtime.disk.shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    assert run("--out", out, *archives) == 2 and "files to write need about 0 MB" in capsys.readouterr().err
    assert not out.exists()
