"""Softmax, stable."""

import numpy as np

from lora_np import functional as F
from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes


def softmax(z):
    """Probabilities along the last axis.

    z: (N, K) scores, of any size.  Returns p: (N, K), each row positive with sum 1.
    """
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def rows(d):
    N, K = d.sizes(2)
    return {"z": d.array(N, K)}


def far_rows(d):
    N, K = d.sizes(2, low=2)
    return {"z": d.array(N, K) + 1000.0 * (2 * np.arange(N)[:, None] - 1)}


def exp(z):
    return np.exp(z - z.max(axis=-1, keepdims=True))


EXERCISE = Exercise(
    id="e01",
    title="softmax",
    kind="implement",
    minutes=5,
    difficulty=1,
    ask="""
    Turn rows of scores into rows of probabilities: p_i = exp(z_i) / Σ_j exp(z_j).
    Scores may be large: exp(1000) is infinite in floating point, softmax is not.
    """,
    functions=(softmax,),
    returns=("p",),
    want=lambda c: F.softmax(c["z"])[0],
    laws=(
        Law("{arrays} is not exp(z) divided by its sum along each row.", rows),
        Law("rows near -1000 and near 1000 have softmaxes like any other.", far_rows),
    ),
    mistakes=mistakes(
        softmax,
        ("p",),
        mistake(
            "no_shift",
            "exp(z) without subtracting the row's largest score: it overflows",
            lambda c: np.exp(c.z) / np.exp(c.z).sum(-1, keepdims=True),
        ),
        mistake(
            "one_shift",
            "the shift by the largest score of the whole array: rows "
            "far below it vanish, 0/0",
            lambda c: (
                np.exp(c.z - c.z.max()) / np.exp(c.z - c.z.max()).sum(-1, keepdims=True)
            ),
        ),
        mistake(
            "sum_of_all",
            "a division by the sum over the whole array, not over each row",
            lambda c: exp(c.z) / exp(c.z).sum(),
        ),
        mistake(
            "wrong_axis",
            "a softmax down the columns (axis 0)",
            lambda c: F.softmax(c.z.T)[0].T,
        ),
        mistake(
            "not_normalised",
            "the exponentials without the division by their sum",
            lambda c: exp(c.z),
        ),
        mistake("log", "the logarithm of the softmax", lambda c: np.log(softmax(c.z))),
        mistake("sigmoid", "a sigmoid of each score", lambda c: 1 / (1 + np.exp(-c.z))),
        mistake(
            "negative",
            "exp(-z): the smallest score gets the largest probability",
            lambda c: softmax(-c.z),
        ),
    ),
    others=(
        lambda c: np.stack([exp(r) / np.sum(exp(r)) for r in c.z]),
        lambda c: np.exp(
            c.z - c.z.max(-1, keepdims=True) - np.log(exp(c.z).sum(-1, keepdims=True))
        ),
        lambda c: (exp(c.z).T / np.einsum("nk->n", exp(c.z))).T,
    ),
    hints=(
        "Softmax does not change when the same number is added to every score of a "
        "row.",
        "Subtract each row's largest score before exp; keepdims=True keeps the axis.",
        "    e = np.exp(z - ____)",
    ),
    why="""
    exp(z - c) / Σ exp(z - c) is the same for every c. With c the row's maximum the
    largest exponent is 0: nothing overflows, and the sum is at least 1, so nothing
    is divided by 0. One c for the whole array is not enough: a row far below it
    becomes 0/0.
    """,
    follow_ups=(
        (
            "What is the softmax of a row of equal scores?",
            "1/K each, whatever the score.",
        ),
        (
            "How do you compute log softmax?",
            "z - max - log Σ exp(z - max); never "
            "log(softmax(z)), which is -inf where a probability underflows.",
        ),
    ),
    read="lora_np/functional/softmax.py; chapter 02",
)
