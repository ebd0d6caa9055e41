"""The training loop's parts."""

import numpy as np
import pytest
import torch

from frame import engine


def test_learning_rate_falls_every_ten_steps():
    optimizer, scheduler = engine.poly_sgd([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1.0}], 40, 0.9, 0.0,
                                           0.9, every=10)
    seen = []
    for _ in range(40):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert seen == pytest.approx(np.repeat([(1 - k / 4) ** 0.9 for k in range(4)], 10))


def test_accumulated_gradients_are_those_of_the_whole_step():
    def gradient(accumulate):
        weight = torch.nn.Parameter(torch.ones(3))
        training = engine.Training(None, None, None, lambda batch, _: {"total": (batch[0] @ weight).square().mean()},
                                   None, total_steps=1, batch_size=4, accumulate=accumulate)
        losses = engine._backward(training, training.loss, [torch.arange(12.0).view(4, 3)], 0)
        return weight.grad, losses["total"]
    torch.testing.assert_close(gradient(2), gradient(1))
