"""What stays in float32 under autocast."""

import torch

from net.precision import in_float32


def test_half_precision_is_left_for_the_call_alone():
    product = in_float32(torch.matmul)
    with torch.autocast("cpu", torch.bfloat16):
        half = torch.ones(2, 2) @ torch.ones(2, 2)
        assert half.dtype == torch.bfloat16
        assert product(half, torch.ones(2, 2)).dtype == torch.float32


def test_shapes_alone_are_counted_without_autocast():
    assert in_float32(torch.matmul)(torch.zeros(2, 3, device="meta"), torch.zeros(3, 5, device="meta")).shape == (2, 5)
