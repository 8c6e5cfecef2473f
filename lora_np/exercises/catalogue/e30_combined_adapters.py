"""Find the bug: a weighted combination of two adapters."""

import numpy as np

from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes


def combine(A1, B1, s1, w1, A2, B2, s2, w2):
    """One adapter (A, B), used with scale 1, for the update w1 s1 B1 A1 + w2 s2 B2 A2.

    A1, A2: (r, D)   B1, B2: (M, r)   s1, s2: scales   w1, w2: weights
    Returns (A, B) of any rank, with B A the update.
    """
    A = np.concatenate([A1, A2])
    B = np.concatenate([w1 * s1 * B1, w2 * s2 * B2], axis=1)
    return A, B


def combine_as_found(A1, B1, s1, w1, A2, B2, s2, w2):
    """One adapter (A, B), used with scale 1, for the update w1 s1 B1 A1 + w2 s2 B2 A2.

    A1, A2: (r, D)   B1, B2: (M, r)   s1, s2: scales   w1, w2: weights
    Returns (A, B) of any rank, with B A the update.
    """
    A = np.sqrt(w1 * s1) * A1 + np.sqrt(w2 * s2) * A2
    B = np.sqrt(w1 * s1) * B1 + np.sqrt(w2 * s2) * B2
    return A, B


def problem(d):
    D, M, r = d.sizes(3)
    return {
        "A1": d.array(r, D),
        "B1": d.array(M, r),
        "s1": d.choice([2.0, 0.5]),
        "w1": d.choice([1.0, 2.0, 0.5]),
        "A2": d.array(r, D),
        "B2": d.array(M, r),
        "s2": d.choice([4.0, 0.5]),
        "w2": d.choice([1.0, -1.0, 0.25]),
    }


def update(c):
    return c["w1"] * c["s1"] * (c["B1"] @ c["A1"]) + c["w2"] * c["s2"] * (
        c["B2"] @ c["A2"]
    )


def judge(case, got):
    """B A is the weighted sum of the updates."""
    A, B = (np.asarray(x) for x in got)
    D, M = case["A1"].shape[1], case["B1"].shape[0]
    if A.ndim != 2 or B.ndim != 2 or A.shape[1] != D or B.shape != (M, len(A)):
        return f"A must be (R, {D}) and B ({M}, R), got {A.shape} and {B.shape}"
    want = update(case)
    error = np.abs(B @ A - want).max()
    if error <= 1e-9 * max(1.0, np.abs(want).max()):
        return ""
    return f"B A is\n{B @ A}\nbut w1 s1 B1 A1 + w2 s2 B2 A2 is\n{want}"


def by_svd(c):
    u, s, vt = np.linalg.svd(update(vars(c)), full_matrices=False)
    return vt, u * s


EXERCISE = Exercise(
    id="e30",
    title="two adapters that do not add up",
    kind="find the bug",
    minutes=10,
    difficulty=2,
    needs=("e22",),
    ask="""
    Two adapters, each good at its task, are combined with weights into one. The
    result is good at neither. A negative weight (to forget a task) even gives nan.
    Find the fault and repair it; the rank of the result is free.
    """,
    functions=(combine,),
    found=(combine_as_found,),
    returns=("A", "B"),
    laws=(Law("the combination is not the sum.", problem, judge=judge),),
    mistakes=mistakes(
        combine,
        ("A", "B"),
        mistake(
            "weights_on_both",
            "concatenated factors with the weights on A and on B: they are squared",
            lambda c: (
                np.concatenate([c.w1 * c.s1 * c.A1, c.w2 * c.s2 * c.A2]),
                np.hstack([c.w1 * c.s1 * c.B1, c.w2 * c.s2 * c.B2]),
            ),
        ),
        mistake(
            "scales_lost",
            "concatenated factors with the weights but without the "
            "adapters' own scales",
            lambda c: (
                np.concatenate([c.A1, c.A2]),
                np.hstack([c.w1 * c.B1, c.w2 * c.B2]),
            ),
        ),
        mistake(
            "absolute",
            "roots of the absolute values: nan is gone, the sign and the "
            "cross terms are not",
            lambda c: (
                abs(c.w1 * c.s1) ** 0.5 * c.A1 + abs(c.w2 * c.s2) ** 0.5 * c.A2,
                abs(c.w1 * c.s1) ** 0.5 * c.B1 + abs(c.w2 * c.s2) ** 0.5 * c.B2,
            ),
        ),
    ),
    others=(
        by_svd,
        lambda c: (
            np.vstack([c.w1 * c.s1 * c.A1, c.w2 * c.s2 * c.A2]),
            np.hstack([c.B1, c.B2]),
        ),
        lambda c: (np.eye(c.A1.shape[1], dtype=c.A1.dtype), update(vars(c))),
    ),
    hints=(
        "The law: combine is linear in the updates. Multiply (B1 + B2)(A1 + A2) out.",
        "Besides B1 A1 and B2 A2 there are two products that nobody wants. Side by "
        "side instead of summed, the factors do not meet.",
        "    A = np.concatenate(____)",
    ),
    why="""
    (B1 + B2)(A1 + A2) = B1 A1 + B2 A2 + B1 A2 + B2 A1: the last two are products of
    factors that were never trained together. Stacked to rank 2r the sum is exact;
    an SVD then brings the rank back with a known error. Summing the factors is what
    some tools offer as "linear" combination.
    """,
    follow_ups=(
        (
            "Which law of combination catches this?",
            "combine([a], [1]) = a does not; combine(a, -a) = 0 and the sum of two do.",
        ),
        (
            "What happens to the scale lora_alpha / r if the rank doubles?",
            "It must not enter again: here it is folded into B and the new scale is 1.",
        ),
    ),
    read="lora_np/lora/merge.py; shared laws in chapter 05",
)
