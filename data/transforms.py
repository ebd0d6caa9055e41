"""Training augmentation on uint8 images."""

import cv2
import numpy as np
from PIL import Image


def resize(image: np.ndarray, size: tuple[int, int], resample=Image.Resampling.BICUBIC) -> np.ndarray:
    """(H, W[, 3]) uint8 -> the same at size (h, w)."""
    if image.shape[:2] == tuple(size):
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), resample))


def resize_float(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 -> (h, w, 3) float32 at size (h, w): bilinear without anti-aliasing, not rounded (OpenCV)."""
    return cv2.resize(image.astype(np.float32), (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def cut_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """(H, W) times `scale`, fractions of a pixel cut off, at least one pixel a side."""
    return max(1, int(scale * size[0])), max(1, int(scale * size[1]))


def rescale(image: np.ndarray, scale: float, resample=Image.Resampling.BICUBIC) -> np.ndarray:
    """(H, W[, 3]) uint8 resized by `scale`, at least one pixel a side."""
    height, width = image.shape[:2]
    return resize(image, (max(1, round(height * scale)), max(1, round(width * scale))), resample)


def random_resize_long(image: np.ndarray, low: int, high: int, rng: np.random.Generator) -> np.ndarray:
    """Resize so that the longer side is a uniform integer of [low, high] pixels."""
    return rescale(image, int(rng.integers(low, high + 1)) / max(image.shape[:2]))


def random_crop_box(height: int, width: int, crop: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Place a crop of crop x crop pixels on an image: cut what is larger, pad what is smaller, both at random.

    Returns (y0, x0, top, left, h, w): the patch image[y0:y0+h, x0:x0+w] lies at (top, left) of the crop.
    """
    h, w = min(height, crop), min(width, crop)
    y0, x0 = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    top, left = int(rng.integers(crop - h + 1)), int(rng.integers(crop - w + 1))
    return y0, x0, top, left, h, w


def cut(image: np.ndarray, placement: tuple[int, ...], crop: int, fill: int = 0) -> np.ndarray:
    """The crop that random_crop_box placed, (crop, crop[, 3]); `fill` where the image does not reach."""
    y0, x0, top, left, h, w = placement
    out = np.full((crop, crop, *image.shape[2:]), fill, image.dtype)
    out[top:top + h, left:left + w] = image[y0:y0 + h, x0:x0 + w]
    return out


def wrapped_bgr(image: np.ndarray, mean: tuple[float, float, float]) -> np.ndarray:
    """The image that deeplab-pytorch hands to its CRF: BGR minus the mean, cast to bytes, so that what is darker than
    the mean wraps around.

    image (H, W, 3) uint8 RGB -> (H, W, 3) uint8 BGR.
    """
    centred = image[..., ::-1].astype(np.float32) - np.array(mean, np.float32)
    return centred.astype(np.int16).astype(np.uint8)           # by way of int16: casting negative floats is undefined


def shift_hsv(image: np.ndarray, largest: float, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8 RGB with hue, saturation and value each shifted by a uniform amount of [-largest, largest].

    Hue counts in steps of 2 degrees and wraps around; saturation and value count from 0 to 255 and are clipped.
    """
    hsv = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV).astype(np.int16)
    hsv += np.round(rng.uniform(-largest, largest, 3)).astype(np.int16)
    hsv[..., 0] %= 180
    return cv2.cvtColor(hsv.clip(0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB)
