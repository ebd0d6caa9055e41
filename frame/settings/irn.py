"""Settings of stages 5 and 6: inter-pixel relation network and pseudo masks."""

from dataclasses import dataclass

from frame.flags import Group, option
from refine.pseudo_mask import Walk
from runtime.command import non_negative, positive_int, whole_number


@dataclass(frozen=True)
class IrnCrop(Group, title="IRN"):
    irn_crop_size: int = option(512, "side of IRN's training crops in pixels; at inference smaller images are padded "
                                "to it", positive_int)


@dataclass(frozen=True)
class IrnTraining(Group, title="training of IRN", prefix="irn_"):
    batch_size: int = option(32, "images of a step", positive_int)
    epochs: int = option(3, "passes over the list", positive_int)
    scale_low: float = option(0.5, "random scale: smallest", non_negative)
    scale_high: float = option(1.0, "random scale: largest (IRN 1.5)", non_negative)
    flip: bool = option(True, "random horizontal flip")
    lr: float = option(0.1, "learning rate of the edge branch", non_negative)
    lr_displacement_factor: float = option(10.0, "times --irn_lr: rate of the displacement branch", non_negative)
    momentum: float = option(1e-4, "of SGD (the released optimiser takes its weight decay for the momentum)",
                             non_negative)
    weight_decay: float = option(1e-4, "of SGD", non_negative)
    radius: int = option(10, "reach of pixel pairs in cells of the edge map", positive_int)


@dataclass(frozen=True)
class MaskSource(Group, title="source of the pseudo masks"):
    with_irn: bool = option(True, "random walk along IRN's edges (coco14: off by default, as in the release); without "
                            "it the masks are the IR labels, whose unknown pixels are 255 and do not count in training")
    crf_masks: bool = option(False, "without IRN: masks without unknown pixels, the arg-max of the IR labels' M_final "
                             "after the label-CRF")


@dataclass(frozen=True)
class RandomWalk(Group, title="pseudo masks", prefix="walk_"):
    beta: float = option(Walk().beta, "exponent of the affinity along edges", non_negative)
    exp: int = option(Walk().exp_times, "the transition matrix is applied 2^this times", whole_number)
    radius: int = option(Walk().radius, "reach of one step in cells of 4 pixels", positive_int)
    power: float = option(Walk().power, "exponent of the foreground CAM before the walk (release; IRN 1)", non_negative)
    background: float = option(Walk().background, "background of the walked foreground, whose maximum is 1",
                               non_negative)
    all_channels: bool = option(Walk().all_channels, "add a walk of all channels, the CAM's own background among them "
                                "(release)")
    all_power: float = option(Walk().all_power, "exponent of the CAM before that walk", non_negative)

    @property
    def walk(self) -> Walk:
        return Walk(self.beta, exp_times=self.exp, radius=self.radius, power=self.power, background=self.background,
                    all_channels=self.all_channels, all_power=self.all_power)
