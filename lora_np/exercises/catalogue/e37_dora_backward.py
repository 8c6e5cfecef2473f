"""The backward of DoRA, through the norm."""

import numpy as np

from lora_np import lora as L
from lora_np.exercises.exercise import Exercise, Law, derivative, mistake, mistakes


def dora_backward(dy, x, W, A, B, m, s):
    """The backward of y = x (diag(m / n) V)ᵀ, V = W + s B A, n_i = length of V's row i.

    dy: (N, M) = dL/dy   x: (N, D)   W: (M, D) frozen   A: (r, D)   B: (M, r)   m: (M,)
    s: a number   Returns (dA, dB, dm), through n as well: the full derivative.
    """
    V = W + s * (B @ A)
    n = np.sqrt((V**2).sum(axis=1, keepdims=True))
    unit = V / n
    g = dy.T @ x  # the gradient of diag(m / n) V
    dm = (g * unit).sum(axis=1)
    dV = m[:, None] / n * (g - dm[:, None] * unit)
    return s * (B.T @ dV), s * (dV @ A.T), dm


def problem(d):
    N, D, M, r = d.sizes(4)
    W = d.array(M, D) + 5.0 * np.eye(M, D) + 8.0 * (np.arange(D) == 0)
    if d.rng is None:
        W = W + 20.0 * (np.arange(D) == 0)  # no row of V is 0
    return {
        "dy": d.array(N, M),
        "x": d.array(N, D),
        "W": W,
        "A": d.array(r, D),
        "B": d.array(M, r),
        "m": d.array(M),
        "s": d.choice([0.5, 2.0]),
    }


def parts(c):
    """(V / n, n, g)"""
    V = c.W + c.s * (c.B @ c.A)
    n = np.sqrt((V**2).sum(1, keepdims=True))
    return V / n, n, c.dy.T @ c.x


def factors(c, dV):
    return c.s * (c.B.T @ dV), c.s * (dV @ c.A.T)


def full(c):
    unit, n, g = parts(c)
    return c.m[:, None] / n * (g - (g * unit).sum(1, keepdims=True) * unit)


def dm(c):
    unit, _, g = parts(c)
    return (g * unit).sum(1)


def by_projector(c):
    unit, n, g = parts(c)
    eye = np.eye(c.W.shape[1], dtype=c.W.dtype)
    dV = np.stack(
        [
            m / k * (eye - np.outer(u, u)) @ h
            for m, k, u, h in zip(c.m, n[:, 0], unit, g, strict=True)
        ]
    )
    return *factors(c, dV), np.einsum("md,md->m", g, unit)


def by_product_rule(c):
    """d(V / n) = dV / n - V dn / n², with dn_i = v_i · dV_i / n_i."""
    V = c.W + c.s * (c.B @ c.A)
    n = np.sqrt((V * V).sum(1, keepdims=True))
    dU = c.m[:, None] * (c.dy.T @ c.x)
    dn = -(dU * V).sum(1, keepdims=True) / (n * n)
    return *factors(c, dU / n + dn * V / n), (c.dy.T @ c.x * V / n).sum(1)


def by_outputs(c):
    """dm from the output: y_i / m_i is what m_i multiplies."""
    V = c.W + c.s * (c.B @ c.A)
    n = np.sqrt((V * V).sum(1))
    unscaled = c.x @ V.T / n
    found = np.einsum("nm,nm->m", c.dy, unscaled)
    return *factors(c, full(c)), found


EXERCISE = Exercise(
    id="e37",
    title="the backward of DoRA",
    kind="derive",
    minutes=20,
    difficulty=3,
    needs=("e12", "e36"),
    ask="""
    V moves its own length, so the gradient passes through n too. Derive dA, dB and
    dm of the full function. (PEFT and the paper's section 4.3 treat n as a constant
    to save memory; that is not the derivative of this forward.)
    """,
    functions=(dora_backward,),
    returns=("dA", "dB", "dm"),
    want=derivative(
        lambda c: L.dora_linear(c.x, c.W, None, c.A, c.B, c.m, c.s)[0],
        {"dA": "A", "dB": "B", "dm": "m"},
    ),
    laws=(Law("{arrays} is not the derivative of the loss sum(dy * y).", problem),),
    mistakes=mistakes(
        dora_backward,
        ("dA", "dB", "dm"),
        mistake(
            "norm_constant",
            "dA and dB with n as a constant, as PEFT does: the part "
            "along V's rows must leave",
            lambda c: (*factors(c, c.m[:, None] / parts(c)[1] * parts(c)[2]), dm(c)),
        ),
        mistake(
            "no_magnitude",
            "dA and dB without the factor m",
            lambda c: (*factors(c, full(c) / c.m[:, None]), dm(c)),
        ),
        mistake(
            "no_length",
            "dA and dB without the division by n",
            lambda c: (*factors(c, full(c) * parts(c)[1]), dm(c)),
        ),
        mistake(
            "projection_added",
            "g + (g·v) v: the part along the row is added, not subtracted",
            lambda c: (
                *factors(c, 2 * c.m[:, None] / parts(c)[1] * parts(c)[2] - full(c)),
                dm(c),
            ),
        ),
        mistake(
            "dm_from_V",
            "dm = Σ g V with rows that were not divided by their length",
            dm=lambda c: dm(c) * parts(c)[1][:, 0],
        ),
        mistake(
            "dm_with_m",
            "dm multiplied by m, which it is the derivative by",
            dm=lambda c: dm(c) * c.m,
        ),
        mistake(
            "dA_not_scaled", "dA without the factor s", dA=lambda c: c.B.T @ full(c)
        ),
        mistake(
            "dB_not_scaled", "dB without the factor s", dB=lambda c: full(c) @ c.A.T
        ),
        mistake(
            "plain_lora",
            "the gradients of LoRA without DoRA",
            lambda c: (*factors(c, parts(c)[2]), dm(c)),
        ),
        mistake(
            "dm_mean",
            "the mean over the inputs in dm",
            dm=lambda c: dm(c) / c.W.shape[1],
        ),
    ),
    others=(by_projector, by_product_rule, by_outputs),
    hints=(
        "First g = dL/d(diag(m/n) V) = dyᵀ x. Then V / n is a unit row: what is the "
        "derivative of a vector divided by its length?",
        "d(v/|v|) removes the part along v: dV_i = (m_i / n_i)(g_i - (g_i·v_i) v_i). "
        "Then dA and dB as for any V = W + s B A.",
        "    dV = m[:, None] / n * (g - ____ * unit)",
    ),
    why="""
    The Jacobian of v / |v| is (I - v̂ v̂ᵀ) / |v|: lengthening v changes nothing.
    dm_i is g_i · v̂_i, which is the same number that the projection needs. With n
    held constant the result is about a third off on dA: a choice that saves memory,
    and a gradient check must be told of it.
    """,
    follow_ups=(
        (
            "How would you certify PEFT's version?",
            "Against the forward with n computed outside and held fixed.",
        ),
        (
            "Which direction does the full gradient of row i never have?",
            "That of the row itself: dV_i · v_i = 0.",
        ),
    ),
    read="lora_np/lora/dora.py; chapter 02",
)
