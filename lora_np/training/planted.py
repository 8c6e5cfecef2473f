"""A teacher with a planted rank, and what the first update depends on.

D inputs · M outputs · R rank.  y = x (W + ΔW*)ᵀ with rank(ΔW*) known: the case in which
"which r is enough" has an exact answer.
"""

import math

import numpy as np

from lora_np.lora import init_lora, lora_linear, lora_linear_backward, scaling
from lora_np.nn.module import Parameter
from lora_np.training.optim import SGD, AdamW


def planted_problem(
    D: int, M: int, true_rank: int, noise: float, rows: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(x (rows, D), y (rows, M), W, ΔW*): base W and a student's target.

    >>> x, y, W, d = planted_problem(5, 4, 2, 0.0, 3, np.random.default_rng(0))
    >>> int(np.linalg.matrix_rank(d))
    2
    """
    W = rng.normal(size=(M, D)) / math.sqrt(D)
    delta = rng.normal(size=(M, true_rank)) @ rng.normal(size=(true_rank, D))
    delta /= math.sqrt(D * true_rank)
    x = rng.normal(size=(rows, D))
    return x, x @ (W + delta).T + noise * rng.normal(size=(rows, M)), W, delta


def loss_for_rank(
    r: int, seed: int, D: int = 24, M: int = 16, true_rank: int = 4,
    noise: float = 0.05, steps: int = 300,
) -> float:  # fmt: skip
    """Mean squared error on fresh data after training an adapter of rank r with AdamW.

    The data depend on the seed alone, so ranks are compared on the same problem.

    >>> loss_for_rank(4, 0, steps=30) < loss_for_rank(1, 0, steps=30) * 1.5
    True
    """
    rng = np.random.default_rng(seed)
    x, y, W, delta = planted_problem(D, M, true_rank, noise, 256, rng)
    x_new = rng.normal(size=(512, D))
    y_new = x_new @ (W + delta).T
    A, B = (Parameter(a) for a in init_lora((r, D), (M, r), rng, dtype=np.float64))
    optimizer = AdamW([A, B], lr=0.02, weight_decay=0.0)
    s = scaling(r, r)  # s = 1: the same for every rank
    for step in range(steps):
        out, cache = lora_linear(x, W, None, A.data, B.data, s)
        _, _, A.grad, B.grad = lora_linear_backward(2 * (out - y) / y.size, cache)
        optimizer.scale_lr(1.0 - step / steps)
        optimizer.step()
    out, _ = lora_linear(x_new, W, None, A.data, B.data, s)
    return float(((out - y_new) ** 2).mean())


def first_update(
    r: int, use_rslora: bool, optimizer: str, seed: int, D: int = 512
) -> dict[str, float]:
    """How large the first step is, for s = α/r or α/√r with α = 16, by three measures.

    At step 0 only B moves. "loss": the first-order fall of the loss, -⟨dW, ΔW⟩.
    "output": ‖ΔW xᵀ‖ on the batch. "weight": ‖ΔW‖. With SGD B = -lr s dW Aᵀ, so it
    falls by lr s² ‖dW Aᵀ‖² ~ s² r; with Adam every entry of B moves by lr whatever its
    size, by lr s Σ|dW Aᵀ| ~ s r. So SGD wants s ~ 1/√r for a step that does not depend
    on r, and Adam s ~ 1/r.
    Raises ValueError for another optimizer.

    >>> sorted(first_update(4, False, "adam", 0))
    ['loss', 'output', 'weight']
    """
    if optimizer not in ("sgd", "adam"):
        raise ValueError(f"optimizer must be 'sgd' or 'adam', got {optimizer!r}")
    rng = np.random.default_rng([seed, D])
    x, G = rng.normal(size=(32, D)), rng.normal(size=(32, D)) / 32
    A, B0 = init_lora(
        (r, D), (D, r), np.random.default_rng([seed, r]), dtype=np.float64
    )
    s = scaling(16, r, use_rslora)
    _, cache = lora_linear(x, np.zeros((D, D)), None, A, B0, s)
    B = Parameter(B0)
    B.grad = lora_linear_backward(G, cache)[3]
    step = SGD([B], lr=0.01) if optimizer == "sgd" else AdamW([B], 0.01, weight_decay=0)
    step.step()
    delta = s * B.data @ A
    fall = -float(((G.T @ x) * delta).sum())
    return {"loss": fall, "output": float(np.linalg.norm(x @ delta.T)),
            "weight": float(np.linalg.norm(delta))}  # fmt: skip
