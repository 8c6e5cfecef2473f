"""dA, dB and dx by hand: the exercise that all others lead to."""

import numpy as np

from lora_np import lora as L
from lora_np.exercises.exercise import Exercise, Law, derivative, mistake, mistakes


def lora_backward(dy, x, W, A, B, s):
    """The backward of y = x Wᵀ + s (x Aᵀ) Bᵀ with W frozen.

    dy: (N, M) = dL/dy   x: (N, D)   W: (M, D)   A: (r, D)   B: (M, r)   s: a number
    Returns (dx, dA, dB), each of the shape of what it is the gradient of.
    """
    v = s * (dy @ B)  # (N, r): the gradient that reaches x Aᵀ
    dA = v.T @ x
    dB = s * (dy.T @ (x @ A.T))
    dx = dy @ W + v @ A
    return dx, dA, dB


def problem(d):
    N, D, M, r = d.sizes(4)
    return {
        "dy": d.array(N, M),
        "x": d.array(N, D),
        "W": d.array(M, D),
        "A": d.array(r, D),
        "B": d.array(M, r),
        "s": d.scale(),
    }


def one_by_one(c):
    """The sums of the indices, written as loops."""
    dx, dA, dB = np.zeros_like(c.x), np.zeros_like(c.A), np.zeros_like(c.B)
    for n, d in np.ndindex(c.x.shape):
        for m in range(c.W.shape[0]):
            dx[n, d] += c.dy[n, m] * c.W[m, d]
            for r in range(c.A.shape[0]):
                dx[n, d] += c.s * c.dy[n, m] * c.B[m, r] * c.A[r, d]
                dA[r, d] += c.s * c.dy[n, m] * c.B[m, r] * c.x[n, d]
                dB[m, r] += c.s * c.dy[n, m] * c.A[r, d] * c.x[n, d]
    return dx, dA, dB


def through_dense(c):
    """By way of the gradient of the merged weight."""
    dW = c.dy.T @ c.x
    merged = c.W + c.s * (c.B @ c.A)
    return c.dy @ merged, c.s * (c.B.T @ dW), c.s * (dW @ c.A.T)


def with_einsum(c):
    return (
        np.einsum("nm,md->nd", c.dy, c.W)
        + c.s * np.einsum("nm,mr,rd->nd", c.dy, c.B, c.A),
        c.s * np.einsum("nm,mr,nd->rd", c.dy, c.B, c.x),
        c.s * np.einsum("nm,nd,rd->mr", c.dy, c.x, c.A),
    )


