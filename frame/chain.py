"""The stages of the chain, in their order."""

UPSTREAM = {                                   # stages whose output a stage reads, in the order of the chain
    "train_sfc": (),
    "make_cam": ("train_sfc",),
    "eval_cam": ("make_cam",),
    "cam_to_ir_label": ("make_cam",),
    "train_irn": ("cam_to_ir_label",),
    "make_sem_seg_labels": ("make_cam", "cam_to_ir_label", "train_irn"),
    "eval_sem_seg": ("make_sem_seg_labels",),
    "train_deeplab": ("make_sem_seg_labels",),
    "eval_deeplab": ("train_deeplab",),
}
STAGES = tuple(UPSTREAM)
# Those that run a network, on --device; the others compute on the processor.
NETWORK_STAGES = tuple(name for name in STAGES if name not in ("eval_cam", "cam_to_ir_label", "eval_sem_seg"))
LAST_DEFAULT_STAGE = "eval_sem_seg"            # training a segmentation network takes a GPU: on request only
