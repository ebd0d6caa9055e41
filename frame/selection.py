"""The checkpoint that the release uses: the one whose CAMs score best with the pixel labels of the training set.

Weak supervision does not have these labels. The last checkpoint is the default; in the release's log it is 1.1 mIoU
below the best.
"""

import math
from collections.abc import Callable

import torch

from data.cam_store import present_maps
from data.loader import ScaledImages, image_loader, same_size_batches
from frame.network import infer
from frame.scores import merged_over_processes
from net.sfc import SFCNet
from refine.fusion import final_cam, full_size_cams
from refine.metrics import ConfusionMatrix
from runtime.device import Compute
from runtime.distributed import lazy_shard
from runtime.work_dir import log

BATCH = 8                                # images of equal size at a time
SAID = "checkpoint selected with pixel labels"


class BestCheckpoint:
    """Scores a network at some steps of its training and keeps the best.

    score  () -> mIoU in per cent, the same on every process
    save   () writes the checkpoint
    every  steps between two looks; the last step is looked at too
    """

    def __init__(self, score: Callable[[], float], save: Callable[[], None], every: int, total_steps: int):
        self.score, self.save = score, save
        self.every, self.total_steps = every, total_steps
        self.miou, self.step = -math.inf, 0

    def after_step(self, step: int) -> None:
        if step % self.every and step != self.total_steps:
            return
        miou = self.score()
        log.info("step %d: M_W + M_P %.2f mIoU with the pixel labels of the training list", step, miou)
        if miou > self.miou:
            self.miou, self.step = miou, step
            self.save()

    def state_dict(self) -> dict:
        return {"miou": self.miou, "step": self.step}

    def load_state_dict(self, state: dict) -> None:
        self.miou, self.step = state["miou"], state["step"]


@torch.no_grad()
def final_cam_miou(model: SFCNet, compute: Compute, data_set, ids: list[str], num_workers: int = 0) -> float:
    """mIoU in per cent of the arg-max of M_W + M_P (Eq. 9) at scale 1, of all images on all processes.

    The network must be in evaluation mode. Raises InputError for an image without mask.
    """
    labels = torch.from_numpy(data_set.image_labels(ids))
    batches = lazy_shard(same_size_batches(ids, data_set.image_path, BATCH))
    loader = image_loader(ScaledImages(ids, data_set.image_path), batches, num_workers, compute.device.type == "cuda")
    confusion = ConfusionMatrix(data_set.num_classes + 1)
    for indices, scaled, size in loader:
        present = labels[indices]
        output, = infer(model, compute, scaled, present)
        for index, label, *maps in zip(indices, present, output.weight_cam, output.prototype_cam):
            record = present_maps([tuple(maps)], label, size)
            cam = final_cam(*full_size_cams(record, offset=None))
            confusion.update(record.keys[cam.argmax(0).numpy()], data_set.read_mask(ids[index], size))
    return 100 * merged_over_processes([{"": confusion}])[""].miou()
