"""Weighted combinations of adapters."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from lora_np.reference.conformance.case import Case
from lora_np.reference.conformance.check import UNIT, Check, law, rounding

GROUP = "combining"
COMBINED = ("linear", "embedding", "conv1d", "conv2d")
SUMS = ("cat", "svd")  # the ways that claim to be the sum of the weighted updates


def near(label: str, got: Any, want: Any, c: Case) -> Check:
    """Square roots and an SVD lie between: 64 r roundings in float32 (libraries form
    the roots of weights in it), or 4 (r + 2) in a rougher dtype, of the largest entry
    of |s| |B| |A|."""
    parts = {n: np.abs(a) for n, a in c.factors.items()}
    product = c.with_factors(**parts).want(s=abs(c.scale()))["delta"]
    size = max(float(np.abs(a).max()) for a in (want, product))
    return Check(label, got, want, slack(c) * size)


def slack(c: Case) -> float:
    """The relative part of the limit of `near`."""
    return max(64 * c.r * UNIT["float32"], 4 * (c.r + 2) * UNIT[c.dtype])


def combined(
    s: Any, c: Case, which: tuple[int, ...], weights: list[float], how: str
) -> Any:
    """A layer on which that combination is in use."""
    layer = s.layer(c, max(which) + 1)
    layer.combine(which, weights, how)
    return layer


def fits(how: str, c: Case) -> bool:
    """An SVD with more values than W has is left to `svd at full rank`."""
    return how != "svd" or c.r <= min(c.W.shape[0], c.W[0].size)


def ways(s: Any, c: Case) -> tuple[str, ...]:
    """The subject's names, nothing where the case has one adapter only."""
    return s.layer(c).combinations() if len(c.adapters) > 1 else ()


@law(
    GROUP,
    "One adapter with weight 1 combines to itself.",
    "combine([a], [1]) = a. Catches a scale that the new adapter has on top.",
    layers=COMBINED,
)
def one(s: Any, c: Case) -> Iterator[Check]:
    """Every way; in the update and in the output."""
    want = c.want()
    for how in s.layer(c).combinations():
        layer = combined(s, c, (0,), [1.0], how)
        y = np.asarray(want["y"])
        limit = slack(c) * (np.abs(y).max() + 1.0) + rounding(c)[0]
        yield Check(f"{how}: y", layer.forward(*c.inputs), y, limit)
        if not c.use_dora:
            yield near(f"{how}: ΔW", layer.delta(), want["delta"], c)


@law(
    GROUP,
    "A part of weight 0 leaves no trace in a sum.",
    "combine([a, b], [1, 0]) = a: the ways that a single adapter does not take.",
    layers=COMBINED,
)
def weight_zero(s: Any, c: Case) -> Iterator[Check]:
    """Concatenation, and the SVD where its rank is enough."""
    if c.use_dora:
        return
    for how in ways(s, c):
        if how in SUMS and fits(how, c):
            layer = combined(s, c, (0, 1), [1.0, 0.0], how)
            yield near(f"{how}: ΔW", layer.delta(), c.want()["delta"], c)


@law(
    GROUP,
    "One adapter with weight w combines to w times itself.",
    "Also for a negative w, of which square roots are taken.",
    layers=COMBINED,
)
def weighted(s: Any, c: Case) -> Iterator[Check]:
    """w = 2 and w = -1."""
    if c.use_dora:
        return
    for how in ways(s, c):
        for w in (2.0, -1.0):
            layer = combined(s, c, (0,), [w], how)
            yield near(
                f"{how}, weight {w}: ΔW", layer.delta(), w * c.want()["delta"], c
            )


@law(
    GROUP,
    "An adapter and itself with weights 1 and -1 cancel.",
    "combine(a, -a) = 0.",
    layers=COMBINED,
)
def cancelled(s: Any, c: Case) -> Iterator[Check]:
    """The second adapter is a copy of the first. "linear" mixes A with A and B with B,
    so that opposite signs meet in one factor only; the law asks the sums."""
    if c.use_dora:
        return
    copy = replace(c, adapters=(c.adapters[0], c.adapters[0]))
    for how in ways(s, c):
        if how in SUMS and fits(how, c):
            layer = combined(s, copy, (0, 1), [1.0, -1.0], how)
            yield near(f"{how}: ΔW", layer.delta(), 0 * c.want()["delta"], c)


@law(
    GROUP,
    "Concatenation is the sum of the weighted updates.",
    "[B₁ B₂] [A₁; A₂] = B₁A₁ + B₂A₂, with each adapter's own scale and any ranks.",
    layers=COMBINED,
)
def concatenation(s: Any, c: Case) -> Iterator[Check]:
    """Two adapters of different rank and scale."""
    if "cat" not in ways(s, c) or c.use_dora:
        return
    layer = combined(s, c, (0, 2), [1.0, 2.0], "cat")
    want = c.want()["delta"] + 2 * c.want(2)["delta"]
    yield near("ΔW", layer.delta(), want, c)


@law(
    GROUP,
    "An SVD merge at full rank is the sum.",
    "Nothing is cut off when the rank allows all singular values.",
    layers=COMBINED,
)
def svd_at_full_rank(s: Any, c: Case) -> Iterator[Check]:
    """Two adapters of the same rank, where that rank is enough for the sum."""
    if "svd" not in ways(s, c) or c.use_dora:
        return
    want = c.want()["delta"] + 2 * c.want(1)["delta"]
    groups = c.given.get("groups", 1)
    flat = want.reshape(want.shape[0], -1)
    if groups > 1 or np.linalg.matrix_rank(flat) > c.r:
        return
    layer = combined(s, c, (0, 1), [1.0, 2.0], "svd")
    yield near("ΔW", layer.delta(), want, c)


@law(
    GROUP,
    "Combining leaves the adapters that were combined as they were.",
    "A combination that scales its parts in place.",
    layers=COMBINED,
)
def parts_untouched(s: Any, c: Case) -> Iterator[Check]:
    """The first adapter's update, before and after."""
    for how in filter(lambda how: fits(how, c), ways(s, c)):
        layer = combined(s, c, (0, 1), [0.5, 2.0], how)
        yield near(f"{how}: ΔW of a part", layer.delta(0), c.want()["delta"], c)
