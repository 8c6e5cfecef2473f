"""The forward of DoRA."""

import numpy as np

from lora_np import lora as L
from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes


def dora_forward(x, W, A, B, m, s):
    """y = x (diag(m / n) V)ᵀ with V = W + s B A and n_i the length of row i of V.

    x: (N, D)   W: (M, D)   A: (r, D)   B: (M, r)   m: (M,) magnitudes   s: a number
    Returns y: (N, M).
    """
    V = W + s * (B @ A)
    n = np.sqrt((V**2).sum(axis=1))
    return x @ V.T * (m / n)


def problem(d):
    N, D, M, r = d.sizes(4)
    W = d.array(M, D) + 20.0 * np.eye(M, D) + 30.0 * (np.arange(D) == 0)
    return {
        "x": d.array(N, D),
        "W": W,
        "A": d.array(r, D),
        "B": d.array(M, r),
        "m": d.array(M),
        "s": d.choice([0.5, 2.0]),
    }


def V(c, s=None):
    return c.W + (c.s if s is None else s) * (c.B @ c.A)


def length(a, axis=1):
    return np.sqrt((a * a).sum(axis))


def rows(c):
    """Output by output: magnitude times the projection on a unit row."""
    return np.stack(
        [m * (c.x @ (v / np.sqrt(v @ v))) for m, v in zip(c.m, V(c), strict=True)],
        axis=1,
    )


EXERCISE = Exercise(
    id="e36",
    title="the forward of DoRA",
    kind="implement",
    minutes=8,
    difficulty=2,
    needs=("e22",),
    ask="""
    DoRA (Liu et al. 2024) splits the adapted weight into directions and magnitudes:
    each row of V = W + s B A is divided by its own length, and a trained number m_i
    sets the length anew. (There is no bias here.)
    """,
    functions=(dora_forward,),
    returns=("y",),
    want=lambda c: L.dora_linear(c["x"], c["W"], None, c["A"], c["B"], c["m"], c["s"])[
        0
    ],
    laws=(Law("{arrays} is not x (diag(m / n) V)ᵀ.", problem),),
    mistakes=mistakes(
        dora_forward,
        ("y",),
        mistake(
            "columns",
            "lengths of the columns of V; each output has a row",
            lambda c: (c.x / length(V(c), 0)) @ V(c).T * c.m,
        ),
        mistake(
            "length_of_W",
            "lengths of W's rows, not of V's",
            lambda c: c.x @ V(c).T * (c.m / length(c.W)),
        ),
        mistake(
            "not_normalised",
            "m times V, whose rows were not divided by their length",
            lambda c: c.x @ V(c).T * c.m,
        ),
        mistake(
            "no_magnitude",
            "rows of length 1: m is not used",
            lambda c: c.x @ V(c).T / length(V(c)),
        ),
        mistake(
            "squared_length",
            "a division by the squared length: the root is missing",
            lambda c: c.x @ V(c).T * (c.m / length(V(c)) ** 2),
        ),
        mistake(
            "no_scale",
            "V = W + B A: the scale is missing",
            lambda c: c.x @ V(c, 1.0).T * (c.m / length(V(c, 1.0))),
        ),
        mistake(
            "base_added",
            "x Wᵀ added once more",
            lambda c: c.x @ c.W.T + c.x @ V(c).T * (c.m / length(V(c))),
        ),
        mistake(
            "one_length",
            "one length for all of V, not one for each row",
            lambda c: c.x @ V(c).T * (c.m / float(np.sqrt((V(c) ** 2).sum()))),
        ),
        mistake(
            "base_not_scaled",
            "m / n on the low-rank part only",
            lambda c: c.x @ c.W.T + c.s * (c.x @ c.A.T @ c.B.T) * (c.m / length(V(c))),
        ),
    ),
    others=(
        rows,
        lambda c: np.einsum("nd,md->nm", c.x, (c.m / length(V(c)))[:, None] * V(c)),
        lambda c: (
            (c.x @ c.W.T + c.s * (c.x @ c.A.T @ c.B.T))
            * (c.m / np.sqrt(np.einsum("md,md->m", V(c), V(c))))
        ),
    ),
    hints=(
        "One row of V belongs to one output; m has one number for each output.",
        "n is the root of the row's sum of squares, of V and not of W.",
        "    return x @ V.T * (____)",
    ),
    why="""
    m_i / n_i multiplies row i of V and therefore column i of x Vᵀ, so the large
    matrix need not be multiplied: x Wᵀ + s (x Aᵀ) Bᵀ, times m / n. Only n needs V
    itself. m starts as the lengths of W's rows, so that with B = 0 nothing changes.
    """,
    follow_ups=(
        (
            "What does the paper's ‖·‖_c mean?",
            "It writes weights as (in, out), so its columns are our rows: one length "
            "for each output. PEFT computes that too.",
        ),
        (
            "What if a row of V is 0?",
            "0/0: it needs a rule. This toolkit raises an error.",
        ),
    ),
    read="lora_np/lora/dora.py; Liu et al. 2024 (2402.09353)",
)
