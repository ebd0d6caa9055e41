"""CAM records of stage 2."""

import numpy as np
import torch

from benchmarks import plain
from benchmarks.measure import Row, Setup
from data.cam_store import CamRecord, record_path, write_record
from data.sample import read_image
from data.transforms import rescale
from frame import weights
from net.backbone import build_backbone
from net.sfc import SFCNet
from refine.crf import ir_label
from refine.fusion import read_final_cam

SCALES = (1.0, 0.5, 1.5, 2.0)


def cam_record(setup: Setup) -> list[Row]:
    """Records of an EfficientNet-Lite0 network, and what stage 4 makes of them, against maps kept full-size in float32.
    Without --checkpoint its weights are ImageNet's, and its classifier the mean feature of each class."""
    labels = setup.data_set.image_labels(setup.ids)
    model = cam_model(setup, labels)
    records = [compare_record(model, setup, name, label) for name, label in zip(setup.ids[:setup.images], labels)]
    ours, theirs, seeds, refined = np.mean(records, axis=0)
    return [Row("KB an image", ours, theirs, theirs / ours, "<= 60", bool(ours <= 60)),
            Row("other arg-max than float32's (%)", seeds, None, None, "<= 0.01", bool(seeds <= 0.01)),
            Row("other IR labels than float32's (%)", refined, None, None, "<= 0.01", bool(refined <= 0.01))]


def compare_record(model: SFCNet, setup: Setup, name: str, label: np.ndarray) -> tuple[float, float, float, float]:
    """KB of an image's record and of its full-size maps; per cent of the pixels where the arg-max maps that the CRFs
    start from differ, and where the IR labels do."""
    image = read_image(setup.data_set.image_path(name))
    classes, maps = infer_scales(model, image, label)
    path = record_path(setup.folder, name)
    write_record(path, CamRecord(classes, image.shape[:2], *maps), setup.data_set.num_classes)
    cam, keys = read_final_cam(path, setup.data_set.num_classes, 0.7, 0.4, image.shape[:2])
    whole = [plain.full_size(kind, image.shape[:2]) for kind in maps]
    cams = cam.numpy(), plain.final_cam(*whole, 0.7).numpy()
    seeds = [plain.seed_labels(one) for one in cams]
    refined = [ir_label(image, one, keys) for one in cams]
    return (path.stat().st_size / 1024, sum(kind.numel() * 4 for kind in whole) / 1024,
            100 * np.mean(np.not_equal(*seeds)), 100 * np.mean(np.not_equal(*refined)))


def cam_model(setup: Setup, labels: np.ndarray) -> SFCNet:
    torch.manual_seed(0)
    model = SFCNet(build_backbone("efficientnet_lite0"), setup.data_set.num_classes)
    if setup.checkpoint:
        weights.load_network(model, setup.checkpoint)
        return model.to(setup.device).eval()
    weights.imagenet_weights(model.backbone, "efficientnet_lite0")
    model.to(setup.device).eval()
    pooled = torch.stack([pooled_feature(model, setup, name) for name in setup.ids])            # (images, D)
    pooled = pooled - pooled.mean(0)
    member = torch.from_numpy(labels).float().to(setup.device)
    means = member.T @ pooled / member.sum(0)[:, None].clamp(min=1)                               # (C, D)
    model.classifier.weight.data = means[:, :, None, None]
    return model


@torch.no_grad()
def pooled_feature(model: SFCNet, setup: Setup, name: str) -> torch.Tensor:
    """(D,) mean of the last feature map of an image at half size."""
    return model.backbone(network_input(model, read_image(setup.data_set.image_path(name)), 0.5))[3].mean((0, 2, 3))


def network_input(model: SFCNet, image: np.ndarray, scale: float) -> torch.Tensor:
    """(H, W, 3) uint8 -> (1, 3, h, w) at a scale, normalised, on the device of the model."""
    pixels = torch.from_numpy(rescale(image, scale).transpose(2, 0, 1).copy())[None]
    return model.backbone.prepare(pixels.to(model.classifier.weight.device))


@torch.no_grad()
def infer_scales(model: SFCNet, image: np.ndarray, label: np.ndarray):
    """The classes of an image (1-based), and M_W and M_P of each scale with the maps of the background and those."""
    present = torch.from_numpy(label)[None].to(model.classifier.weight.device)
    channels = [0, *(label.nonzero()[0] + 1)]
    maps = []
    for scale in SCALES:
        output = model.infer(network_input(model, image, scale), present)
        maps.append((output.weight_cam[0, channels].cpu(), output.prototype_cam[0, channels].cpu()))
    return np.array(channels[1:]), [list(kind) for kind in zip(*maps)]
