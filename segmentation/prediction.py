"""Predictions of a trained segmentation network: multi-scale probabilities, arg-max, dense CRF."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from data.loader import ScaledImages, image_loader, upload
from data.sample import InputError
from data.transforms import wrapped_bgr
from frame.settings.segmentation import OWN_TEST, SegTest, with_own_values
from net.deeplabv2 import MultiScale, class_probabilities
from net.inputs import CAFFE_BGR_MEAN
from refine.crf import MeanField, crf_inference_probs
from refine.scored_maps import PREDICTION, PREDICTION_CRF
from runtime import device, distributed
from runtime.parallel import map_images
from segmentation.network import image_input, load_trained


class Prediction(NamedTuple):
    """name; mask (H, W) uint8 arg-max; probabilities (C+1, H, W) float32 for the CRF, None without one."""
    name: str
    mask: np.ndarray
    probabilities: np.ndarray | None


class Trained:
    """The network of a deeplab.pth, ready to predict.

    test           the settings, with the network's own values where they were None
    class_names    foreground classes it was trained on
    scales         of the images that it takes
    smallest_side  pixels that an image must have
    """

    def __init__(self, path: Path, test: SegTest, device_name: str, num_workers: int):
        model, self.design, self.class_names = load_trained(path)
        self.test = with_own_values(test, OWN_TEST[self.design.seg_net])
        self.num_workers = num_workers
        self.device = device.prepare_device(device_name)
        self.takes_maximum = self.design.seg_net == "deeplabv2_resnet101"
        if self.takes_maximum:
            model = MultiScale(model, tuple(scale for scale in self.test.test_scales if scale != 1))
        self.model = model.to(self.device).eval()
        self.prepare = image_input(self.design).to(self.device)
        self.scales = (1.0,) if self.takes_maximum else self.test.test_scales
        self.smallest_side = 1 / min(self.test.test_scales) if self.takes_maximum else 1

    def map_predictions(self, function: Callable, ids: list[str], image_path: Callable, description: str) -> Iterator:
        """function(prediction) of every image that falls to this process; arguments as runtime.parallel.map_images."""
        own = distributed.shard(ids)
        # One waits while one is computed: with a CRF each holds the probabilities of all classes, on COCO 99 MB.
        return map_images(function, self.predictions(own, image_path), self.num_workers, description, total=len(own),
                          ahead=2)

    def predictions(self, ids: list[str], image_path: Callable) -> Iterator[Prediction]:
        """The prediction of every image, at its original size. Raises InputError for one of a single pixel a side."""
        loader = image_loader(ScaledImages(ids, image_path, self.scales), [[i] for i in range(len(ids))],
                              min(1, self.num_workers), self.device.type == "cuda")
        for (index,), images, size in loader:
            if min(size) < self.smallest_side:
                raise InputError(f"{image_path(ids[index])}: image of {size[1]}x{size[0]} pixels, of which scale "
                                 f"{min(self.test.test_scales):g} leaves none; take it out")
            yield self.predict(ids[index], images, size)

    def predict(self, name: str, images: list[torch.Tensor], size: tuple[int, int]) -> Prediction:
        """The prediction of one image at `size`. images: (1, 3, h, w) uint8 of every scale of `scales`."""
        probabilities = self.class_probabilities(images, size)
        mask = probabilities.argmax(0).byte().cpu().numpy()
        return Prediction(name, mask, probabilities.cpu().numpy() if self.test.crf else None)

    @torch.no_grad()
    def class_probabilities(self, images: list[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """Mean of the softmax over scales and mirror images.

        images   (1, 3, h, w) uint8 of every scale
        Returns (C+1, H, W) float32 at `size`.
        """
        mirrors = (False, True) if self.test.test_flip else (False,)
        total = torch.zeros((), device=self.device)
        for image in images:
            pixels = self.prepare(upload(image, self.device))
            for mirrored in mirrors:
                logits = self.model(pixels.flip(3)).flip(3) if mirrored else self.model(pixels)
                # Corners aligned as the network itself up-samples: in SEAM's, not in deeplab-pytorch.
                total = total + class_probabilities(logits, size, align_corners=not self.takes_maximum)[0]
        return total / (len(images) * len(mirrors))


def label_maps(test: SegTest, image: np.ndarray, prediction: Prediction) -> dict[str, np.ndarray]:
    """Name of the score -> mask (H, W) uint8: the prediction, and what the CRF makes of it.

    test   with the network's own values
    image  (H, W, 3) uint8
    """
    maps = {PREDICTION: prediction.mask}
    if test.dense_crf:
        seen = wrapped_bgr(image, CAFFE_BGR_MEAN) if test.crf_image == "wrapped" else image
        assert prediction.probabilities is not None                 # as where a CRF was asked for
        field = MeanField(seen, len(prediction.probabilities), test.dense_crf)
        refined = crf_inference_probs(field, prediction.probabilities)
        maps[PREDICTION_CRF] = refined.argmax(0).astype(np.uint8)
    return maps


def final_mask(test: SegTest, image: np.ndarray, prediction: Prediction) -> np.ndarray:
    """(H, W) uint8: after the CRF if there is one."""
    return list(label_maps(test, image, prediction).values())[-1]
