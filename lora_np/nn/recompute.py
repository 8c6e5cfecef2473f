"""Gradient checkpointing: keep a block's input, recompute its inside in backward."""

from collections.abc import Callable
from typing import Any

import numpy as np

from lora_np.graph import Node, enable_grad, grad_enabled, no_grad, run_backward
from lora_np.tape import Tensor


def recompute(
    block: Callable[..., Tensor], x: Tensor, rng: np.random.Generator | None = None
) -> Tensor:
    """block(x, rng), storing x alone; backward runs the block once more.

    The state of `rng` is saved before and set again for the second run, so dropout
    draws the same masks. Parameters used inside receive their gradients as usual.
    Source: Chen et al. 2016 (1604.06174).

    >>> x = Tensor(np.array([3.0]), requires_grad=True)
    >>> recompute(lambda x, rng: x * x, x).backward(); x.grad
    array([6.])
    """
    if not grad_enabled():
        return block(x, rng)
    before = rng.bit_generator.state if rng is not None else None
    with no_grad():
        out = Tensor(block(x, rng).data)
    parents = (x.node,) if x.node is not None else ()
    data = x.data

    def backward(g: Any) -> tuple:
        inside = Tensor(data, requires_grad=bool(parents))
        with enable_grad():
            y = _replay(block, inside, rng, before)
        if y.node is None:
            return (None,) * len(parents)
        run_backward(y.node, g)
        return (inside.grad,) * len(parents)

    out.node = Node("recompute", out.shape, parents, backward)
    return out


def _replay(block: Callable, x: Tensor, rng: Any, state: Any) -> Tensor:
    """Run the block with the generator set back, then restore the generator."""
    if rng is None:
        return block(x, rng)
    now = rng.bit_generator.state
    rng.bit_generator.state = state
    try:
        return block(x, rng)
    finally:
        rng.bit_generator.state = now
