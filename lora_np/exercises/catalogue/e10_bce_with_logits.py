"""Numerical stability: binary cross-entropy."""

import numpy as np

from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes


def bce_with_logits(z, t):
    """The mean of -t log σ(z) - (1 - t) log(1 - σ(z)), σ(z) = 1 / (1 + exp(-z)).

    z: (N,) logits, of any size   t: (N,) targets between 0 and 1
    Returns one number.
    """
    return (np.maximum(z, 0) - t * z + np.log1p(np.exp(-np.abs(z)))).mean()


def problem(d):
    (N,) = d.sizes(1)
    t = d.mask(N) * 1.0
    if d.rng is not None:
        t = np.abs(t - 0.125)  # soft targets too
    return {"z": d.array(N), "t": t}


def large(d):
    (N,) = d.sizes(1)
    z = 1000.0 * d.array(N)
    if d.rng is not None:
        z[0] = 2000.0  # beyond where exp overflows
    return {"z": z, "t": d.mask(N) * 1.0}


def tiny(d):
    (N,) = d.sizes(1)
    z = -40.0 - np.abs(d.array(N))
    return {"z": z, "t": np.zeros(N)}


def reference(case):
    """softplus(z) - t z, by logaddexp."""
    return float((np.logaddexp(0, case["z"]) - case["t"] * case["z"]).mean())


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def by_two_branches(c):
    low = np.where(c.z > 0, -c.z, c.z)
    return np.mean(np.where(c.z > 0, c.z, 0) - c.t * c.z + np.log1p(np.exp(low)))


EXERCISE = Exercise(
    id="e10",
    title="a loss that does not overflow",
    kind="implement",
    minutes=10,
    difficulty=2,
    needs=("e03",),
    ask="""
    Binary cross-entropy from logits: the loss of reward models and of classifiers. The
    formula as written gives inf or nan from about z = 37 on, and below z = -709, where
    exp(-z) overflows. Write one that is right for every z, also for z = -40 with t = 0,
    where the loss is 4.2e-18 and not 0.
    """,
    functions=(bce_with_logits,),
    returns=("loss",),
    want=reference,
    laws=(
        Law(
            "{arrays} is not the mean of -t log σ(z) - (1 - t) log(1 - σ(z)).", problem
        ),
        Law("logits of some thousands have a finite loss: |z| or 0, nearly.", large),
        Law(
            "a loss of 4e-18 is not 0: log(1 + u) loses a small u.",
            tiny,
            judge=lambda c, got: _relative(c, got),
        ),
    ),
    mistakes=mistakes(
        bce_with_logits,
        ("loss",),
        mistake(
            "as_written",
            "the formula as it stands: log 0 as soon as σ(z) rounds to 0 or 1",
            lambda c: np.mean(
                -c.t * np.log(sigmoid(c.z)) - (1 - c.t) * np.log(1 - sigmoid(c.z))
            ),
        ),
        mistake(
            "clipped",
            "probabilities clipped to 1e-12 … 1 - 1e-12: sure and wrong "
            "costs 27.6 and not |z|, without a gradient",
            lambda c: _clipped(c),
        ),
        mistake(
            "softplus_overflows",
            "log1p(exp(z)): exp overflows from 710 on",
            lambda c: (np.log1p(np.exp(c.z)) - c.t * c.z).mean(),
        ),
        mistake(
            "log_of_sum",
            "log(1 + exp(-|z|)) where log1p belongs: exact zeros",
            lambda c: (
                np.maximum(c.z, 0) - c.t * c.z + np.log(1 + np.exp(-np.abs(c.z)))
            ).mean(),
        ),
        mistake(
            "sum", "the sum over the entries", lambda c: reference(vars(c)) * len(c.z)
        ),
        mistake(
            "targets_swapped",
            "the loss of 1 - t",
            lambda c: reference({"z": c.z, "t": 1 - c.t}),
        ),
        mistake(
            "one_side",
            "-t log σ(z) alone: the entries with t = 0 cost nothing",
            lambda c: (c.t * np.logaddexp(0, -c.z)).mean(),
        ),
        mistake(
            "bits",
            "bits (log to base 2), not nats",
            lambda c: reference(vars(c)) / np.log(2),
        ),
    ),
    others=(
        lambda c: np.mean(np.logaddexp(c.z * 0, c.z) - c.t * c.z),
        lambda c: (
            c.t * np.logaddexp(0 * c.z, -c.z) + (1 - c.t) * np.logaddexp(0 * c.z, c.z)
        ).mean(),
        by_two_branches,
    ),
    hints=(
        "-log σ(z) = log(1 + exp(-z)) =: softplus(-z), and softplus(-z) = "
        "softplus(z) - z.",
        "The loss is softplus(z) - t z. In softplus, never let exp see a positive "
        "number; log1p(u) is log(1 + u) for small u.",
        "    np.log1p(np.exp(____))",
    ),
    why="""
    softplus(z) = max(z, 0) + log1p(exp(-|z|)): the exponent is never positive, and
    log1p keeps a tiny u that 1 + u would round away. Computing σ first throws the
    information away that the logarithm needs.
    """,
    follow_ups=(
        ("What is the gradient?", "(σ(z) - t) / N, which is stable as it stands."),
        (
            "What is log softmax for two classes?",
            "The same function: -softplus of the difference of the logits.",
        ),
    ),
    read="lora_np/functional/adversarial.py (softplus); chapter 06",
)


def _clipped(c):
    p = np.clip(sigmoid(c.z), 1e-12, 1 - 1e-12)
    return np.mean(-c.t * np.log(p) - (1 - c.t) * np.log(1 - p))


def _relative(case, got):
    want = reference(case)
    if abs(got[0] - want) <= 1e-9 * want:
        return ""
    return f"a loss of {want:.3g} came out as {float(got[0]):.3g}"
