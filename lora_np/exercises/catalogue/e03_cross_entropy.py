"""Cross-entropy from logits."""

import numpy as np

from lora_np import functional as F
from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes


def cross_entropy(z, target):
    """The mean over the rows of -log softmax(z)[target], in nats.

    z: (N, V) logits, of any size   target: (N,) integers below V
    Returns one number.
    """
    shifted = z - z.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    return (log_sum - shifted[np.arange(len(z)), target]).mean()


def problem(d):
    N, V = d.sizes(2)
    return {"z": d.array(N, V), "target": d.ids(N, V)}


def sure_and_wrong(d):
    N, V = d.sizes(2, low=2)
    return {"z": 1000.0 * d.array(N, V), "target": d.ids(N, V)}


def log_p(z):
    shifted = z - z.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def taken(z, target):
    return z[np.arange(len(z)), target]


EXERCISE = Exercise(
    id="e03",
    title="cross-entropy",
    kind="implement",
    minutes=8,
    difficulty=1,
    needs=("e01",),
    ask="""
    The loss of next-token prediction: the mean over N rows of -log p[target], with
    p = softmax(z). A model may be sure and wrong (a probability of exp(-2000)): the
    loss is then about 2000, not infinite.
    """,
    functions=(cross_entropy,),
    returns=("loss",),
    want=lambda c: float(F.cross_entropy(c["z"], c["target"])[0]),
    laws=(
        Law("{arrays} is not the mean of -log softmax(z)[target].", problem),
        Law("logits of some thousands have a finite loss like others.", sure_and_wrong),
    ),
    mistakes=mistakes(
        cross_entropy,
        ("loss",),
        mistake(
            "log_of_softmax",
            "the logarithm of the finished softmax: log 0 where a probability "
            "underflows",
            lambda c: -np.log(taken(F.softmax(c.z)[0], c.target)).mean(),
        ),
        mistake(
            "clipped",
            "probabilities clipped at 1e-12: the loss, and so the gradient, stops at "
            "27.6",
            lambda c: (
                -np.log(np.maximum(taken(F.softmax(c.z)[0], c.target), 1e-12)).mean()
            ),
        ),
        mistake(
            "sum", "the sum over the rows", lambda c: -taken(log_p(c.z), c.target).sum()
        ),
        mistake(
            "sign",
            "log p without the minus: lower is then worse",
            lambda c: taken(log_p(c.z), c.target).mean(),
        ),
        mistake(
            "bits",
            "bits (log to base 2), not nats",
            lambda c: -taken(log_p(c.z), c.target).mean() / np.log(2),
        ),
        mistake(
            "all_classes",
            "the mean of -log p over all classes, whatever the target",
            lambda c: -log_p(c.z).mean(),
        ),
        mistake(
            "logit",
            "minus the target's logit, without log Σ exp",
            lambda c: -taken(c.z, c.target).mean(),
        ),
        mistake(
            "mean_over_entries",
            "a division by N V: the mean belongs to the rows",
            lambda c: -taken(log_p(c.z), c.target).mean() / c.z.shape[1],
        ),
        mistake(
            "probability",
            "the mean of 1 - p[target]",
            lambda c: (1 - np.exp(taken(log_p(c.z), c.target))).mean(),
        ),
    ),
    others=(
        lambda c: (
            -(np.eye(c.z.shape[1], dtype=c.z.dtype)[c.target] * log_p(c.z)).sum()
            / len(c.z)
        ),
        lambda c: np.logaddexp.reduce(c.z, axis=1).mean() - taken(c.z, c.target).mean(),
        lambda c: sum(-log_p(c.z)[n, t] for n, t in enumerate(c.target)) / len(c.z),
    ),
    hints=(
        "-log softmax(z)[t] = log Σ exp(z) - z[t]: no probability is needed.",
        "Shift by the row's largest logit, in both terms.",
        "    log_sum = np.log(____)",
    ),
    why="""
    log Σ exp(z) - z[t], with the maximum subtracted from z in both terms, has no
    exponent above 0 and no logarithm of less than 1. Clipping hides the infinity and
    with it the gradient: beyond the clip nothing is learnt.
    """,
    follow_ups=(
        (
            "What loss has a model that knows nothing, with V classes?",
            "ln V: 5.545 for 256 bytes, 10.825 for GPT-2's 50257 tokens.",
        ),
        (
            "Which rows must not count?",
            "Padding (ignore_index): they leave the sum and the number N alike.",
        ),
    ),
    read="lora_np/functional/cross_entropy.py; chapter 04",
)
