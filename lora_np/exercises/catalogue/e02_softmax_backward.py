"""The backward of softmax."""

import numpy as np

from lora_np import functional as F
from lora_np.exercises.exercise import Exercise, Law, derivative, mistake, mistakes


def softmax_backward(dp, p):
    """The gradient of the scores z, for p = softmax(z) along the last axis.

    dp: (N, K) = dL/dp   p: (N, K), the probabilities   Returns dz: (N, K).
    """
    return p * (dp - (dp * p).sum(axis=-1, keepdims=True))


def problem(d):
    N, K = d.sizes(2)
    z = d.array(N, K)
    return {"dp": d.array(N, K), "p": F.softmax(z)[0], "z": z}


def by_jacobian(c):
    """J = diag(p) - p pᵀ for each row, which is symmetric."""
    return np.stack(
        [(np.diag(p) - np.outer(p, p)) @ g for p, g in zip(c.p, c.dp, strict=True)]
    )


EXERCISE = Exercise(
    id="e02",
    title="the backward of softmax",
    kind="derive",
    minutes=10,
    difficulty=2,
    needs=("e01",),
    ask="""
    p = softmax(z) along the last axis; a loss sends back dp = dL/dp. Compute dz = dL/dz
    from dp and p alone. Every score of a row moves every probability of that row.
    """,
    functions=(softmax_backward,),
    returns=("dz",),
    want=derivative(lambda c: F.softmax(c.z)[0], {"dz": "z"}, cotangent="dp"),
    laws=(Law("{arrays} is not the derivative of the loss sum(dp * p).", problem),),
    mistakes=mistakes(
        softmax_backward,
        ("dz",),
        mistake(
            "diagonal_only",
            "p (1 - p) dp, the slope of a sigmoid: the other scores of the row matter",
            lambda c: c.p * (1 - c.p) * c.dp,
        ),
        mistake(
            "sum_not_subtracted",
            "p * dp: the row's sum of dp * p is not subtracted",
            lambda c: c.p * c.dp,
        ),
        mistake(
            "sum_not_weighted",
            "p (dp - Σ dp): the sum must be weighted with p",
            lambda c: c.p * (c.dp - c.dp.sum(-1, keepdims=True)),
        ),
        mistake(
            "mean_for_sum",
            "the row's mean of dp * p where its sum belongs",
            lambda c: c.p * (c.dp - (c.dp * c.p).mean(-1, keepdims=True)),
        ),
        mistake(
            "sum_of_all",
            "one sum of dp * p over the whole array, not one for each row",
            lambda c: c.p * (c.dp - (c.dp * c.p).sum()),
        ),
        mistake(
            "outer_p_missing",
            "dp - Σ dp p: the factor p in front is missing",
            lambda c: c.dp - (c.dp * c.p).sum(-1, keepdims=True),
        ),
        mistake(
            "columns",
            "sums down the columns (axis 0)",
            lambda c: c.p * (c.dp - (c.dp * c.p).sum(0)),
        ),
        mistake(
            "plus",
            "a plus where the minus belongs",
            lambda c: c.p * (c.dp + (c.dp * c.p).sum(-1, keepdims=True)),
        ),
    ),
    others=(
        by_jacobian,
        lambda c: c.p * c.dp - c.p * np.einsum("nk,nk->n", c.p, c.dp)[:, None],
        lambda c: np.einsum(
            "nij,nj->ni",
            np.einsum("ni,ij->nij", c.p, np.eye(c.p.shape[1], dtype=c.p.dtype))
            - np.einsum("ni,nj->nij", c.p, c.p),
            c.dp,
        ),
    ),
    hints=(
        "dp_i/dz_j = p_i (δ_ij - p_j). Sum dp_i times that over i.",
        "dz_j has two terms: p_j dp_j from i = j, and -p_j times one sum for the row.",
        "    return p * (dp - ____)",
    ),
    why="""
    dz_j = Σ_i dp_i p_i (δ_ij - p_j) = p_j (dp_j - Σ_i dp_i p_i). The sum is the
    average of dp under p: adding a constant to dp changes nothing, and each row of
    dz sums to 0.
    """,
    follow_ups=(
        (
            "What is dz for a dp that is constant along a row?",
            "0: the probabilities sum to 1 whatever z is.",
        ),
        (
            "Why not build the K x K Jacobian?",
            "K² numbers a row for a product that needs K: it is diagonal plus rank "
            "one.",
        ),
    ),
    read="lora_np/functional/softmax.py; chapter 02",
)
