"""Malformed files of every kind the project reads: exit status 2, the file's name and a fix, nothing else touched."""

import io
import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import files_of


def png(array, mode=None):
    file = io.BytesIO()
    Image.fromarray(np.asarray(array, np.uint8), mode).save(file, "PNG")
    return file.getvalue()


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def pth(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def cut(share):
    return lambda whole: whole[:int(len(whole) * share)]


def flipped(whole):
    middle = len(whole) // 2
    return whole[:middle] + bytes(255 - byte for byte in whole[middle:middle + 64]) + whole[middle + 64:]


def record(**changes):
    """A record as make_cam writes it for one 64 x 64 image of class 1, with changes."""
    maps = {f"{kind}_{i}": np.zeros((2, 4, 4), np.uint16) for kind in ("weight", "prototype") for i in range(2)}
    arrays = {"classes": np.array([1]), "num_classes": np.int64(4), "size": np.array([64, 64]),
              "maxima": np.ones((2, 2, 2), np.float32)} | maps | changes
    return npz(**{name: value for name, value in arrays.items() if value is not None})


ZIP = io.BytesIO()
with zipfile.ZipFile(ZIP, "w") as _file:
    _file.writestr("../../escape.npy", b"text")

# kind: (file, "{id}" the first training id; stage that reads it; {name: new content, or a function of the old})
KINDS = {
    "image": ("data/JPEGImages/{id}.jpg", "train_sfc", {
        "empty": b"", "text": b"not an image", "html": b"<html></html>", "cut at 5 %": cut(.05), "cut at 50 %": cut(.5),
        "cut at 90 %": cut(.9), "zip": ZIP.getvalue(), "header only": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00"}),
    "image at inference": ("data/JPEGImages/{id}.jpg", "make_cam", {
        "empty": b"", "text": b"not an image", "cut at 60 %": cut(.6)}),
    "annotation": ("data/Annotations/{id}.xml", "train_sfc", {
        "empty": b"", "text": b"circle", "cut": cut(.5), "no object": b"<annotation/>", "binary": b"\x00\xff\x01",
        "unknown class": b"<annotation><object><name>unicorn</name></object></annotation>",
        "nameless": b"<annotation><object><name/></object></annotation>",
        "entity bomb": b'<!DOCTYPE a [<!ENTITY x "y">]><annotation><object><name>&z;</name></object></annotation>'}),
    "list": ("data/ImageSets/Segmentation/train_aug.txt", "train_sfc", {
        "empty": b"", "blank": b"\n \n", "binary": b"\xff\xfe\x00\x01", "unknown id": b"not_there\n",
        "twice": lambda whole: whole + whole, "parent": b"..\n", "leaves the folder": b"../../../etc/passwd\n",
        "nul": b"mini\x00_1\n"}),
    "class names": ("data/classes.txt", "train_sfc", {"empty": b"", "twice": b"ring\nring\n", "others": b"cat\ndog\n"}),
    "mask": ("data/SegmentationClass/{id}.png", "eval_cam", {
        "empty": b"", "text": b"no mask", "cut": cut(.6), "colours": png(np.zeros((64, 64, 3))),
        "other size": png(np.zeros((64, 32))), "class 99": png(np.full((64, 64), 99)),
        "image": png(np.zeros((64, 64, 4)))}),
    "CAM record": ("run/cam/{id}.npz", "cam_to_ir_label", {
        "empty": b"", "text": b"no record", "cut": cut(.5), "cut tail": cut(.95), "flipped": flipped,
        "zip": ZIP.getvalue(), "pickle": npz(classes=np.array([{}], dtype=object)),
        "other classes": record(num_classes=np.int64(9)), "other size": record(size=np.array([9, 64])),
        "no maps": npz(classes=np.array([1]), num_classes=4, size=[64, 64]),
        "prototype missing": record(prototype_1=None), "flat map": record(weight_0=np.zeros((2, 4), np.uint16)),
        "too few channels": record(weight_0=np.zeros((1, 4, 4), np.uint16)),
        "size of three": record(size=np.array([1, 2, 3])),
        "class 40": record(classes=np.array([40])), "class 0": record(classes=np.array([0])),
        "text maps": record(weight_0=np.array([[["a"] * 4] * 4] * 2)),
        "float maps": record(weight_0=np.zeros((2, 4, 4), np.float32)),
        "nan": record(maxima=np.full((2, 2, 2), np.nan, np.float32)),
        "infinite": record(maxima=np.full((2, 2, 2), np.inf, np.float32)),
        "negative": record(maxima=np.full((2, 2, 2), -1, np.float32)),
        "float64 maxima": record(maxima=np.ones((2, 2, 2))),
        "no scale": record(maxima=np.ones((2, 0, 2), np.float32)),
        "no kind": record(maxima=np.ones((0, 2, 2), np.float32)),
        "maxima of one scale more": record(maxima=np.ones((2, 3, 2), np.float32)),
        "maxima of one class": record(maxima=np.ones((2, 2, 1), np.float32)),
        "one maximum": record(maxima=np.float32(1)),
        "earlier format": record(maxima=None, weight_0=np.zeros((2, 4, 4), np.float16))}),
    "IR label": ("run/ir_label/{id}.png", "train_irn", {
        "empty": b"", "cut": cut(.5), "other size": png(np.zeros((8, 64))), "class 99": png(np.full((64, 64), 99)),
        "colours": png(np.zeros((64, 64, 3)))}),
    "pseudo mask": ("run/sem_seg/{id}.png", "eval_sem_seg", {
        "empty": b"", "cut": cut(.5), "other size": png(np.zeros((8, 64))), "class 99": png(np.full((64, 64), 99)),
        "colours": png(np.zeros((64, 64, 3)))}),
    "classifier": ("run/sfc.pth", "make_cam", {
        "empty": b"", "text": b"no weights", "cut": cut(.5), "flipped zip": cut(.99), "list": pth([1, 2]),
        "no tensors": pth({"a": 1}), "other network": pth({"a": torch.zeros(3)}),
        "object": pth({"model": np.zeros(1, dtype=object)})}),
    "IRN": ("run/irn.pth", "make_sem_seg_labels", {
        "empty": b"", "cut": cut(.5), "other network": pth({"a": torch.zeros(3)}),
        "other backbone": pth({"backbone": "resnet50"})}),
    "configuration": ("run/config.json", "eval_sem_seg", {
        "empty": b"", "cut": cut(.5), "list": b"[]", "text": b"hello", "binary": b"\xff\xfe",
        "no entry": b'{"eval_sem_seg": 5}'}),
    "scores": ("run/metrics.json", "eval_sem_seg", {
        "empty": b"", "cut": cut(.5), "list": b"[1]", "binary": b"\xff\xfe"}),
}
CASES = [pytest.param(kind, what, id=f"{kind}: {what}")
         for kind, (_, _, contents) in KINDS.items() for what in contents]


def test_there_are_enough_cases():
    assert len(CASES) >= 60


@pytest.mark.parametrize("kind, what", CASES)
def test_malformed(kind, what, mini, finished, tmp_path, command, capsys):
    pattern, stage, contents = KINDS[kind]
    data, run = shutil.copytree(mini, tmp_path / "data"), shutil.copytree(finished, tmp_path / "run")
    redo(run, stage, data)
    path = tmp_path / pattern.format(id=(data / "ImageSets/Segmentation/train.txt").read_text().split()[0])
    content = contents[what]
    path.write_bytes(content(path.read_bytes()) if callable(content) else content)
    before = files_of(tmp_path)

    status = command(stage, "--work_dir", run, root=data)
    error = capsys.readouterr().err
    assert status == 2, error
    assert "Traceback" not in error and len(error.strip().splitlines()[-1]) < 600
    named = "passwd" if what == "leaves the folder" else "not_there" if what == "unknown id" else path.name
    assert named in error or what == "others", error
    fixes = ("delete", "replace", "restore", "check", "needs", "masks must", "class indices", "give", "run ", "save it",
             "list", "choose")
    assert any(fix in error for fix in fixes), error
    after = files_of(tmp_path)
    own = {"make_cam": "cam/", "cam_to_ir_label": "ir_label/", "make_sem_seg_labels": "sem_seg/"}
    own = own.get(stage, "checkpoint")
    assert {k: v for k, v in after.items() if own not in k} == {k: v for k, v in before.items() if own not in k}


def redo(run, stage, data) -> None:
    """Take the result of a stage away, as if it had not run; the rest of the run then belongs to the copied data."""
    config = json.loads((run / "config.json").read_text())
    del config[stage]
    result = {"train_sfc": "sfc.pth", "make_cam": "cam", "cam_to_ir_label": "ir_label", "train_irn": "irn.pth",
              "make_sem_seg_labels": "sem_seg"}.get(stage)
    if result:
        path = run / result
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(run / "tensorboard", ignore_errors=True)
    (run / "config.json").write_text(json.dumps(config))
