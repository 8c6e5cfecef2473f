"""The backward of cross-entropy."""

import numpy as np

from lora_np import functional as F
from lora_np.exercises.exercise import Exercise, Law, derivative, mistake, mistakes


def cross_entropy_backward(dloss, z, target):
    """The gradient of the logits of the mean cross-entropy.

    dloss: a number = dL/dloss   z: (N, V) logits   target: (N,) integers below V
    Returns dz: (N, V).
    """
    e = np.exp(z - z.max(axis=1, keepdims=True))
    dz = e / e.sum(axis=1, keepdims=True)
    dz[np.arange(len(z)), target] -= 1
    return dz * (dloss / len(z))


def problem(d):
    N, V = d.sizes(2)
    return {"dloss": d.scale(), "z": d.array(N, V), "target": d.ids(N, V)}


def large(d):
    N, V = d.sizes(2, low=2)
    return {"dloss": d.scale(), "z": 1000 * d.array(N, V), "target": d.ids(N, V)}


def parts(c):
    """(softmax, one-hot targets, dloss / N)"""
    return (
        F.softmax(c.z)[0],
        np.eye(c.z.shape[1], dtype=c.z.dtype)[c.target],
        c.dloss / len(c.z),
    )


def scattered(c):
    p, _, f = parts(c)
    dz = f * p
    np.subtract.at(dz, (np.arange(len(dz)), c.target), f)
    return dz


def by_rows(c):
    p, t, f = parts(c)
    return np.stack([f * a - f * b for a, b in zip(p, t, strict=True)])


EXERCISE = Exercise(
    id="e04",
    title="the backward of cross-entropy",
    kind="derive",
    minutes=8,
    difficulty=1,
    needs=("e02", "e03"),
    ask="""
    The loss is the mean over N rows of -log softmax(z)[target]. It is itself scaled
    later on: dloss = dL/dloss arrives from above. Compute dz.
    """,
    functions=(cross_entropy_backward,),
    returns=("dz",),
    want=derivative(
        lambda c: F.cross_entropy(c.z, c.target)[0], {"dz": "z"}, cotangent="dloss"
    ),
    laws=(
        Law("{arrays} is not the derivative of dloss * loss.", problem),
        Law("large logits have a finite gradient too.", large),
    ),
    mistakes=mistakes(
        cross_entropy_backward,
        ("dz",),
        mistake(
            "not_divided",
            "p - onehot without the division by N: the loss is a mean",
            lambda c: (parts(c)[0] - parts(c)[1]) * c.dloss,
        ),
        mistake(
            "divided_by_entries",
            "a division by N V where N belongs",
            lambda c: (parts(c)[0] - parts(c)[1]) * c.dloss / c.z.size,
        ),
        mistake(
            "dloss_ignored",
            "the gradient for dloss = 1: what arrives from above is lost",
            lambda c: (parts(c)[0] - parts(c)[1]) / len(c.z),
        ),
        mistake(
            "onehot_missing",
            "softmax alone: the 1 of the target is not subtracted",
            lambda c: parts(c)[0] * parts(c)[2],
        ),
        mistake(
            "sign",
            "onehot - p: with it, descent climbs",
            lambda c: (parts(c)[1] - parts(c)[0]) * parts(c)[2],
        ),
        mistake(
            "only_target",
            "the entry of the target alone: raising its logit also lowers the others' "
            "probabilities",
            lambda c: (parts(c)[0] - 1) * parts(c)[1] * parts(c)[2],
        ),
        mistake(
            "of_probabilities",
            "-onehot / p, the gradient of the probabilities and not of the logits",
            lambda c: -parts(c)[1] / parts(c)[0] * parts(c)[2],
        ),
        mistake(
            "unstable",
            "exp(z) without subtracting the row's largest logit",
            lambda c: (
                (np.exp(c.z) / np.exp(c.z).sum(1, keepdims=True) - parts(c)[1])
                * parts(c)[2]
            ),
        ),
    ),
    others=(
        lambda c: (parts(c)[0] - parts(c)[1]) * parts(c)[2],
        scattered,
        by_rows,
    ),
    hints=(
        "loss of a row = log Σ exp(z) - z[target]. Differentiate the two terms.",
        "The first gives softmax(z), the second -1 at the target; then the mean's 1/N "
        "and dloss.",
        "    dz[np.arange(len(z)), target] ____",
    ),
    why="""
    d/dz log Σ exp(z) = softmax(z), and d/dz (-z[t]) is -1 at t: dz = (p - onehot) / N,
    times dloss. The softmax backward and the logarithm's 1/p cancel, which is why the
    two are computed as one function: 1/p alone overflows.
    """,
    follow_ups=(
        (
            "To what does each row of dz sum?",
            "0: p sums to 1, and so does the one-hot.",
        ),
        (
            "With gradient accumulation over K micro-batches, what changes?",
            "Each loss is divided by the number of all rows, not of its own.",
        ),
    ),
    read="lora_np/functional/cross_entropy.py; chapter 04",
)