EXERCISE = Exercise(
    id="e19",
    title="dA, dB and dx by hand",
    kind="derive",
    minutes=15,
    difficulty=2,
    needs=("e05", "e16"),
    ask="""
    The layer computes y = x Wᵀ + s (x Aᵀ) Bᵀ. W is frozen; A and B are trained. A loss
    sends back dy = dL/dy. Derive the gradients of A, B and x, and compute them without
    forming the M x D gradient of W, which LoRA saves (unchecked).
    """,
    functions=(lora_backward,),
    returns=("dx", "dA", "dB"),
    want=derivative(
        lambda c: L.lora_linear(c.x, c.W, None, c.A, c.B, c.s)[0],
        {"dx": "x", "dA": "A", "dB": "B"},
        method="exact",
    ),
    laws=(
        Law(
            "{arrays} is not the derivative of the loss sum(dy * y).",
            problem,
            exact=True,
        ),
    ),
    mistakes=mistakes(
        lora_backward,
        ("dx", "dA", "dB"),
        mistake(
            "dA_not_scaled",
            "dA = (dy B)ᵀ x: the factor s is missing",
            dA=lambda c: (c.dy @ c.B).T @ c.x,
        ),
        mistake(
            "dB_not_scaled",
            "dB = dyᵀ (x Aᵀ): the factor s is missing",
            dB=lambda c: c.dy.T @ (c.x @ c.A.T),
        ),
        mistake(
            "dx_not_scaled",
            "dx = dy W + (dy B) A: the factor s is missing in the low-rank path",
            dx=lambda c: c.dy @ c.W + c.dy @ c.B @ c.A,
        ),
        mistake(
            "nothing_scaled",
            "all three gradients without the factor s",
            lambda c: lora_backward(c.dy, c.x, c.W, c.A, c.B, 1.0),
        ),
        mistake(
            "scale_squared_in_dA",
            "dA with s twice: once in s (dy B), once more after",
            dA=lambda c: c.s**2 * (c.dy @ c.B).T @ c.x,
        ),
        mistake(
            "dA_transposed",
            "dA = s xᵀ (dy B), which is (D, r): the transpose",
            dA=lambda c: c.s * c.x.T @ (c.dy @ c.B),
        ),
        mistake(
            "dB_transposed",
            "dB = s (x Aᵀ)ᵀ dy, which is (r, M): the transpose",
            dB=lambda c: c.s * (c.x @ c.A.T).T @ c.dy,
        ),
        mistake(
            "dx_base_only",
            "dx = dy W, as if the adapter did not see x",
            dx=lambda c: c.dy @ c.W,
        ),
        mistake(
            "dx_adapter_only",
            "dx = s (dy B) A: frozen does not mean that no gradient passes through W",
            dx=lambda c: c.s * c.dy @ c.B @ c.A,
        ),
        mistake(
            "dA_mean",
            "the mean over the rows in dA; a gradient is their sum (the "
            "mean, if any, is in dy already)",
            dA=lambda c: c.s * (c.dy @ c.B).T @ c.x / len(c.x),
        ),
        mistake(
            "dB_mean",
            "the mean over the rows in dB; a gradient is their sum (the "
            "mean, if any, is in dy already)",
            dB=lambda c: c.s * c.dy.T @ (c.x @ c.A.T) / len(c.x),
        ),
        mistake(
            "both_mean",
            "means over the rows in dA and dB; gradients are sums (the "
            "mean, if any, is in dy already)",
            dA=lambda c: c.s * (c.dy @ c.B).T @ c.x / len(c.x),
            dB=lambda c: c.s * c.dy.T @ (c.x @ c.A.T) / len(c.x),
        ),
        mistake(
            "dA_zero",
            "dA = 0, which holds at the first step only, where B = 0",
            dA=lambda c: 0 * c.A,
        ),
        mistake(
            "no_cotangent",
            "gradients of sum(y): dy was taken as all ones",
            lambda c: lora_backward(1 + 0 * c.dy, c.x, c.W, c.A, c.B, c.s),
        ),
        mistake(
            "dW_returned",
            "dB = dyᵀ x, the gradient of the frozen W",
            dB=lambda c: c.dy.T @ c.x,
        ),
    ),
    others=(one_by_one, through_dense, with_einsum),
    hints=(
        "Two linear maps in a row: u = x Aᵀ, then s u Bᵀ. For y = u Vᵀ you know that "
        "dV = dyᵀ u and du = dy V.",
        "dB needs u = x Aᵀ; dA and dx both need v = s (dy B), the gradient that "
        "reaches u.",
        "    dA = ____.T @ x",
    ),
    why="""
    Let u = x Aᵀ. Then y = x Wᵀ + s u Bᵀ, so dB = s dyᵀ u and du = s dy B =: v. As u
    is linear in A and x: dA = vᵀ x, and v A joins dy W in dx. The shapes leave no
    other order once all sizes differ. Everything is (N, r) or smaller than W; the
    product dyᵀ x of W's size is never formed, and from it both would follow: dA = s
    Bᵀ dW, dB = s dW Aᵀ.
    """,
    follow_ups=(
        (
            "B = 0 at the start. Which gradients are 0 at the first step?",
            "dA only: it goes through B. dB = s dyᵀ (x Aᵀ) is not 0, so B moves first.",
        ),
        (
            "How many multiply-adds does dA cost, and how many would dW?",
            "N M r for dy B and N r D for vᵀ x: N r (M + D), against N M D for dW.",
        ),
    ),
    read="lora_np/lora/linear.py; chapter 01",
)
