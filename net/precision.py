"""What stays in float32 when networks run in half precision, and what keeps divisions finite."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps

import torch

EPS = 1e-5          # added to divisors and to arguments of logarithms: the value of the release and of IRN
HALF = (torch.bfloat16, torch.float16)


def in_float32(function: Callable) -> Callable:
    """`function` of tensors, computed in float32 inside torch.autocast too; half-precision arguments are converted."""
    @wraps(function)
    def in_full_precision(first: torch.Tensor, *args, **kwargs):
        device = first.device.type                                   # shapes alone ("meta") know no autocast
        available = torch.amp.is_autocast_available(device)
        with torch.autocast(device, enabled=False) if available else nullcontext():
            return function(*(x.float() if torch.is_tensor(x) and x.dtype in HALF else x for x in (first, *args)),
                            **kwargs)
    return in_full_precision
