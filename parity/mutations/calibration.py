"""Wrongs of the CAM network, its losses and its inference."""

import torch

import net.msdw
import net.sfc
import refine.fusion
from data.transforms import resize
from net.backbone import build_backbone
from net.msdw import MSDWLoss, bank_samples, distribution_coefficient
from net.pcm import pixel_correlation
from net.prototype import argmax_seeds, masked_average
from net.sfc import SFCNet, sum_flips, unit_length_on_grid, valid_mask
from parity.mutations.patch import changed, corners, replaced, then
from parity.mutations.run import Check, Wrong
from parity.sfc import check_cam_inference, check_first_step
from refine.fusion import background_step, fuse_scales

STEP = Check("sfc_seeds", check_first_step)
CAMS = Check("cam_inference_seeded", check_cam_inference)
BILINEAR = 2  # of Pillow
WHOLE_CROP = [0, 1 << 20, 0, 1 << 20]


def attached(original):
    """SFCNet.side_features whose gradients reach the backbone."""

    def side_features(self, features):
        sides = self.side1, self.side2, self.side3, self.side4
        grid = features[2].shape[2:]
        return torch.cat([unit_length_on_grid(side, feature, grid) for side, feature in zip(sides, features)], dim=1)

    return side_features


def undivided_sum(original):
    return lambda maps, size: original(maps, size) * len(maps)


def only_detached(name: str):
    return lambda output: output._replace(**{name: getattr(output, name).detach()})


NETWORK = [
    *(
        Wrong(f"seed factor {factor:g}", changed(argmax_seeds, background=factor), (CAMS,))
        for factor in (0.0, 0.25, 0.35)
    ),
    *(Wrong(f"seed factor {factor:g}", changed(argmax_seeds, background=factor), (STEP,)) for factor in (1.0, 3.0)),
    Wrong("seeds over a threshold", changed(SFCNet.__init__, seed_mode="threshold"), (CAMS,)),
    *(
        Wrong(f"PCM applied {times}", changed(pixel_correlation, steps=steps), (CAMS,))
        for times, steps in (("once", 1), ("three times", 3))
    ),
    Wrong("PCM without the image", changed(SFCNet.calibrated_cams, image=torch.zeros_like), (CAMS,)),
    Wrong("PCM without layer4", changed(SFCNet.calibrated_cams, top_feature=torch.zeros_like), (CAMS,)),
    Wrong(
        "PCM's image: corners not aligned",
        corners(net.sfc, lambda o: o["align_corners"] and "scale_factor" not in o),
        (CAMS,),
    ),
    Wrong("side features: corners aligned", corners(net.sfc, lambda o: not o["align_corners"]), (CAMS,)),
    Wrong("background taken after PCM", changed(SFCNet.__init__, background_after_pcm=True), (CAMS,)),
]

MASKS = [
    Wrong("seeds not masked", changed(SFCNet.seeds, valid=torch.ones_like), (STEP,)),
    Wrong("mask without the label", changed(valid_mask, label=torch.ones_like), (STEP,)),
    Wrong(
        "mask without the box", changed(valid_mask, box=lambda box: torch.tensor(WHOLE_CROP).expand_as(box)), (STEP,)
    ),
    Wrong("half branch: mask at the full branch's stride", changed(SFCNet.forward, mask_stride=None), (STEP,)),
    Wrong("half image: corners not aligned", corners(net.sfc, lambda o: "scale_factor" in o), (STEP,)),
]

LOSSES = [
    Wrong("L_DW^W: corners not aligned", corners(net.msdw), (STEP,)),
    Wrong("L_DW^P: M_W detached", changed(MSDWLoss.prototype_consistency, output=only_detached("weight_cam")), (STEP,)),
    Wrong(
        "L_DW^P: M_P detached", changed(MSDWLoss.prototype_consistency, output=only_detached("prototype_cam")), (STEP,)
    ),
    Wrong(
        "L_DW^W: M_W of scale 1 detached", changed(MSDWLoss.scale_consistency, full_cam=torch.Tensor.detach), (STEP,)
    ),
    Wrong("prototypes detached", then(masked_average, torch.Tensor.detach), (STEP,)),
    Wrong("side features reach the backbone", replaced(SFCNet.side_features, attached), (STEP,)),
    Wrong("stem to layer2 trained", changed(build_backbone, train_stem=True), (STEP,)),
    Wrong("L_cls at scale 1 alone", changed(MSDWLoss.__init__, cls_half=False), (STEP,)),
    Wrong("L_DW^P weighs 1", changed(MSDWLoss.__init__, weight_p=1.0), (STEP,)),
    Wrong("L_DW^W weighs 1", changed(MSDWLoss.__init__, weight_w=1.0), (STEP,)),
    Wrong("L_DW: sum over classes", changed(MSDWLoss.__init__, reduction="l1"), (STEP,)),
    Wrong("L_DW^P: M_P not divided by its maximum", changed(MSDWLoss.__init__, normalise_prototype=False), (STEP,)),
    Wrong("L_DW^P without DC", changed(MSDWLoss.__init__, dc_p=torch.ones_like), (STEP,)),
    Wrong("L_DW^W without DC", changed(MSDWLoss.__init__, dc_w=torch.ones_like), (STEP,)),
    Wrong(
        "L_DW^W without the label",
        changed(MSDWLoss.scale_consistency, label=torch.ones_like),
        (STEP,),
        "M_W of classes that are not in the label is 0 in training",
    ),
    Wrong("DC without N", changed(distribution_coefficient, added=0.0), (STEP,)),
    Wrong("DC with C_IBR 1.555", changed(bank_samples, classes_per_image=1.555), (STEP,)),
    Wrong("DC scaled as Eq. 6", changed(distribution_coefficient, scale="total_demand"), (STEP,)),
]

INFERENCE = [
    Wrong("flips not averaged", replaced(sum_flips, lambda _: lambda x: 2 * x.chunk(2)[0]), (CAMS,)),
    Wrong("absent classes masked before PCM", changed(SFCNet.infer, mask_cam=True), (CAMS,)),
    Wrong("label not applied to the seeds", changed(SFCNet.seeds, valid=torch.ones_like), (CAMS,)),
    Wrong("M_W and M_P exchanged", then(SFCNet.calibrated_cams, lambda cams: cams[::-1]), (CAMS,)),
    Wrong("images resized bilinearly", changed(resize, resample=BILINEAR), (CAMS,)),
    Wrong("last scale left out", changed(fuse_scales, maps=lambda maps: maps[:-1]), (CAMS,)),
    Wrong("fused maps not divided by their maximum", replaced(fuse_scales, undivided_sum), (CAMS,)),
    Wrong("fusion: corners aligned", corners(refine.fusion), (CAMS,)),
    Wrong("background step of 0.3", changed(background_step, offset=0.3), (CAMS,)),
    Wrong("foreground not doubled", then(background_step, lambda cam: torch.cat([cam[:1], cam[1:] / 2])), (CAMS,)),
]

WRONGS = NETWORK + MASKS + LOSSES + INFERENCE
