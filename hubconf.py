"""A trained run from Python, without a command line:

    import torch
    sfc = torch.hub.load("PATH/TO/THIS/REPOSITORY", "sfc", source="local", run="runs/sfc")
    cams, = sfc.cams(["photo.jpg"], [["cat", "dog"]])       # without labels: the classes that the classifier sees
    cams.classes, cams.final_cam.shape                      # ("cat", "dog"), (3, H, W): the background first
"""

# Under other names, since torch.hub lists what does not start with an underscore.
from predict.predictor import Predictor as _Predictor

dependencies = ["torch", "torchvision", "numpy", "PIL", "cv2"]


def sfc(run, device="auto", max_side=None):
    """The networks of a trained run as a predict.predictor.Predictor, whose `cams(images, labels)` gives M_W and M_P.

    run       work directory of run_sample.py or train_sfc.py
    device    torch device; auto: a GPU where there is one
    max_side  larger images are made smaller to this many pixels; None: the longest side among the run's own images
    """
    return _Predictor(run, device, max_side)
