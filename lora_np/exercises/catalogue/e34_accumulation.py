"""Find the bug: gradient accumulation."""

import numpy as np

from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes


def accumulated(gradients, counts):
    """The gradient of the mean loss over all tokens of several micro-batches.

    gradients: (K, r, D), for each micro-batch that of the mean over its own tokens
    counts: (K,) how many tokens each has   Returns an array (r, D).
    """
    weights = counts / counts.sum()
    return (gradients * weights.astype(gradients.dtype)[:, None, None]).sum(axis=0)


def accumulated_as_found(gradients, counts):
    """The gradient of the mean loss over all tokens of several micro-batches.

    gradients: (K, r, D), for each micro-batch that of the mean over its own tokens
    counts: (K,) how many tokens each has   Returns an array (r, D).
    """
    total = np.zeros_like(gradients[0])
    for gradient in gradients:
        total += gradient / len(counts)
    return total


def problem(d):
    K, r, D = d.sizes(3)
    if d.rng is None:
        counts = np.array([d.choice([1, 3, 2]) for _ in range(K)])
    else:
        counts = np.arange(1, K + 1) * d.choice([1, 2, 3]) + d.integers(0, 3)
    return {"gradients": d.array(K, r, D), "counts": counts}


def wanted(case):
    """Token by token: each counts once."""
    total = np.zeros(case["gradients"].shape[1:])
    for gradient, count in zip(case["gradients"], case["counts"], strict=True):
        for _ in range(count):
            total += gradient
    return total / case["counts"].sum()


EXERCISE = Exercise(
    id="e34",
    title="accumulated gradients",
    kind="find the bug",
    minutes=5,
    difficulty=1,
    needs=("e04",),
    ask="""
    Memory is short, so a batch is cut into micro-batches, and their gradients are put
    together. With padding the micro-batches have different numbers of real tokens, and
    training now depends on how the batch was cut. Repair it: the result must be that of
    one large batch.
    """,
    functions=(accumulated,),
    found=(accumulated_as_found,),
    returns=("gradient",),
    want=wanted,
    laws=(Law("{arrays} is not that of one large batch.", problem),),
    mistakes=mistakes(
        accumulated,
        ("gradient",),
        mistake("sum", "the sum of the means", lambda c: c.gradients.sum(0)),
        mistake(
            "not_divided",
            "sums over the tokens without the division by their number",
            lambda c: np.einsum("krd,k->rd", c.gradients, c.counts * 1.0),
        ),
        mistake(
            "divided_by_batches",
            "sums over the tokens divided by the number of micro-batches",
            lambda c: (
                np.einsum("krd,k->rd", c.gradients, c.counts * 1.0) / len(c.counts)
            ),
        ),
    ),
    others=(
        lambda c: np.average(
            c.gradients, axis=0, weights=c.counts.astype(c.gradients.dtype)
        ),
        lambda c: np.tensordot(
            (c.counts / c.counts.sum()).astype(c.gradients.dtype), c.gradients, 1
        ),
        lambda c: (
            sum(g * int(n) for g, n in zip(c.gradients, c.counts, strict=True))
            / int(c.counts.sum())
        ),
    ),
    hints=(
        "The law: accumulation over micro-batches equals one big batch.",
        "A mean of means is the mean only if all have the same number. How many tokens "
        "does each gradient speak for?",
        "    weights = counts / ____",
    ),
    why="""
    The large batch's loss is Σ_k n_k L_k / Σ_k n_k. The mean of the means gives
    tokens of short micro-batches more weight. With equal lengths nothing shows;
    with padding it stood in widely used training code until 2024.
    """,
    follow_ups=(
        (
            "Several workers average their gradients. Same fault?",
            "Yes: each worker's loss must be divided by the number of all tokens "
            "over the number of workers, or weighted.",
        ),
        (
            "Which parts of the optimizer's step happen once for each micro-batch?",
            "None. Gradients are summed over the micro-batches; then comes one step, "
            "with one decay and one update of m and v.",
        ),
    ),
    read="lora_np/training/loop.py; chapter 05",
)
