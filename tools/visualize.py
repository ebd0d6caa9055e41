"""Pictures of CAMs and masks."""

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from data.sample import IGNORE, palette

PALETTE = np.array(palette(), np.uint8).reshape(-1, 3)


def heat_map(image: np.ndarray, cam: np.ndarray, opacity: float = 0.5) -> np.ndarray:
    """(H, W, 3) uint8 image under the colours of a CAM (H, W), stretched to its maximum."""
    level = np.uint8(255 * np.clip(cam / max(float(cam.max()), 1e-5), 0, 1))
    colours = cv2.applyColorMap(level, cv2.COLORMAP_JET)[..., ::-1]
    return np.uint8(opacity * colours + (1 - opacity) * image)


def colour_mask(mask: np.ndarray) -> np.ndarray:
    """(H, W) class indices -> (H, W, 3) uint8 in VOC's colours; ignored pixels are the colour of 255."""
    return PALETTE[mask]


def overlay_mask(image: np.ndarray, mask: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """(H, W, 3) uint8 image with the mask's colours over its foreground."""
    out = image.copy()
    shown = (mask > 0) & (mask != IGNORE)
    out[shown] = np.uint8(opacity * PALETTE[mask[shown]] + (1 - opacity) * image[shown])
    return out


def cam_sheet(images: torch.Tensor, cams: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """Images over the strongest CAM of their classes, side by side: (3, 2H, N*W) uint8.

    images (N, 3, H, W) uint8, cams (N, C+1, h, w), labels (N, C)
    """
    cams = F.interpolate(cams[:, 1:] * labels[:, :, None, None], images.shape[2:], mode="bilinear", align_corners=False)
    pictures = images.permute(0, 2, 3, 1).numpy()
    columns = [np.concatenate([image, heat_map(image, cam)]) for image, cam in zip(pictures, cams.amax(1).numpy())]
    return np.concatenate(columns, axis=1).transpose(2, 0, 1)
