"""Check of the optimiser: steps on given gradients."""

import numpy as np
import torch
import torch.nn as nn

from frame import engine
from parity.report import Report
from parity.vectors import Vectors

# Parameters are float64 here: float32 is too coarse for what momentum and weight decay do to one step.
DELTA_ABSOLUTE, DELTA_RELATIVE, RATE_RELATIVE = 1e-10, 1e-6, 1e-9


def check_optimizer(vectors: Vectors, report: Report) -> None:
    """Steps of the training loop whose loss has the given gradients."""
    tensors = nn.ParameterList(vectors.tensor(f"param{i}") for i in range(len(vectors["group"])))
    gradients = [vectors.tensor(f"grad{i}") for i in range(len(tensors))]
    groups = [{"params": [p for p, group in zip(tensors, vectors["group"]) if group == i], "lr": float(lr)}
              for i, lr in enumerate(vectors["base_lr"])]
    momentum, decay, power = (vectors.number(name) for name in ("momentum", "weight_decay", "power"))
    max_step = vectors.number("max_step")
    optimizer, scheduler = engine.poly_sgd(groups, max_step, momentum, decay, power)

    def loss(batch, step):
        return {"total": sum((p * gradient[step]).sum() for p, gradient in zip(tensors, gradients))}

    training = engine.Training(tensors, optimizer, scheduler, loss, None, max_step, batch_size=1)
    rates, changes = [], []
    for step in range(len(vectors["lr"])):
        before = [p.detach().clone() for p in tensors]
        rates.append(scheduler.get_last_lr())
        engine.train_step(training, loss, [torch.zeros(1)], step)
        changes.append([(p.detach() - old).numpy() for p, old in zip(tensors, before)])
    report.close("lr", rates, vectors["lr"], 0, RATE_RELATIVE)
    for i, p in enumerate(tensors):
        delta = np.stack([change[i] for change in changes])
        report.close(f"delta{i}", delta, vectors[f"delta{i}"], DELTA_ABSOLUTE, DELTA_RELATIVE)
        report.close(f"final{i}", p, vectors[f"final{i}"], 0, RATE_RELATIVE)
