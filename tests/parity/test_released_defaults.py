"""The defaults of the preset `released` are the settings that the release's own scripts ran the vectors with."""

from pathlib import Path

import pytest

from frame.flags import build_parser, parse
from frame.presets import overrides
from frame.settings import GROUPS
from frame.settings.cams import FinalIr, FinalMask, Inference, IrLabels, LabelCrf, SfcTraining
from frame.settings.irn import IrnTraining, RandomWalk
from frame.settings.segmentation import OWN_TEST, SegTest, SegTraining, with_own_values
from parity.vectors import Vectors
from refine.crf import CRF

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def released():
    return parse(build_parser(GROUPS, ""), overrides, [])


def vectors(name):
    return Vectors(GOLDEN / f"{name}.npz")


def test_ir_labels(released):
    file = vectors("ir_label_noisy")
    assert released[LabelCrf].crf == CRF(*(file.number(name) for name in CRF._fields))
    assert released[FinalIr].ir_prototype_weight == file.number("prototype_weight")
    assert released[IrLabels].ir_background == file.number("background_scale")
    assert parse(build_parser(GROUPS, ""), overrides, ["--preset", "paper"])[LabelCrf].crf.iterations == 10     # IRN's


def test_pseudo_masks(released):
    file, walk = vectors("pseudo_mask"), released[RandomWalk].walk
    assert released[FinalMask].mask_prototype_weight == file.number("prototype_weight")
    for name in ("power", "beta", "exp_times", "radius", "background"):
        assert getattr(walk, name) == file.number(name)
    assert walk.all_channels and walk.all_power == pytest.approx(file.number("power") ** 2)


def test_cams_and_irn(released):
    assert released[Inference].scales == tuple(vectors("cam_inference_seeded")["scales"])
    assert released[IrnTraining].radius == vectors("irn_labels").number("radius")


def test_optimisers(released):
    file, settings = vectors("optimizer"), released[SfcTraining]
    assert (settings.lr, settings.lr * settings.lr_new_factor) == tuple(file["base_lr"])
    assert (settings.momentum, settings.weight_decay) == (file.number("momentum"), file.number("weight_decay"))
    assert (released[IrnTraining].momentum, released[IrnTraining].weight_decay) == (1e-4, 1e-4)
    port = vectors("deeplab_steps")
    assert released[SegTraining].momentum == port.number("momentum")
    assert released[SegTraining].lr_power == port.number("power")


def test_crf_of_deeplab(released):
    file = vectors("deeplab_steps")
    crf = with_own_values(released[SegTest], OWN_TEST["deeplabv2_resnet101"]).dense_crf
    for name in CRF._fields:
        assert f"crf_{name}" not in file or getattr(crf, name) == file.number(f"crf_{name}")
