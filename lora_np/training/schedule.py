"""Between gradient and step: clipping by the common norm, learning-rate schedule."""

import math
from collections.abc import Iterable
from typing import Any

from lora_np.backend import get_xp, to_host
from lora_np.nn.module import Parameter


def _square_sum(g: Any) -> Any:
    if g.dtype.itemsize < 4:  # squares of float16 end at 65504
        g = g.astype(get_xp(g).float32)
    return (g * g).sum()


def clip_grad_norm(parameters: Iterable[Parameter], max_norm: float) -> float:
    """Scale all gradients together so that their common 2-norm is at most max_norm.

    Returns the norm before. Gradients that are not finite are left alone and the norm
    comes back as it is.  Raises ValueError for max_norm ≤ 0.

    >>> import numpy as np
    >>> p = Parameter(np.zeros(2)); p.grad = np.array([3.0, 4.0])
    >>> clip_grad_norm([p], 1.0), p.grad
    (5.0, array([0.6, 0.8]))
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm must be more than 0, got {max_norm}")
    having = [p for p in parameters if p.grad is not None]
    squares = [_square_sum(p.grad) for p in having]
    norm = math.sqrt(float(to_host(sum(squares)))) if having else 0.0
    if math.isfinite(norm) and norm > max_norm:
        for p in having:
            assert p.grad is not None
            p.grad = (max_norm / norm) * p.grad  # not in place: arrays may be shared
    return norm


def warmup_cosine(step: int, total: int, warmup: int = 0, floor: float = 0.0) -> float:
    """The factor for step 0 … total-1: up linearly over `warmup`, then down a cosine.

    Ends at `floor` on the last step.  Raises ValueError for lengths that do not fit.

    >>> [round(warmup_cosine(i, 5, warmup=2), 2) for i in range(5)]
    [0.5, 1.0, 1.0, 0.5, 0.0]
    """
    if total < 1 or not 0 <= warmup <= total:
        raise ValueError(f"warmup {warmup} must lie in 0 ... total {total}, total ≥ 1")
    if step < warmup:
        return (step + 1) / warmup
    part = (step - warmup) / max(1, total - 1 - warmup)
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, part)))
