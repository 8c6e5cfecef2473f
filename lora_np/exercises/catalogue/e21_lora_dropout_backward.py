"""The backward of LoRA with dropout."""

import numpy as np

from lora_np import lora as L
from lora_np.exercises.exercise import Exercise, Law, derivative, mistake, mistakes


def lora_dropout_backward(dy, x, W, A, B, s, mask, p):
    """The backward of y = x Wᵀ + s (x_d Aᵀ) Bᵀ with x_d = x · mask / (1 - p).

    dy: (N, M) = dL/dy   x: (N, D)   W: (M, D) frozen   A: (r, D)   B: (M, r)
    s: a number   mask: (N, D), True where an entry was kept   p: the rate of dropping
    Returns (dx, dA, dB).
    """
    kept = mask.astype(x.dtype) / (1 - p)
    v = s * (dy @ B)
    dx = dy @ W + (v @ A) * kept
    return dx, v.T @ (x * kept), s * dy.T @ ((x * kept) @ A.T)


def problem(d):
    N, D, M, r = d.sizes(4)
    return {
        "dy": d.array(N, M),
        "x": d.array(N, D),
        "W": d.array(M, D),
        "A": d.array(r, D),
        "B": d.array(M, r),
        "s": d.scale(),
        "mask": d.mask(N, D),
        "p": d.choice([0.5, 0.75]),
    }


def kept(c):
    return c.mask.astype(c.x.dtype) / (1 - c.p)


def low(c):
    """s dy B"""
    return c.s * (c.dy @ c.B)


def with_factor(c, k):
    """The backward for another factor in place of mask / (1 - p)."""
    return (
        c.dy @ c.W + (low(c) @ c.A) * k,
        low(c).T @ (c.x * k),
        (c.s * c.dy.T @ ((c.x * k) @ c.A.T)),
    )


def with_where(c):
    xd = np.where(c.mask, c.x / (1 - c.p), 0)
    dxd = np.einsum("nm,mr,rd->nd", c.dy, c.B, c.A) * c.s
    dx = c.dy @ c.W + np.where(c.mask, dxd / (1 - c.p), 0)
    return dx, c.s * (c.B.T @ (c.dy.T @ xd)), c.s * (c.dy.T @ xd) @ c.A.T


def row_by_row(c):
    dx, dA, dB = np.zeros_like(c.x), np.zeros_like(c.A), np.zeros_like(c.B)
    for n, (g, k) in enumerate(zip(c.dy, kept(c), strict=True)):
        v, xd = c.s * (g @ c.B), c.x[n] * k
        dx[n] = g @ c.W + (v @ c.A) * k
        dA += np.outer(v, xd)
        dB += c.s * np.outer(g, c.A @ xd)
    return dx, dA, dB


EXERCISE = Exercise(
    id="e21",
    title="dropout on the low-rank path",
    kind="derive",
    minutes=12,
    difficulty=2,
    needs=("e19",),
    ask="""
    lora_dropout drops entries of x on the way to A, not on the way to W, and
    divides what is left by 1 - p. Derive dx, dA and dB for a given mask.
    """,
    functions=(lora_dropout_backward,),
    returns=("dx", "dA", "dB"),
    want=derivative(
        lambda c: L.lora_linear(c.x, c.W, None, c.A, c.B, c.s, c.mask, c.p)[0],
        {"dx": "x", "dA": "A", "dB": "B"},
        method="exact",
    ),
    laws=(
        Law("{arrays} is not the derivative of the loss sum(dy * y).", problem, True),
    ),
    mistakes=mistakes(
        lora_dropout_backward,
        ("dx", "dA", "dB"),
        mistake(
            "dx_without_mask",
            "dx with an undropped low-rank path: what did not get "
            "in sends nothing back",
            dx=lambda c: c.dy @ c.W + low(c) @ c.A,
        ),
        mistake(
            "dx_not_rescaled",
            "dx with the mask but without 1/(1 - p)",
            dx=lambda c: c.dy @ c.W + (low(c) @ c.A) * c.mask,
        ),
        mistake(
            "dx_base_masked",
            "dx with the mask on the path through W as well",
            dx=lambda c: (c.dy @ c.W + low(c) @ c.A) * kept(c),
        ),
        mistake(
            "dA_without_mask",
            "dA from x before the dropout",
            dA=lambda c: low(c).T @ c.x,
        ),
        mistake(
            "dA_not_rescaled",
            "dA from x · mask without 1/(1 - p)",
            dA=lambda c: low(c).T @ (c.x * c.mask),
        ),
        mistake(
            "dB_without_mask",
            "dB from x before the dropout",
            dB=lambda c: c.s * c.dy.T @ (c.x @ c.A.T),
        ),
        mistake(
            "dB_not_rescaled",
            "dB from x · mask without 1/(1 - p)",
            dB=lambda c: c.s * c.dy.T @ ((c.x * c.mask) @ c.A.T),
        ),
        mistake(
            "evaluation_mode",
            "the gradients without dropout: mask and p are not used",
            lambda c: with_factor(c, np.ones_like(c.x)),
        ),
        mistake(
            "not_rescaled",
            "all gradients with the mask but without 1/(1 - p)",
            lambda c: with_factor(c, c.mask.astype(c.x.dtype)),
        ),
        mistake(
            "divided_by_p",
            "a division by p: what is kept is 1 - p",
            lambda c: with_factor(c, c.mask.astype(c.x.dtype) / c.p + 0 * c.x),
        ),
        mistake(
            "mask_inverted",
            "the dropped entries in place of the kept ones",
            lambda c: with_factor(c, (~c.mask).astype(c.x.dtype) / (1 - c.p)),
        ),
        mistake(
            "rescaled_twice",
            "1/(1 - p) twice in dx",
            dx=lambda c: c.dy @ c.W + (low(c) @ c.A) * kept(c) / (1 - c.p),
        ),
    ),
    others=(with_where, row_by_row, lambda c: with_factor(c, kept(c))),
    hints=(
        "x_d is x times a constant array. What is the backward of a product with a "
        "constant?",
        "dA and dB are those of the exercise before with x_d for x. In dx only the "
        "low-rank part is multiplied with mask / (1 - p).",
        "    dx = dy @ W + (v @ A) * ____",
    ),
    why="""
    The forward sees x twice: whole in x Wᵀ, and as x_d in the low-rank path. dA and
    dB know x_d alone. What comes back to x_d passes the same factor mask / (1 - p)
    on its way to x. The mean of x_d over masks is x, which is why merging needs no
    correction.
    """,
    follow_ups=(
        (
            "Must merged weights be multiplied by 1 - p?",
            "No: the division in training already makes the mean of x_d equal to x.",
        ),
        (
            "With gradient checkpointing the forward runs twice. What about the mask?",
            "It must be the same one: keep it, or keep the state of the generator.",
        ),
    ),
    read="lora_np/lora/linear.py; chapter 05",
)
