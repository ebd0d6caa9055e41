"""The training loop of stages 1, 5 and 8: poly schedule, clipping, log, checkpoint, resume."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch.nn.parallel import DistributedDataParallel

from data.sample import InputError, write_atomically
from frame.weights import load_file
from net.batchnorm import batchnorms
from runtime import distributed, interrupt
from runtime.progress import progress
from runtime.work_dir import WorkDir, log

LOG_EVERY = 10                     # steps between looks at the losses, each of which waits for the device


def poly_sgd(groups: list[dict], total_steps: int, momentum: float, weight_decay: float, power: float = 0.9,
             every: int = 1):
    """SGD whose learning rates fall by (1 - step / total_steps) ** power, brought up to date each `every` steps.

    groups  [{"params": ..., "lr": ...}, ...]
    Returns (optimizer, scheduler).
    """
    def decay(step: int) -> float:
        return (1 - min(step - step % every, total_steps) / total_steps) ** power

    optimizer = torch.optim.SGD(groups, momentum=momentum, weight_decay=weight_decay)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, decay)


@dataclass(frozen=True)
class Training:
    """What a training is made of; `fit` runs it.

    The images of a step are cut into `accumulate` passes and each pass into one part a process (distributed.share).
    Losses and gradients are means over parts, weighted by their images: those of one pass of one process where the
    losses are means over images.

    model        saved in checkpoints and, at the end, as the stage's result
    loss         (part, passes before it) -> {"total": what is minimised, further losses for the log}; a name with a
                 slash is of another quantity, which the log's lines leave out
    loader       first_step -> iterable of the steps' images from that step on, those of this process alone
    batch_size   images of a step, of all processes
    prepare      (batch, step) -> the batch that is cut into passes; None: the loader's
    accumulate   passes of a step
    scaler       of the loss, for float16
    memory       further objects with state_dict / load_state_dict that a resumed run needs (image bank)
    on_log       (writer, step): called now and then, for pictures
    on_look      (step, means of the losses since the last look): called on the main process
    after_step   (step): called after each step, on every process
    epoch_steps  steps of an epoch; a checkpoint is saved at its end
    """
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    loss: Callable
    loader: Callable
    total_steps: int
    batch_size: int
    clip_norm: float = math.inf
    memory: dict = field(default_factory=dict)
    on_log: Callable | None = None
    on_look: Callable[[int, dict[str, float]], None] | None = None
    after_step: Callable[[int], None] | None = None
    accumulate: int = 1
    epoch_steps: int = 0
    prepare: Callable | None = None
    scaler: torch.amp.GradScaler = field(default_factory=partial(torch.amp.GradScaler, "cpu", enabled=False))


def fit(training: Training, work_dir: WorkDir, name: str, save_minutes: float = 10.0) -> dict:
    """Train to `training.total_steps`, from the last checkpoint of an interrupted run if there is one.

    Checkpoints are saved every `save_minutes`, at the end of an epoch, at a signal and at the end.
    name  checkpoint `name`_checkpoint.pth and TensorBoard folder of the run
    Returns {"losses": last logged values, "steps": ..., "images_per_second": ...}.
    Raises InputError on a non-finite loss, naming the step and the last good checkpoint; Interrupted after a signal.
    """
    path = work_dir / f"{name}_checkpoint.pth"
    step, logged, unseen = _resume(training, path)          # unseen: losses since the last look, still on the device
    first_step = step
    main = distributed.is_main()
    forward = parallel(training)
    if main:
        # Takes a second, which commands that do not train need not wait for.
        from torch.utils.tensorboard import SummaryWriter
        writer = SummaryWriter(str(work_dir / "tensorboard" / name), purge_step=first_step)
    start = last_save = time.monotonic()
    with progress(total=training.total_steps, initial=first_step, desc=name, unit="step") as bar:
        for batch in training.loader(first_step):
            losses = train_step(training, forward, batch, step)
            step += 1
            if training.after_step:
                training.after_step(step)
            unseen.append(torch.stack(list(losses.values())))
            end_of_epoch = step == training.total_steps or (training.epoch_steps and step % training.epoch_steps == 0)
            look, stop = step % LOG_EVERY == 0 or end_of_epoch, interrupt.requested()
            if not (look or stop):
                continue
            means = _look(unseen, tuple(losses), step, path)
            if look:
                logged, unseen = means, []
            if main:
                rate = (step - first_step) * training.batch_size / (time.monotonic() - start)
                shown = "  ".join(f"{name} {value:.4f}" for name, value in without_slash(logged).items())
                bar.set_postfix_str(f"{rate:.1f} images/s  {shown}", False)
                bar.update(step - bar.n)
                _log_scalars(writer, name, logged | {"lr": float(training.scheduler.get_last_lr()[0])}, step)
                if training.on_look and look:
                    training.on_look(step, logged)
                if training.on_log and (step % (10 * LOG_EVERY) == 0 or step == training.total_steps):
                    training.on_log(writer, step)
                if end_of_epoch or stop or time.monotonic() - last_save > 60 * save_minutes:
                    _save(training, path, step, logged, unseen)
                    last_save = time.monotonic()
            if stop:
                distributed.barrier()                     # no process ends before the checkpoint is written
                interrupt.check()
    if main:
        writer.close()
    seconds = time.monotonic() - start
    rate = (step - first_step) * training.batch_size / seconds
    log.info("%s: %d steps of %d images, %.1f images/s, losses %s", name, step, training.batch_size, rate,
             {key: round(value, 4) for key, value in without_slash(logged).items()})
    return {"losses": logged, "steps": step, "images_per_second": round(rate, 2)}


class ModelAndLoss(nn.Module):
    """The network and its loss as one call, which is what DistributedDataParallel watches."""

    def __init__(self, training: Training):
        super().__init__()
        self.model = training.model
        self.loss = training.loss

    def forward(self, part, number: int) -> dict[str, torch.Tensor]:
        return self.loss(part, number)


def parallel(training: Training) -> Callable:
    """The loss of `training`; on several processes, its gradients are averaged over them.

    BatchNorm that is trained takes its statistics over all processes on GPUs; on the CPU there is no such layer.
    """
    if distributed.world() == 1:
        return training.loss
    device = next(training.model.parameters()).device
    trains_batchnorm = any(layer.training for layer in batchnorms(training.model))
    if device.type == "cuda":
        synchronise_batchnorm(training.model)
    elif trains_batchnorm:
        log.warning("on the CPU, BatchNorm takes its statistics from the images of each process alone, so the result "
                 "differs from that of one process")
    return DistributedDataParallel(ModelAndLoss(training), broadcast_buffers=trains_batchnorm)


def synchronise_batchnorm(module: nn.Module) -> None:
    """Replace the BatchNorm layers in training mode by ones that take their statistics over all processes."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d) and child.training:
            setattr(module, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
        else:
            synchronise_batchnorm(child)


def train_step(training: Training, forward: Callable, batch, step: int) -> dict[str, torch.Tensor]:
    """One optimiser step; its losses, detached. forward: see `parallel`."""
    training.optimizer.zero_grad(set_to_none=True)
    losses = _backward(training, forward, batch, step)
    training.scaler.unscale_(training.optimizer)
    parameters = [p for group in training.optimizer.param_groups for p in group["params"]]
    nn.utils.clip_grad_norm_(parameters, training.clip_norm)
    training.scaler.step(training.optimizer)
    training.scaler.update()
    training.scheduler.step()
    return losses


def _log_scalars(writer, name: str, values: dict[str, float], step: int) -> None:
    for key, value in values.items():
        writer.add_scalar(f"{name}/{key}", value, step)


def without_slash(values: dict[str, float]) -> dict[str, float]:
    """The losses among the logged values."""
    return {name: value for name, value in values.items() if "/" not in name}


def _backward(training: Training, forward: Any, batch, step: int) -> dict[str, torch.Tensor]:
    """Add up the gradients of one step; the means of its losses over all processes, detached."""
    if training.prepare:
        batch = training.prepare(batch, step)
    passes, seen = training.accumulate, []
    for i, part in enumerate(zip(*(tensor.tensor_split(passes) for tensor in batch))):
        parts = training.batch_size / len(part[0])                # of this size in the images of the step
        with nullcontext() if i == passes - 1 or distributed.world() == 1 else forward.no_sync():
            losses = forward(part, step * passes + i)
            # DistributedDataParallel divides the sum of gradients by the number of processes.
            training.scaler.scale(losses["total"] / (parts / distributed.world())).backward()
        seen.append({name: value.detach() / parts for name, value in losses.items()})
    names = list(seen[0])
    means = distributed.total(torch.stack([sum(losses[name] for losses in seen) for name in names]))
    return dict(zip(names, means))


def save_model(path: Path, model: nn.Module, **facts) -> None:
    """The stage's result: {"model": state dict, and `facts` (plain values) that tell how to build it}."""
    if distributed.is_main():
        write_atomically(path, lambda file: torch.save(facts | {"model": model.state_dict()}, file))


def _look(unseen: list[torch.Tensor], names: tuple[str, ...], step: int, path: Path) -> dict[str, float]:
    """Means of the losses since the last look; stops the run when one is not finite."""
    values = torch.stack(unseen).cpu()
    bad = (~values.isfinite()).any(1).nonzero().flatten()
    if len(bad):
        at = step - len(values) + int(bad[0]) + 1
        saved = f"the last good checkpoint is {path}" if path.exists() else "no checkpoint was saved yet"
        raise InputError(f"loss is not finite at step {at}; {saved}. Lower the learning rate, or check the weights "
                         "and images")
    return dict(zip(names, values.double().mean(0).tolist()))


def _save(training: Training, path: Path, step: int, logged: dict[str, float], unseen: list[torch.Tensor]) -> None:
    scheduler = training.scheduler.state_dict()
    scheduler.pop("lr_lambdas", None)                     # functions, which no safe checkpoint holds
    state = {"step": step, "losses": logged, "unseen": unseen,
             "model": training.model.state_dict(), "optimizer": training.optimizer.state_dict(),
             "scheduler": scheduler, "scaler": training.scaler.state_dict(),
             "memory": {key: value.state_dict() for key, value in training.memory.items()}}
    write_atomically(path, lambda file: torch.save(state, file))


def _resume(training: Training, path: Path) -> tuple[int, dict[str, float], list[torch.Tensor]]:
    """Load `path` if it is there; the step to go on from, the losses logged last and those not yet logged."""
    if not path.exists():
        return 0, {}, []
    state = load_file(path)
    try:
        training.model.load_state_dict(state["model"])
        training.optimizer.load_state_dict(state["optimizer"])
        no_functions = {"lr_lambdas": [None] * len(training.optimizer.param_groups)}
        training.scheduler.load_state_dict(state["scheduler"] | no_functions)
        training.scaler.load_state_dict(state["scaler"])
        for key, value in training.memory.items():
            value.load_state_dict(state["memory"][key])
    except (KeyError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: checkpoint of another training ({error}); delete it to start anew") from None
    log.info("continued from %s at step %d", path, state["step"])
    device = next(training.model.parameters()).device
    return state["step"], state["losses"], [values.to(device) for values in state["unseen"]]
