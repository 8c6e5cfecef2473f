"""Unmerging: exchange the adapter that is inside a weight."""

import numpy as np

from lora_np import lora as L
from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes


def exchange(merged, A1, B1, s1, A2, B2, s2):
    """Take adapter 1 out of a merged weight and merge adapter 2 instead.

    merged: (M, D), W with adapter 1 inside   A1: (r, D)   B1: (M, r)   s1: its scale
    A2: (q, D)   B2: (M, q)   s2: the other one, of another rank
    Returns an array (M, D); what came in is not changed.
    """
    return merged - s1 * (B1 @ A1) + s2 * (B2 @ A2)


def problem(d):
    D, M, r, q = d.sizes(4)
    given = {"A1": d.array(r, D), "B1": d.array(M, r), "s1": d.scale()}
    given |= {"A2": d.array(q, D), "B2": d.array(M, q), "s2": d.choice([0.5, 4.0])}
    W = d.array(M, D)
    return {"merged": W + given["s1"] * (given["B1"] @ given["A1"]), **given, "W": W}


def wanted(case):
    """From the base, which the learner does not have."""
    delta = L.delta_weight(case["A2"], case["B2"], case["s2"])
    return L.merge(case["W"], delta)


def out(c):
    return c.s1 * (c.B1 @ c.A1)


def new(c):
    return c.s2 * (c.B2 @ c.A2)


def one_product(c):
    """Both at once: stacked factors, the scales in B."""
    B = np.concatenate([-c.s1 * c.B1, c.s2 * c.B2], axis=1)
    return c.merged + B @ np.concatenate([c.A1, c.A2])


def by_outer_products(c):
    W = c.merged.copy()
    for b, a in zip(c.B1.T, c.A1, strict=True):
        W -= c.s1 * np.outer(b, a)
    for b, a in zip(c.B2.T, c.A2, strict=True):
        W += c.s2 * np.outer(b, a)
    return W


EXERCISE = Exercise(
    id="e46",
    title="unmerging, to change adapters",
    kind="implement",
    minutes=5,
    difficulty=1,
    needs=("e22",),
    ask="""
    A server holds one merged weight and no copy of the base. A request for another
    adapter arrives: take the first one out (unmerge) and put the second one in. The law
    behind it: unmerge after merge gives the base back.
    """,
    functions=(exchange,),
    returns=("weight",),
    want=wanted,
    laws=(Law("{arrays} is not the base with adapter 2 alone.", problem, True),),
    mistakes=mistakes(
        exchange,
        ("weight",),
        mistake(
            "first_left_in",
            "both adapters: the first one was not taken out",
            lambda c: c.merged + new(c),
        ),
        mistake(
            "second_missing",
            "the base: nothing was put in",
            lambda c: c.merged - out(c),
        ),
        mistake(
            "merged_again",
            "the first adapter added once more instead of taken out",
            lambda c: c.merged + out(c) + new(c),
        ),
        mistake(
            "second_subtracted",
            "the second adapter subtracted as well",
            lambda c: c.merged - out(c) - new(c),
        ),
        mistake(
            "first_not_scaled",
            "B1 A1 taken out without its scale s1",
            lambda c: c.merged - c.B1 @ c.A1 + new(c),
        ),
        mistake(
            "second_not_scaled",
            "B2 A2 put in without its scale s2",
            lambda c: c.merged - out(c) + c.B2 @ c.A2,
        ),
        mistake(
            "scale_of_second",
            "the first adapter taken out with the scale of the second",
            lambda c: c.merged - c.s2 * (c.B1 @ c.A1) + new(c),
        ),
        mistake(
            "scale_of_first",
            "the second adapter put in with the scale of the first",
            lambda c: c.merged - out(c) + c.s1 * (c.B2 @ c.A2),
        ),
        mistake(
            "update_alone",
            "the second update without the weight",
            lambda c: new(c) - out(c),
        ),
    ),
    others=(
        one_product,
        by_outer_products,
        lambda c: (
            c.merged
            + np.einsum("mr,rd->md", c.B2, c.s2 * c.A2)
            - np.einsum("mr,rd->md", c.B1, c.s1 * c.A1)
        ),
    ),
    hints=(
        "merged = W + s1 B1 A1. Which line gives W back, and what is added then?",
        "Each adapter has its own scale; the ranks may differ, so factors of the two "
        "are never multiplied with each other.",
        "    return merged - ____ + s2 * (B2 @ A2)",
    ),
    why="""
    W + s1 B1 A1 - s1 B1 A1 + s2 B2 A2. In floating point the first three terms give W
    back only up to a rounding of merged's size, and a thousand exchanges are a walk of
    a thousand roundings: a server keeps the base, or counts its exchanges.
    """,
    follow_ups=(
        (
            "How large can the error of one exchange be in float16?",
            "About half a unit in the last place of merged for each of the "
            "roundings: near 5e-4 of its size each. With an update far below that it "
            "is lost whole.",
        ),
        (
            "The adapter has DoRA. Can it be taken out?",
            "Not by a subtraction: the rows were rescaled. Divide by the magnitudes "
            "first, which needs the row lengths at merging, or keep the base.",
        ),
    ),
    read="lora_np/lora/merge.py (unmerge, round_trip_bound); chapter 05",
)
