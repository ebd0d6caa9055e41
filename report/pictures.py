"""Pictures of CAMs and masks."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from data.sample import IGNORE, InputError, palette, read_image, write_atomically
from frame import network
from frame.settings.common import BackboneChoice
from frame.settings.irn import IrnCrop
from net.precision import EPS
from refine.scored_maps import CAMS, FINAL_CAM, PROTOTYPE_CAM, WEIGHT_CAM
from report.finished_run import FinishedRun
from runtime.device import AUTO, prepare_device

PALETTE = np.array(palette(), np.uint8).reshape(-1, 3)

# What stage_pictures gives, in the order of the paper's Figure 3, with the later stages before the ground truth.
PANELS = {"image": "image", WEIGHT_CAM: "$M_W$", PROTOTYPE_CAM: "$M_P$", FINAL_CAM: "$M_{final}$",
          "ir_label": "IR label", "edge_map": "edge map", "pseudo_mask": "pseudo mask", "ground_truth": "ground truth"}


def heat_map(image: np.ndarray, cam: np.ndarray, opacity: float = 0.5) -> np.ndarray:
    """(H, W, 3) uint8 image under the colours of a CAM (H, W), stretched to its maximum."""
    level = (255 * np.clip(cam / max(float(cam.max()), EPS), 0, 1)).astype(np.uint8)
    colours = cv2.applyColorMap(level, cv2.COLORMAP_JET)[..., ::-1]
    return (opacity * colours + (1 - opacity) * image).astype(np.uint8)


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


# --- what the stages made of an image -------------------------------------------------------------------------

def stage_pictures(run: FinishedRun, ids: list[str], device: str = AUTO) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield (id, pictures of PANELS that the run has) for each id, at the size of the image.

    Masks are (H, W) class indices, all others (H, W, 3) uint8 RGB. Heat maps show the strongest class of the image.
    Raises InputError for images or files of the run that are missing or damaged.
    """
    edge_map = edge_predictor(run, prepare_device(device)) if (run.path / "irn.pth").exists() else None
    for name in ids:
        image = read_image(run.data_set.image_path(name))
        size = image.shape[:2]
        pictures = {"image": image}
        if (run.path / "cam").is_dir():
            cams = run.cams(name, size)
            pictures |= {key: heat_map(image, weights.mix(*cams)[1:].amax(0).numpy()) for key, weights in CAMS.items()}
        if run.mask_path("ir_label", name).exists():
            pictures["ir_label"] = run.read_mask("ir_label", name, size)
        if edge_map:
            pictures["edge_map"] = edge_map(image)
        if run.mask_path("sem_seg", name).exists():
            pictures["pseudo_mask"] = run.read_mask("sem_seg", name, size)
        if run.data_set.mask_path(name).exists():
            pictures["ground_truth"] = run.data_set.read_mask(name, size)
        yield name, pictures


def edge_predictor(run: FinishedRun, device: torch.device) -> Callable[[np.ndarray], np.ndarray]:
    """A function from an image (H, W, 3) uint8 to its edge map by the run's IRN, (H, W, 3) uint8, edges white."""
    model = network.load_irn(run.flags[BackboneChoice].backbone, run.path / "irn.pth").to(device).eval()
    pad_to = run.flags[IrnCrop].irn_crop_size

    def edge_map(image: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].to(device)
        edge = model.predict_edge(model.backbone.prepare(pixels)[0], pad_to)
        edge = F.interpolate(edge[None], scale_factor=model.stride, mode="bilinear", align_corners=False)[0, 0]
        shown = edge[:image.shape[0], :image.shape[1]].cpu().numpy()
        return np.repeat((255 * shown / max(float(shown.max()), EPS)).astype(np.uint8)[..., None], 3, axis=2)

    return edge_map


def as_rgb(picture: np.ndarray) -> np.ndarray:
    """A picture of stage_pictures as (H, W, 3) uint8: masks in VOC's colours, others as they are."""
    return colour_mask(picture) if picture.ndim == 2 else picture


def legend(pictures: dict[str, np.ndarray], class_names) -> dict[str, tuple[int, int, int]]:
    """Name -> colour of every class that the masks among `pictures` show."""
    names = {0: "background", IGNORE: "unknown"} | dict(enumerate(class_names, 1))
    shown = sorted({int(index) for mask in pictures.values() if mask.ndim == 2 for index in np.unique(mask)})
    return {names[index]: tuple(PALETTE[index].tolist()) for index in shown}


def strip(name: str, pictures: dict[str, np.ndarray], class_names):
    """Matplotlib figure of all pictures of an image in a row, their titles above, the legend of the classes below."""
    from matplotlib.figure import Figure  # takes half a second that the stages using this module save
    from matplotlib.patches import Patch
    height, width = pictures["image"].shape[:2]
    figure = Figure(figsize=(2 * len(pictures), 2 * height / width + 0.8), layout="constrained")
    figure.suptitle(name, fontsize=10, parse_math=False)
    for axes, (key, picture) in zip(figure.subplots(1, len(pictures), squeeze=False)[0], pictures.items()):
        axes.imshow(as_rgb(picture), interpolation="nearest" if picture.ndim == 2 else "bilinear")
        axes.set_title(PANELS[key], fontsize=9)
        axes.set_axis_off()
    patches = [Patch(facecolor=(red / 255, green / 255, blue / 255), edgecolor="grey", label=label)
               for label, (red, green, blue) in legend(pictures, class_names).items()]
    if patches:
        box = figure.legend(handles=patches, loc="outside lower center", ncols=min(len(patches), 8), fontsize=9,
                            frameon=False)
        for text in box.get_texts():
            text.set_parse_math(False)
    return figure


def write_strips(run: FinishedRun, ids: list[str], out: str | Path | None = None) -> Iterator[Path]:
    """Write DIR/ID.png of each id, by default into RUN/pictures, and yield its path; errors as stage_pictures."""
    for name in ids:
        if name != Path(name).name or not run.data_set.image_path(name).exists():
            raise InputError(f"--ids {name}: the data set {run.data_set.root} has no such image; give ids of its lists")
    folder = Path(out) if out else run.path / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for name, pictures in stage_pictures(run, ids):
        figure = strip(name, pictures, run.data_set.class_names)
        path = folder / f"{name}.png"
        write_atomically(path, partial(figure.savefig, format="png", dpi=150))
        yield path
