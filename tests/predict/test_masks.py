"""Masks of an image by hand: what each of the run's settings and networks does to them."""

import numpy as np
import pytest
import torch
from PIL import Image

from data.cam_store import CamRecord
from frame.settings.segmentation import OWN_TEST, SegTest, with_own_values
from predict import folder
from predict.folder import Job, heat_maps, write_files
from predict.masks import LABEL_CRF, SEGMENTATION, WALK, Recipe, masks_of
from predict.predictor import Evidence
from refine.crf import CRF
from refine.pseudo_mask import Walk
from segmentation.prediction import Prediction

SIDE = 32
LEFT, RIGHT = slice(0, SIDE // 2), slice(SIDE // 2, SIDE)
RECIPE = Recipe(offset=None, ir_weight=1.0, mask_weight=1.0, crf=CRF(iterations=2), walk=Walk(exp_times=2), stride=4,
                test=None, kinds=(LABEL_CRF, WALK))


@pytest.fixture
def evidence():
    """A dark left half, which M_W takes for class 3, and a bright right half, which M_P takes for class 5."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[:, RIGHT] = 255
    weight, prototype = np.zeros((2, 3, SIDE, SIDE), np.float32)
    weight[0, 0, 0] = prototype[0, 0, 0] = 1               # its maximum, which maps are divided by
    weight[1, :, LEFT], prototype[2, :, RIGHT] = 1, 1
    record = CamRecord(np.array([3, 5]), (SIDE, SIDE), [weight], [prototype])
    return Evidence(image, np.zeros(5, np.float32), record, np.zeros((1, SIDE // 4, SIDE // 4), np.float32))


def halves(mask):
    """The classes of the two halves, but for the cells where they meet."""
    return [sorted(np.unique(half)) for half in (mask[:, :SIDE // 2 - 8], mask[:, SIDE // 2 + 8:])]


def test_both_maps_and_the_names_of_the_classes(evidence):
    masks = masks_of(evidence, RECIPE)
    assert {kind: halves(mask) for kind, mask in masks.items()} == {LABEL_CRF: [[3], [5]], WALK: [[3], [5]]}
    assert {mask.dtype for mask in masks.values()} == {np.dtype(np.uint8)}


@pytest.mark.parametrize("setting, kind", [("ir_weight", LABEL_CRF), ("mask_weight", WALK)])
def test_the_weight_of_the_prototype_map(evidence, setting, kind):
    """Without M_P nothing shows class 5; each of the two masks has a weight of its own."""
    alone = masks_of(evidence, RECIPE._replace(**{setting: 0.0}))
    other = {LABEL_CRF: WALK, WALK: LABEL_CRF}[kind]
    assert 5 not in alone[kind] and 3 in alone[kind] and halves(alone[other]) == [[3], [5]]


def test_the_background_step(evidence):
    """It doubles the foreground, and adds its offset to the background."""
    few, many = (masks_of(evidence, RECIPE._replace(offset=offset))[LABEL_CRF] for offset in (0.4, 1.4))
    assert halves(few) == [[3], [5]] and not many.any()


def test_an_image_without_classes(evidence):
    nothing = CamRecord(np.array([], np.int64), (SIDE, SIDE), *([cam[:1] for cam in maps] for maps in (
        evidence.record.weight_maps, evidence.record.prototype_maps)))
    assert not any(mask.any() for mask in masks_of(evidence._replace(record=nothing), RECIPE).values())


@pytest.mark.parametrize("crf", [False, True])
def test_the_segmentation_network_has_the_last_word(evidence, crf):
    probabilities = torch.full((6, SIDE, SIDE), 0.02)
    probabilities[2, :, LEFT], probabilities[4, :, RIGHT] = 0.9, 0.9
    prediction = Prediction("", probabilities.argmax(0).byte().numpy(), probabilities.numpy() if crf else None)
    test = with_own_values(SegTest(crf=crf, crf_iterations=2), OWN_TEST["deeplabv2_resnet101"])
    masks = masks_of(evidence._replace(prediction=prediction), RECIPE._replace(test=test))
    assert list(masks) == [LABEL_CRF, WALK, SEGMENTATION] and halves(masks[SEGMENTATION]) == [[2], [4]]
    alone = masks_of(Evidence(evidence.image, prediction=prediction), RECIPE._replace(test=test))
    assert list(alone) == [SEGMENTATION]


def test_heat_maps_are_of_their_class(evidence):
    classes = ("a", "b", "third", "d", "fifth")
    grey = np.full((2 * SIDE, 2 * SIDE, 3), 128, np.uint8)                      # of the photograph, which is larger
    maps = heat_maps(grey, classes, RECIPE, evidence)
    assert list(maps) == ["third", "fifth"] and {picture.shape for picture in maps.values()} == {grey.shape}
    red = {name: picture[..., 0].astype(float) - picture[..., 2] for name, picture in maps.items()}
    for name, (hot, cold) in {"third": (LEFT, RIGHT), "fifth": (RIGHT, LEFT)}.items():
        columns = red[name].mean(0).reshape(SIDE, 2).mean(1)
        assert columns[hot].mean() > columns[cold].mean() + 20
    without = heat_maps(grey, classes, RECIPE._replace(ir_weight=0.0), evidence)["fifth"]      # M_P alone shows it
    assert np.ptp(without, axis=(0, 1)).max() == 0


def test_the_overlay_is_of_the_best_mask(evidence, tmp_path, monkeypatch):
    first, best = np.zeros((2, SIDE, SIDE), np.uint8)
    best[:, LEFT] = 1
    monkeypatch.setattr(folder, "masks_of", lambda *_: {LABEL_CRF: first, WALK: best})
    for name in ("heat", "overlay", LABEL_CRF, WALK):
        (tmp_path / name).mkdir()
    Image.fromarray(evidence.image).save(tmp_path / "a.png")
    write_files(tmp_path, ("a", "b", "third", "d", "fifth"), RECIPE, Job(tmp_path / "a.png", evidence, on_page=False))
    overlay = np.asarray(Image.open(tmp_path / "overlay/a.jpg")).astype(int)
    assert (abs(overlay - evidence.image)[:, :SIDE // 2 - 2].max(2) > 50).all()
    assert (abs(overlay - evidence.image)[:, SIDE // 2 + 8:] < 50).all()
