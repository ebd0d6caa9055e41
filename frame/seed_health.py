"""Whether the seeds of the prototypes (Eq. 3) mean anything on this data with this backbone, said while it trains."""

import torch

from runtime.work_dir import log

FEW, NEARLY_ALL = 0.02, 0.95       # of an image's pixels: foreground seeds beyond tell no object from its surroundings
FIRST_STEP = 100                   # before, the classifier has learnt too little to blame the settings


@torch.no_grad()
def seed_health(weight_cam: torch.Tensor, seeds: torch.Tensor, valid: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the log says of the seeds of a batch, each a scalar: a mean over its images, so that passes and processes
    add up to the same as one batch.

    weight_cam    (N, C+1, h, w) M_W, channel 0 the background
    seeds, valid  of the same shape: see net.prototype.argmax_seeds and net.sfc.valid_mask
    """
    shown, classes = valid[:, 0].sum((1, 2)), valid[:, 1:]
    share = seeds[:, 1:].amax(1).sum((1, 2)) / shown.clamp(min=1)                           # (N,)
    present = classes.flatten(2).any(2)                                                     # (N, C)
    activation = weight_cam[:, 1:] * classes
    num_classes = present.sum(1).clamp(min=1)                                               # (N,)
    return {
        "seeds/foreground": share.mean(),
        "seeds/images_with_few": (share < FEW).float().mean(),
        "seeds/images_nearly_full": (share > NEARLY_ALL).float().mean(),
        "seeds/no_class_prototype": ((present & ~seeds[:, 1:].flatten(2).any(2)).sum(1) / num_classes).mean(),
        "seeds/no_background_prototype": (~seeds[:, 0].flatten(1).any(1)).float().mean(),
        "seeds/mean_of_M_W": (activation.sum((1, 2, 3)) / classes.sum((1, 2, 3)).clamp(min=1)).mean(),
        "seeds/maximum_of_M_W": (activation.amax((2, 3)).sum(1) / num_classes).mean(),
    }


class SeedWatch:
    """Warns once when most images are all or nothing.

    background  --seed_background of the run
    """

    def __init__(self, background: float):
        self.background = background
        self.warned = False

    def look(self, step: int, means: dict[str, float]) -> None:
        """means: of the last steps, among them those of seed_health."""
        few, full = means["seeds/images_with_few"], means["seeds/images_nearly_full"]
        if self.warned or step < FIRST_STEP or few + full <= 0.5:
            return
        self.warned = True
        log.warning("step %d: prototype seeds are all or nothing: foreground seeds are under %.0f %% of the "
                    "pixels in %.0f %% of the images, over %.0f %% in %.0f %%. PCM leaves M_W too flat (mean %.2f, "
                    "maximum %.2f) for --seed_background %g, so M_P and L_DW^P mean nothing here. What helps: "
                    "--pcm_steps 1, --pcm_center, --seed_normalise, another --seed_background; for photographs on a "
                    "small backbone --preset lite", step, 100 * FEW, 100 * few, 100 * NEARLY_ALL, 100 * full,
                    means["seeds/mean_of_M_W"], means["seeds/maximum_of_M_W"], self.background)
