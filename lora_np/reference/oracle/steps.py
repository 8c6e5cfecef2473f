"""Training a few steps by the textbook, on half the squared error."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lora_np.reference.oracle.dense import Array, Result


def steps(
    layer: Callable[..., Result], given: Mapping[str, Any], target: Array, count: int,
    lr: float, optimizer: str = "sgd", trained: Sequence[str] = ("A", "B"),
    lr_ratio: float = 1.0, betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8, weight_decay: float = 0.0,
) -> dict[str, Array]:  # fmt: skip
    """The trained arrays after `count` full-batch steps on L = ½ Σ (y - target)²

    layer: a function of this package with one output; given: its inputs by name.
    optimizer: "sgd", p ← p - lr dp; or "adamw", Loshchilov & Hutter 2019 (1711.05101),
    algorithm 2 with the schedule inside lr, as PyTorch. lr_ratio: LoRA+'s (2402.12354),
    lr of every B over that of every A. Raises ValueError for another optimizer.

    >>> one = np.ones((1, 1))
    >>> given = {"x": one, "W": one, "A": one, "B": 0 * one, "s": 1.0}
    >>> from lora_np.reference.oracle import linear
    >>> steps(linear, given, 2 * one, 1, lr=0.5)["B"].item()
    0.5
    """
    if optimizer not in ("sgd", "adamw"):
        raise ValueError(f"optimizer must be 'sgd' or 'adamw', got {optimizer!r}")
    now = {n: np.array(given[n], np.float64) for n in trained}
    first, second = ({n: np.zeros_like(a) for n, a in now.items()} for _ in range(2))
    for t in range(1, count + 1):
        y = layer(**{**given, **now})["y"]
        grads = layer(**{**given, **now}, dy=y - target)
        for n in trained:
            g, rate = grads["d" + n], lr * (lr_ratio if n.startswith("B") else 1.0)
            if optimizer == "adamw":
                now[n] = now[n] * (1 - rate * weight_decay)
                first[n] = betas[0] * first[n] + (1 - betas[0]) * g
                second[n] = betas[1] * second[n] + (1 - betas[1]) * g * g
                mean = first[n] / (1 - betas[0] ** t)
                g = mean / (np.sqrt(second[n] / (1 - betas[1] ** t)) + eps)
            now[n] = now[n] - rate * g
    return now
