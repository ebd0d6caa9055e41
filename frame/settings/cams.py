"""Settings of stages 1 to 4: CAM network, training, inference, fused CAMs, label-CRF, IR labels."""

from dataclasses import asdict, dataclass

from frame.flags import Group, option
from refine.crf import CRF
from runtime.command import non_negative, number_list, path, positive, positive_int, probability, size_range


@dataclass(frozen=True)
class Network(Group, title="CAM network"):
    pcm_steps: int = option(2, "applications of the PCM affinity (release 2, SEAM 1)", positive_int)
    seed_mode: str = option("argmax", "prototype seeds: arg-max class of M_W (release) or activation over a threshold "
                            "(Eq. 3)", choices=("argmax", "threshold"))
    seed_background: float = option(0.3, "factor of the background channel before the seeds' arg-max (release)", float)
    seed_threshold: float = option(0.3, "activation above which a pixel is a seed, for --seed_mode threshold (the "
                                   "paper gives no value)", float)
    background_after_pcm: bool = option(False, "background of M_W: 1 - max over its classes (Eq. 2), not that of the "
                                        "coarse CAM after PCM (release)")
    pcm_center: bool = option(False, "PCM compares features less their mean over the shown part of the image (release: "
                              "as they are)")
    seed_normalise: bool = option(False, "prototype seeds from M_W divided by its maximum (release: from M_W)")


@dataclass(frozen=True)
class SfcTraining(Group, title="training of the classifier", prefix="sfc_", short_names=True):
    crop_size: int = option(512, "side of the training crops in pixels", positive_int)
    resize_long: tuple[int, int] | None = option(None, "low,high: random long side in pixels before cropping; none: "
                                                 "keep the size, as the release's VOC loader does (its COCO loader: "
                                                 "320,640)", size_range)
    train_stem: bool = option(False, "train the first two stages of the backbone too (release: never)")
    flip: bool = option(False, "random horizontal flip (the release: on for coco14 alone)")
    batch_size: int = option(16, "images of a step, without those of the bank", positive_int)
    epochs: int = option(6, "passes over the training list", positive_int)
    lr: float = option(0.1, "learning rate of the backbone", non_negative)
    lr_new_factor: float = option(10.0, "times --sfc_lr: rate of the new layers", non_negative)
    momentum: float = option(1e-4, "of SGD (the released optimiser takes its weight decay for the momentum)",
                             non_negative)
    weight_decay: float = option(1e-4, "of SGD", non_negative)
    clip_norm: float = option(1.0, "largest gradient norm over all parameters", non_negative)


@dataclass(frozen=True)
class Selection(Group, title="choice of the checkpoint"):
    keep_best: bool = option(False, "go on from the checkpoint whose M_W + M_P scores best with the pixel labels of "
                             "the training list, as the release does, not from the last one; every score then says so")
    best_every: int = option(300, "steps between two looks at it", positive_int)

    @property
    def result(self) -> str:
        """File of the work directory that later stages go on from."""
        return "sfc_best.pth" if self.keep_best else "sfc.pth"


@dataclass(frozen=True)
class Calibration(Group, title="shared feature calibration"):
    ibr: bool = option(True, "image bank re-sampling")
    ibr_images: int = option(4, "N_IBR, images drawn from the bank each step", positive_int)
    ibr_allow_empty: bool = option(False, "draw from slots still empty too: black images without label (release)")
    ibr_classes: float = option(3.0, "C_IBR of Eq. 6, classes an image shows on average (release 3); 0: measure it",
                                non_negative)
    dc_p: bool = option(True, "distribution coefficient in L_DW^P (Table 5)")
    dc_w: bool = option(True, "distribution coefficient in L_DW^W (Table 5)")
    dc_scale: str = option("mean", "DC divided by its mean over classes (release) or scaled as Eq. 6 says",
                           choices=("mean", "total_demand"))
    dw_p_weight: float = option(1.6, "weight of L_DW^P (Eq. 5), 0: without it", non_negative)
    dw_w_weight: float = option(0.8, "weight of L_DW^W (Eq. 7), 0: without it", non_negative)
    dw_reduction: str = option("mean", "mean over images, classes and pixels (release), or the mean over pixels of "
                               "each class summed over classes (Eq. 5, 7)", choices=("mean", "l1"))
    normalise_prototype: bool = option(True, "divide M_P by its maximum before L_DW^P (release)")
    cls_half: bool = option(True, "average L_cls over scale 1 and 0.5 (release), not scale 1 alone (Eq. 1)")

    @property
    def bank_images(self) -> int:
        """Images that the bank adds to a step."""
        return self.ibr_images if self.ibr else 0


@dataclass(frozen=True)
class Inference(Group, title="inference"):
    checkpoint: str | None = option(None, "trained SFC network, ours or the authors'; default sfc.pth of the run",
                                    path)
    scales: tuple[float, ...] = option((1.0, 0.5, 1.5, 2.0), "image scales, each with its mirror image", number_list)
    mask_cam: bool = option(False, "set absent classes to 0 before PCM, as in training (release: not at inference)")
    cam_batch_size: int = option(8, "images of equal size at a time", positive_int)


@dataclass(frozen=True)
class Background(Group, title="fused CAMs", prefix="background_"):
    step: bool = option(True, "double the foreground of the fused CAMs and raise the background (release)")
    offset: float = option(0.4, "what the background step adds", float)

    @property
    def added(self) -> float | None:
        """What the background step adds; None without it."""
        return self.offset if self.step else None


@dataclass(frozen=True)
class FinalIr(Group, title="M_final for IR labels"):
    ir_prototype_weight: float = option(0.7, "M_final of the IR labels: M_W + this * M_P (release; Eq. 9: 1)",
                                        non_negative)


@dataclass(frozen=True)
class FinalMask(Group, title="M_final for pseudo masks"):
    mask_prototype_weight: float = option(0.3, "M_final of the pseudo masks: M_W + this * M_P (release; Eq. 9: 1)",
                                          non_negative)


@dataclass(frozen=True)
class LabelCrf(Group, title="label-CRF", prefix="crf_"):
    iterations: int = option(12, "mean-field iterations (a second branch of the release; IRN 10)", positive_int)
    gt_prob: float = option(CRF().gt_prob, "probability that a given label is right", probability)
    gaussian_sxy: float = option(CRF().gaussian_sxy, "Gaussian term: pixels", positive)
    gaussian_compat: float = option(CRF().gaussian_compat, "Gaussian term: weight", non_negative)
    bilateral_sxy: float = option(CRF().bilateral_sxy, "bilateral term: pixels", positive)
    bilateral_srgb: float = option(CRF().bilateral_srgb, "bilateral term: grey levels", positive)
    bilateral_compat: float = option(CRF().bilateral_compat, "bilateral term: weight", non_negative)

    @property
    def crf(self) -> CRF:
        return CRF(**asdict(self))


@dataclass(frozen=True)
class CamScores(Group, title="scores"):
    eval_crf: bool = option(True, "score the arg-max of M_final after the label-CRF too (column CRF of Table 1)")
    threshold_sweep: bool = option(False, "score foreground above every threshold; its best threshold is an oracle")


@dataclass(frozen=True)
class IrLabels(Group, title="IR labels"):
    ir_background: float = option(0.5, "factor of the background channel in the second CRF, which decides what is "
                                  "background", non_negative)
