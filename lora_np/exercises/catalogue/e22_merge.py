"""Merging an adapter into its weight."""

import numpy as np

from lora_np import lora as L
from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes


def merge(W, A, B, s, fan_in_fan_out):
    """The weight of one plain layer that does what base and adapter do together.

    W: (M, D), or (D, M) if fan_in_fan_out (GPT-2 stores it so)   A: (r, D)   B: (M, r)
    s: the scale   Returns an array of W's shape; W itself is not changed.
    """
    delta = s * (B @ A)
    return W + (delta.T if fan_in_fan_out else delta)


def problem(d):
    D, M, r = d.sizes(3)
    flag = d.choice([False, True])
    W = d.array(D, M) if flag else d.array(M, D)
    return {
        "W": W,
        "A": d.array(r, D),
        "B": d.array(M, r),
        "s": d.scale(),
        "fan_in_fan_out": flag,
    }


def wanted(case):
    delta = L.delta_weight(case["A"], case["B"], case["s"])
    return L.merge(case["W"], delta.T if case["fan_in_fan_out"] else delta)


def delta(c, s=None):
    made = (c.s if s is None else s) * (c.B @ c.A)
    return made.T if c.fan_in_fan_out else made


def by_outer_products(c):
    merged = c.W.copy()
    for j in range(len(c.A)):
        step = c.s * np.outer(c.B[:, j], c.A[j])
        merged += step.T if c.fan_in_fan_out else step
    return merged


EXERCISE = Exercise(
    id="e22",
    title="merging",
    kind="implement",
    minutes=6,
    difficulty=1,
    needs=("e16",),
    ask="""
    After training, base and adapter become one matrix, and inference costs nothing
    more. Some models (GPT-2's Conv1D) store W transposed: fan_in_fan_out. The base
    must stay as it is, since other adapters stand on it.
    """,
    functions=(merge,),
    returns=("merged",),
    want=wanted,
    laws=(
        Law("{arrays} does not give the outputs of base and adapter.", problem, True),
    ),
    mistakes=mistakes(
        merge,
        ("merged",),
        mistake(
            "no_scale", "W + B A: the scale is missing", lambda c: c.W + delta(c, 1.0)
        ),
        mistake("scale_squared", "W + s² B A", lambda c: c.W + delta(c, c.s**2)),
        mistake(
            "reshaped",
            "B A reshaped to W's shape where W is stored transposed: the "
            "entries land in wrong places",
            lambda c: c.W + (c.s * (c.B @ c.A)).reshape(c.W.shape),
        ),
        mistake("delta_only", "the update without W", delta),
        mistake("unmerged", "W - s B A: that is unmerging", lambda c: c.W - delta(c)),
        mistake(
            "all_scaled",
            "s (W + B A): the base is scaled too",
            lambda c: c.s * (c.W + delta(c, 1.0)),
        ),
        mistake("base_returned", "W itself: nothing was merged", lambda c: c.W.copy()),
        mistake(
            "returned_transposed",
            "the merged weight as (M, D) although W is stored as (D, M)",
            lambda c: (c.W + delta(c)).T if c.fan_in_fan_out else c.W + delta(c),
        ),
        mistake(
            "merged_twice",
            "W + 2 s B A: merged where it had been merged already",
            lambda c: c.W + 2 * delta(c),
        ),
    ),
    others=(
        by_outer_products,
        lambda c: (
            c.W
            + c.s
            * (
                np.einsum("mr,rd->dm", c.B, c.A)
                if c.fan_in_fan_out
                else np.einsum("mr,rd->md", c.B, c.A)
            )
        ),
        lambda c: (
            (c.W.T + (c.s * c.B) @ c.A).T
            if c.fan_in_fan_out
            else c.W + c.B @ (c.s * c.A)
        ),
    ),
    hints=(
        "x Wᵀ + s (x Aᵀ) Bᵀ = x (something)ᵀ. What is the something?",
        "B A has the shape (M, D); a weight stored as (D, M) needs its transpose. "
        "Write W + …, not W += ….",
        "    delta = s * (____)",
    ),
    why="""
    x Wᵀ + s x Aᵀ Bᵀ = x (W + s B A)ᵀ. `W += ...` would change the base for everyone who
    holds it, and a second call would merge twice. A reshape fits the shape and not the
    meaning: only square or lucky matrices would show it in a test of shapes.
    """,
    follow_ups=(
        (
            "Is unmerging exact?",
            "Not in floating point: (W + Δ) - Δ rounds. Keep W, or bound the error.",
        ),
        (
            "Why merge in float32 when W is float16?",
            "s B A is often below W's resolution in float16: the product must at "
            "least be computed exactly and rounded once.",
        ),
    ),
    read="lora_np/lora/merge.py; chapter 05",
)
