"""Building the networks from flags, with their initial weights or those of a checkpoint."""

import torch
import torch.nn as nn

from data.sample import InputError
from frame import weights
from net.backbone import Backbone, build_backbone
from net.irn import IRN
from net.sfc import SFCNet
from runtime import distributed
from runtime.work_dir import log


def build_sfc(args, num_classes: int) -> SFCNet:
    """SFCNet as the flags of options.NETWORK say, with random weights."""
    backbone = build_backbone(args.backbone, train_stem=getattr(args, "train_stem", False))
    return SFCNet(backbone, num_classes, args.pcm_steps, args.seed_mode, args.seed_background, args.seed_threshold)


def initialise(model: SFCNet, args) -> bool:
    """Load what --weights names into the network; True if its BatchNorm is to stay frozen.

    A file may hold the whole network (ours or the authors') or the backbone alone (torchvision's names).
    """
    if args.weights not in ("imagenet", "none") and weights.holds_network(args.weights, "classifier."):
        weights.load_network(model, args.weights)
        return True
    return initialise_backbone(model.backbone, args)


def initialise_backbone(backbone: Backbone, args) -> bool:
    """Load what --weights names into a backbone; True if its BatchNorm is to stay frozen."""
    if args.weights == "none":
        log.info("--weights none: random weights, so BatchNorm is trained too (add --train_stem: without it the first "
                 "two stages stay random)")
        return False
    if args.weights == "imagenet":
        weights.imagenet_weights(backbone, args.backbone)
    else:
        weights.load_backbone(backbone, args.weights)
    return True


def load_sfc(args, num_classes: int, path) -> SFCNet:
    """SFCNet with the weights of a checkpoint: ours, whose facts must fit the flags, or the authors'."""
    check_facts(path, backbone=args.backbone, num_classes=num_classes)
    model = build_sfc(args, num_classes)
    weights.load_network(model, path)
    return model


def load_irn(args, path) -> IRN:
    """IRN with the weights of a checkpoint, ours or the authors'."""
    check_facts(path, backbone=args.backbone)
    model = IRN(build_backbone(args.backbone))
    weights.load_network(model, path)
    return model


def check_facts(path, **needed) -> None:
    """Raise InputError if a checkpoint of ours says that it was made for another backbone or data set."""
    content = weights.load_file(path)
    for fact, wanted in needed.items():
        found = content.get(fact, wanted) if isinstance(content, dict) else wanted
        if not torch.is_tensor(found) and found != wanted:
            raise InputError(f"{path}: checkpoint with {fact} {found}, but {wanted} is needed; give the flags it was "
                             "trained with, or another checkpoint")


def set_training_mode(model: nn.Module, frozen_batchnorm: bool) -> None:
    model.train()
    if frozen_batchnorm:
        weights.freeze_batchnorm(model)


AMP_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(args, device: torch.device) -> torch.autocast:
    """Where networks run in the precision of --amp. Raises InputError for float16 on the CPU."""
    if args.amp == "fp16" and device.type == "cpu":
        raise InputError("--amp fp16 needs a GPU; --amp bf16 works on the CPU too")
    return torch.autocast(device.type, AMP_TYPES.get(args.amp, torch.bfloat16), enabled=args.amp != "off")


def loss_scaler(args, device: torch.device) -> torch.amp.GradScaler:
    """Keeps small gradients of float16 above zero; does nothing in other precisions."""
    return torch.amp.GradScaler(device.type, enabled=args.amp == "fp16")


def lay_out(module: nn.Module, args) -> None:
    """Memory layout of --channels_last, and --compile; `module` is one that is called, not only its parts."""
    if args.channels_last:
        module.to(memory_format=torch.channels_last)
    if args.compile:
        module.compile()


def prepare_device(name: str) -> torch.device:
    """The device, with an error when it is not there; of several processes on a node, each gets its own GPU."""
    try:
        device = torch.device(name)
        if device.type == "cuda":
            if distributed.world() > 1:
                device = torch.device("cuda", distributed.local_rank())
            torch.cuda.set_device(device.index or 0)
            torch.set_float32_matmul_precision("high")                  # TF32; convolutions have it anyway
        torch.zeros(1, device=device)
        return device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name} cannot be used here ({str(error).splitlines()[0]}); try --device cpu") from None
