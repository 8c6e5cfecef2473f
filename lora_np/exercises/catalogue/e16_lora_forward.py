"""The forward of LoRA."""

import numpy as np

from lora_np import lora as L
from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes


def lora_forward(x, W, b, A, B, lora_alpha, r):
    """y = x Wᵀ + b + (lora_alpha / r) (x Aᵀ) Bᵀ.

    x: (N, D)   W: (M, D) frozen   b: (M,)   A: (r, D)   B: (M, r)
    lora_alpha: a number   r: the rank   Returns y: (N, M).
    """
    return x @ W.T + b + (lora_alpha / r) * (x @ A.T @ B.T)


def problem(d):
    N, D, M, r = d.sizes(4)
    if d.rng is None:
        r = d.choice([1, 2, 4])  # so that lora_alpha / r and A / r are exact
    return {
        "x": d.array(N, D),
        "W": d.array(M, D),
        "b": d.array(M),
        "A": d.array(r, D),
        "B": d.array(M, r),
        "lora_alpha": d.scale() * r,
        "r": r,
    }


def right(c, s=None):
    s = c.lora_alpha / c.r if s is None else s
    return c.x @ c.W.T + c.b + s * (c.x @ c.A.T @ c.B.T)


def loops(c):
    y = np.empty((len(c.x), len(c.W)), c.x.dtype)
    for n, m in np.ndindex(y.shape):
        low = sum(c.B[m, j] * (c.A[j] @ c.x[n]) for j in range(c.r))
        y[n, m] = c.W[m] @ c.x[n] + c.b[m] + c.lora_alpha / c.r * low
    return y


EXERCISE = Exercise(
    id="e16",
    title="the forward of LoRA",
    kind="implement",
    minutes=5,
    difficulty=1,
    needs=("e05",),
    ask="""
    A linear layer with a low-rank path beside it: y = x Wᵀ + b + (lora_alpha / r)
    (x Aᵀ) Bᵀ. Mind the order of the products: x Aᵀ has r columns, B A has as many
    numbers as W.
    """,
    functions=(lora_forward,),
    returns=("y",),
    want=lambda c: L.lora_linear(
        c["x"], c["W"], c["b"], c["A"], c["B"], c["lora_alpha"] / c["r"]
    )[0],
    laws=(
        Law("{arrays} is not x Wᵀ + b + (lora_alpha / r) (x Aᵀ) Bᵀ.", problem, True),
    ),
    mistakes=mistakes(
        lora_forward,
        ("y",),
        mistake(
            "no_scale",
            "the low-rank path without lora_alpha / r; unnoticed where lora_alpha = r",
            lambda c: right(c, 1.0),
        ),
        mistake(
            "alpha_only",
            "the low-rank path times lora_alpha, not divided by r",
            lambda c: right(c, c.lora_alpha),
        ),
        mistake(
            "alpha_over_root_r",
            "lora_alpha / sqrt(r), the scale of rsLoRA",
            lambda c: right(c, c.lora_alpha / float(np.sqrt(c.r))),
        ),
        mistake(
            "inverted",
            "r / lora_alpha: the fraction is turned round",
            lambda c: right(c, c.r / c.lora_alpha),
        ),
        mistake(
            "scale_squared",
            "the scale twice, once for A and once for B",
            lambda c: right(c, (c.lora_alpha / c.r) ** 2),
        ),
        mistake(
            "all_scaled",
            "the scale on the whole output, the base included",
            lambda c: c.lora_alpha / c.r * (c.x @ c.W.T + c.b + c.x @ c.A.T @ c.B.T),
        ),
        mistake(
            "bias_lost",
            "an output without the base layer's bias",
            lambda c: right(c) - c.b,
        ),
        mistake(
            "bias_scaled",
            "a bias inside the scaled part",
            lambda c: c.x @ c.W.T + c.lora_alpha / c.r * (c.x @ c.A.T @ c.B.T + c.b),
        ),
        mistake(
            "update_only",
            "the low-rank path alone: W belongs to the output",
            lambda c: c.lora_alpha / c.r * (c.x @ c.A.T @ c.B.T) + c.b,
        ),
        mistake(
            "base_only",
            "the base alone: the adapter has no effect",
            lambda c: c.x @ c.W.T + c.b,
        ),
        mistake(
            "subtracted",
            "the update subtracted",
            lambda c: right(c, -c.lora_alpha / c.r),
        ),
    ),
    others=(
        loops,
        lambda c: c.x @ c.W.T + c.lora_alpha * (c.x @ (c.A / c.r).T @ c.B.T) + c.b,
        lambda c: c.x @ (c.W + c.lora_alpha / c.r * (c.B @ c.A)).T + c.b,
        lambda c: (
            np.einsum("nd,md->nm", c.x, c.W)
            + c.b
            + np.einsum("nd,rd,mr->nm", c.x, c.A, c.B) * (c.lora_alpha / c.r)
        ),
    ),
    hints=(
        "Two paths from x to y, added: the frozen one and the narrow one.",
        "The narrow path is x @ A.T, then @ B.T, then the scale lora_alpha / r.",
        "    return x @ W.T + b + (____) * (x @ A.T @ B.T)",
    ),
    why="""
    (x Aᵀ) Bᵀ costs N r (D + M) multiply-adds, x (B A)ᵀ costs M D (r + N) and a
    matrix of W's size. The factor lora_alpha / r keeps the size of the update about
    the same when r is changed, so that the learning rate need not be searched
    again.
    """,
    follow_ups=(
        (
            "Why does a test with lora_alpha = r prove little?",
            "The scale is 1 then: leaving it out, squaring or inverting it pass.",
        ),
        (
            "Where does PEFT put the dropout?",
            "On x before A, on the low-rank path only.",
        ),
    ),
    read="lora_np/lora/linear.py; chapter 01",
)
