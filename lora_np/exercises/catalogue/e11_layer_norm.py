"""Layer normalisation."""

import numpy as np

from lora_np import functional as F
from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes


def layer_norm(x, g, b, eps):
    """(x - mean) / sqrt(variance + eps) along the last axis, times g, plus b.

    x: (N, D)   g, b: (D,)   eps: a number   Returns y: (N, D).
    The variance is the mean of squares, divided by D.
    """
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + eps) * g + b


def problem(d):
    N, D = d.sizes(2)
    eps = d.choice([1.0, 0.25, 1e-5])
    return {"x": d.array(N, D), "g": d.array(D), "b": d.array(D), "eps": eps}


def parts(c, axis=-1, ddof=0):
    """(x - mean, variance)"""
    centred = c.x - c.x.mean(axis, keepdims=True)
    n = max(c.x.shape[axis] - ddof, 1)
    return centred, (centred**2).sum(axis, keepdims=True) / n


def normed(c, axis=-1, ddof=0):
    centred, variance = parts(c, axis, ddof)
    return centred / np.sqrt(variance + c.eps)


EXERCISE = Exercise(
    id="e11",
    title="layer norm",
    kind="implement",
    minutes=6,
    difficulty=1,
    ask="""
    Normalise each row to mean 0 and variance 1, then scale and shift each column. eps
    stands inside the square root: for a small variance that is not the same as outside.
    """,
    functions=(layer_norm,),
    returns=("y",),
    want=lambda c: F.layer_norm(c["x"], c["g"], c["b"], c["eps"])[0],
    laws=(
        Law(
            "{arrays} is not g (x - mean) / sqrt(variance + eps) + b for each row.",
            problem,
        ),
    ),
    mistakes=mistakes(
        layer_norm,
        ("y",),
        mistake(
            "eps_outside",
            "a division by sqrt(variance) + eps: eps belongs inside",
            lambda c: parts(c)[0] / (np.sqrt(parts(c)[1]) + c.eps) * c.g + c.b,
        ),
        mistake(
            "eps_missing",
            "a division by sqrt(variance): 0/0 on a constant row",
            lambda c: parts(c)[0] / np.sqrt(parts(c)[1]) * c.g + c.b,
        ),
        mistake(
            "sample_variance",
            "the variance with D - 1 (ddof=1)",
            lambda c: normed(c, ddof=1) * c.g + c.b,
        ),
        mistake(
            "columns",
            "statistics down the columns: that is batch norm",
            lambda c: normed(c, axis=0) * c.g + c.b,
        ),
        mistake(
            "not_centred",
            "x / sqrt(mean square + eps): RMS norm, without the mean",
            lambda c: (
                c.x / np.sqrt((c.x**2).mean(-1, keepdims=True) + c.eps) * c.g + c.b
            ),
        ),
        mistake(
            "no_gain",
            "the normalised row plus b: g is missing",
            lambda c: normed(c) + c.b,
        ),
        mistake(
            "no_shift",
            "g times the normalised row: b is missing",
            lambda c: normed(c) * c.g,
        ),
        mistake(
            "variance_for_root",
            "a division by variance + eps: the root is missing",
            lambda c: parts(c)[0] / (parts(c)[1] + c.eps) * c.g + c.b,
        ),
        mistake(
            "shift_inside",
            "g (x̂ + b): b is added before g multiplies",
            lambda c: (normed(c) + c.b) * c.g,
        ),
    ),
    others=(
        lambda c: (
            (c.x - c.x.mean(-1, keepdims=True))
            / np.sqrt(np.var(c.x, axis=-1, keepdims=True) + c.eps)
            * c.g
            + c.b
        ),
        lambda c: (
            np.stack(
                [(r - r.mean()) * (r.var() + r.dtype.type(c.eps)) ** -0.5 for r in c.x]
            )
            * c.g
            + c.b
        ),
        lambda c: (
            c.b
            + c.g
            * parts(c)[0]
            * np.reciprocal(
                np.sqrt(
                    np.einsum("nd,nd->n", parts(c)[0], parts(c)[0])[:, None]
                    / c.x.shape[1]
                    + c.eps
                )
            )
        ),
    ),
    hints=(
        "Two statistics for each row: the mean, and the mean of the squared distances.",
        "keepdims=True keeps them as a column, so that they divide rows.",
        "    return centred / np.sqrt(____) * g + b",
    ),
    why="""
    eps inside the root bounds the division by sqrt(eps) and keeps the function
    smooth at a constant row. Outside it gives other numbers: at variance 1e-5 and
    eps 1e-5 by a factor of about 1.4. A model trained with one does not run with
    the other.
    """,
    follow_ups=(
        (
            "Layer norm or RMS norm: what is the difference?",
            "RMS norm does not subtract the mean and has no b; Llama uses it.",
        ),
        (
            "Why are the norms' g and b often trained beside LoRA?",
            "They are few, and LoRA has no matrix to factor there.",
        ),
    ),
    read="lora_np/functional/norm.py; chapter 04",
)
