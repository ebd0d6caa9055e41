"""Stage 3: mIoU of M_W, M_P and M_final, with and without the background step, and after the label-CRF.

    python eval_cam.py --voc12_root VOCdevkit/VOC2012 --work_dir runs/sfc
    python eval_cam.py --voc12_root ... --threshold_sweep --no-eval_crf
"""

from functools import partial
from itertools import product

from data.cam_store import final_cam, full_size_cams, read_record
from data.sample import image_size, read_image
from frame import options
from frame.options import crf_options
from refine.crf import crf_inference_label
from refine.metrics import ConfusionMatrix
from refine.segmentation_scores import ThresholdSweep, split_name, summary
from runtime import distributed
from runtime.command import flag
from runtime.parallel import map_images
from runtime.work_dir import log

NAME = "eval_cam"
OUTPUTS = ()
select_ids = options.eval_ids
CHUNK = 8                           # images a process scores before it hands its counts back


def _eval_options(group) -> None:
    flag(group, "eval_crf", True, "score the arg-max of M_final after the label-CRF too (column CRF of Table 1)")
    flag(group, "threshold_sweep", False, "score foreground above every threshold; its best threshold is an oracle")


OPTIONS = (options.RUN, options.DATA, options.EVAL_LIST, options.BACKGROUND, options.FINAL_IR, options.FINAL_MASK,
           options.CRF, options.Group("scores", _eval_options))


def run(args, work_dir, data_set, ids) -> dict:
    """Score all maps in one pass over the CAM records."""
    work_dir.require("cam", "make_cam")
    chunks = distributed.shard(ids[i:i + CHUNK] for i in range(0, len(ids), CHUNK))
    own = Scores(args, data_set.num_classes)
    for part in map_images(partial(score_images, work_dir / "cam", data_set, args), chunks, args.num_workers, NAME,
                           images_of=len):
        own.merge(part)
    total = Scores(args, data_set.num_classes)
    for scores in distributed.gather(own):
        total.merge(scores)
    metrics = {"split": split_name(args, ids), "images": len(ids),
               "scores": {name: summary(matrix, data_set.class_names) for name, matrix in total.confusion.items()}}
    for name, sweep in total.sweeps.items():
        curve = sweep.miou()
        threshold, best = max(curve, key=lambda point: point[1])
        metrics.setdefault("threshold_sweep", {})[name] = {"oracle_threshold": threshold, "oracle_miou": best, "curve": curve}
    log.info("mIoU on %s", metrics["split"])
    for name, scores in metrics["scores"].items():
        log.info("  %-32s %6.2f", name, scores["miou"])
    for name, sweep in metrics.get("threshold_sweep", {}).items():
        log.info("  %-32s %6.2f (oracle threshold %.2f)", name, sweep["oracle_miou"], sweep["oracle_threshold"])
    return metrics


class Scores:
    """Counts of every scored map; `merge` adds those of another process."""

    def __init__(self, args, num_classes: int):
        maps = map_weights(args)
        self.confusion = {f"{name}{suffix}": ConfusionMatrix(num_classes + 1)
                          for name, suffix in product(maps, ("", " +step"))}
        if args.eval_crf:
            self.confusion["final_cam CRF"] = ConfusionMatrix(num_classes + 1)
        self.sweeps = {name: ThresholdSweep(num_classes) for name in maps} if args.threshold_sweep else {}

    def merge(self, other: "Scores") -> None:
        for mine, theirs in ((self.confusion, other.confusion), (self.sweeps, other.sweeps)):
            for name in mine:
                mine[name].merge(theirs[name])


def map_weights(args) -> dict[str, tuple[float, float]]:
    """Scored maps: name -> weights of M_W and M_P. M_final stands there as the paper and as both later stages use it."""
    finals = sorted({1.0, args.ir_prototype_weight, args.mask_prototype_weight}, reverse=True)
    return {"weight_cam": (1, 0), "prototype_cam": (0, 1)} | {f"final_cam {w:g}": (1, w) for w in finals}


def score_images(folder, data_set, args, names: list[str]) -> Scores:
    """Counts of a few images."""
    scores = Scores(args, data_set.num_classes)
    for name in names:
        size = image_size(data_set.image_path(name))
        record = read_record(folder / f"{name}.npz", data_set.num_classes, size)
        truth = data_set.read_mask(name, size)
        plain = full_size_cams(record, None)
        stepped = full_size_cams(record, args.background_offset)
        for (label, (w, p)), (suffix, (weight_cam, prototype_cam)) in product(
                map_weights(args).items(), (("", plain), (" +step", stepped))):
            cam = w * weight_cam + p * prototype_cam
            scores.confusion[label + suffix].update(record.keys[cam.argmax(0).numpy()], truth)
            if label in scores.sweeps and not suffix:
                scores.sweeps[label].update(cam.numpy() / (w + p), record.keys, truth)
        if args.eval_crf:
            cam = final_cam(*(stepped if args.background_step else plain), args.ir_prototype_weight)
            refined = crf_inference_label(read_image(data_set.image_path(name)), cam.argmax(0).numpy(), len(cam),
                                          **crf_options(args))
            scores.confusion["final_cam CRF"].update(record.keys[refined], truth)
    return scores


if __name__ == "__main__":
    from run_sample import run_alone
    run_alone(NAME)
