"""What the layer computes, and what merging does to it."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from lora_np.reference.conformance.case import Case
from lora_np.reference.conformance.check import (
    UNIT,
    Check,
    close,
    law,
    rounding,
    terms,
)
from lora_np.reference.conformance.laws.common import ROUNDING, outputs, same_outputs
from lora_np.reference.conformance.protocol import NotOffered

GROUP = "algebra"


@law(
    GROUP,
    "y = x Wᵀ + b + s (x Aᵀ) Bᵀ, or the layer's own formula.",
    "Hu et al. 2021, eq. 3; DoRA: 2402.09353, eq. 5. Catches a scale left out, "
    "squared or inverted, a transposed factor, a lost bias.",
)
def forward(s: Any, c: Case) -> Iterator[Check]:
    """Against the oracle."""
    y = s.layer(c).forward(*c.inputs)
    yield from same_outputs(y, c.outputs(c.want()), c)


@law(
    GROUP,
    "The update is s B A.",
    "What merging adds; s = α/r, or α/√r in rsLoRA (2312.03732).",
)
def update(s: Any, c: Case) -> Iterator[Check]:
    """delta() against the oracle, in the weight's layout."""
    layer = s.layer(c)
    if layer.own_factors:
        raise NotOffered("factors of another shape: no oracle speaks of them")
    yield weightlike("ΔW", layer.delta(), c.want()["delta"], c)


def weightlike(label: str, got: Any, want: Any, c: Case, adapters: int = 1) -> Check:
    """A weight or an update; in a rough dtype within a few roundings of its size, which
    is |W| + |s| |B| |A| of the adapters that are in it."""
    if c.dtype not in ROUNDING:
        return close(label, got, want, c, exact=True)
    size = np.abs(c.W)
    for i in range(adapters):
        one = c.using(i)
        parts = {n: np.abs(a) for n, a in one.factors.items()}
        size = size + one.with_factors(**parts).want(s=abs(one.scale()))["delta"]
    return Check(label, got, want, 2 * (terms(c) + 4) * UNIT[c.dtype] * size)


@law(
    GROUP,
    "The rank of the update is at most r.",
    "The premise of the method; a kernel unrolled in the wrong order breaks it.",
)
def rank(s: Any, c: Case) -> Iterator[Check]:
    """Numerically: singular values beyond r are rounding. Groups have ranks apart."""
    if c.use_dora:
        return  # its update is diag(m/n) V - W, of any rank
    delta = np.asarray(s.layer(c).delta(), np.float64)
    groups = c.given.get("groups", 1)
    own = [n for n in c.factors if n in ("A", "Aq", "Ak", "Av", "Ax")]
    allowed = sum(c.factors[n].shape[0] for n in own)
    blocks = np.split(delta, groups) if groups > 1 else [delta]
    if c.layer == "tasks":
        blocks, allowed = list(delta), c.r
    for i, block in enumerate(blocks):
        flat = block.reshape(block.shape[0], -1)
        sigma = np.linalg.svd(flat, compute_uv=False)
        beyond = sigma[allowed // groups :]
        limit = 1e3 * UNIT[c.dtype] * (sigma.max() + 1e-300)
        where = f" of group {i}" if groups > 1 else ""
        yield Check(f"singular values beyond r{where}", beyond, 0 * beyond, limit)


@law(
    GROUP,
    "(A, B) and (M A, B M⁻¹) are the same adapter.",
    "Only the product counts; code that looks at one factor alone breaks it.",
    layers=("linear", "embedding", "conv1d", "conv2d", "tied"),
    options=("plain", "rslora", "fan_in_fan_out", "strided", "dora"),
)
def gauge(s: Any, c: Case) -> Iterator[Check]:
    """With an M of whole numbers and determinant 1, so that nothing rounds."""
    A, B = c.factors["A"], c.factors["B"]
    M = np.tril(np.ones((c.r, c.r)))
    inverse = np.eye(c.r) - np.eye(c.r, k=-1)
    MA = np.tensordot(M, A, 1)
    BM = np.moveaxis(np.tensordot(B, inverse, (1, 0)), -1, 1)
    turned = c.with_factors(A=MA, B=BM)
    y = s.layer(turned).forward(*c.inputs)
    yield from same_outputs(y, c.outputs(c.want()), c)


@law(
    GROUP,
    "A scale of 0 gives the base; times 2, then times 1/2, changes nothing.",
    "Tools that edit the scale must find their way back.",
)
def scaling(s: Any, c: Case) -> Iterator[Check]:
    """scale_by, against the oracle with another s."""
    layer = s.layer(c)
    layer.scale_by(2.0)
    if not c.use_dora:
        want = c.outputs(c.want(s=2 * c.scale()))
        yield from same_outputs(
            layer.forward(*c.inputs), want, twice(c), label="y at 2s"
        )
    layer.scale_by(0.5)
    yield from same_outputs(
        layer.forward(*c.inputs), c.outputs(c.want()), c, label="y at s again"
    )
    if not c.use_dora:
        off = s.layer(c)
        off.scale_by(0.0)
        want = c.outputs(c.want(s=0.0))
        yield from same_outputs(off.forward(*c.inputs), want, c, label="y at 0")


def twice(c: Case) -> Case:
    """The case with twice the scale, for its bound."""
    first = c.adapters[0]
    more = replace(first, lora_alpha=2 * first.lora_alpha)
    return replace(c, adapters=(more, *c.adapters[1:]))


@law(
    GROUP,
    "A disabled adapter gives the base.",
    "What a reference model in preference training and every comparison rests on.",
)
def disabled(s: Any, c: Case) -> Iterator[Check]:
    """disable() against the oracle's base."""
    layer = s.layer(c)
    layer.disable()
    yield from same_outputs(layer.forward(*c.inputs), c.base(), c)


@law(
    GROUP,
    "Merging does not change the output.",
    "Hu et al. 2021, section 4.1: no additional latency. Catches a merge without the "
    "scale, with another scale, transposed, or twice.",
)
def merged_forward(s: Any, c: Case) -> Iterator[Check]:
    """forward after merge against the oracle."""
    layer = s.layer(c)
    layer.merge()
    yield from merged_outputs(layer.forward(*c.inputs), c)


def merged_outputs(got: Any, c: Case) -> Iterator[Check]:
    """The adapter's output; in a rough dtype the weight's own rounding is allowed."""
    want = c.outputs(c.want())
    if c.dtype == "float64":
        yield from same_outputs(got, want, c)
        return
    limits = [a + b for a, b in zip(rounding(c), stored_rounding(c), strict=True)]
    for i, (y, right, limit) in enumerate(zip(outputs(got), want, limits, strict=True)):
        yield Check(f"y{i}" if len(want) > 1 else "y", y, right, limit)


def stored_rounding(c: Case) -> tuple[np.ndarray, ...]:
    """What rounding the merged weight to its dtype can do to each output."""
    size = np.abs(c.want()["delta"]) + np.abs(c.W)
    absolute = {
        n: np.abs(v)
        for n, v in c.given.items()
        if isinstance(v, np.ndarray) and v.dtype == np.float64
    }
    there = c.with_given(**{**absolute, c.kind.weight: size})
    return tuple(2 * UNIT[c.dtype] * y for y in there.base())


@law(
    GROUP,
    "The merged weight is W + s B A.",
    "As above, in the weight itself.",
)
def merged_weight(s: Any, c: Case) -> Iterator[Check]:
    """weight() after merge against the oracle."""
    layer = s.layer(c)
    layer.merge()
    yield weightlike("W'", layer.weight(), c.want()["merged"], c)


@law(
    GROUP,
    "Unmerging gives the weight and the output back.",
    "Hu et al. 2021, section 4.1: W0 is recovered by subtracting BA.",
)
def unmerge(s: Any, c: Case) -> Iterator[Check]:
    """Merge, unmerge, merge, unmerge: what drifts once drifts twice."""
    layer = s.layer(c)
    for _ in range(2):
        layer.merge()
        layer.unmerge()
    yield from merged_outputs(layer.forward(*c.inputs), c)
    yield weightlike("W", layer.weight(), c.W, c)


@law(
    GROUP,
    "Several adapters may be merged in any order.",
    "Addition commutes; an update that is computed from a weight that holds another "
    "one does not.",
    layers=("linear", "embedding", "conv1d", "conv2d"),
)
def merge_order(s: Any, c: Case) -> Iterator[Check]:
    """Two adapters, both orders, then back to the base."""
    if len(c.adapters) < 2 or c.use_dora:
        return
    want = c.W + c.want()["delta"] + c.want(1)["delta"]
    for order in ((0, 1), (1, 0)):
        layer = s.layer(c, 2)
        layer.merge(*order)
        yield weightlike(f"W' in the order {order}", layer.weight(), want, c, 2)
        layer.unmerge()
        yield weightlike(f"W again after {order}", layer.weight(), c.W, c, 2)


@law(
    GROUP,
    "Other operations that claim to keep the adapter's effect keep it.",
    "Adding, deleting, swapping, converting and reloading adapters are where weights "
    "are edited by tools.",
)
def kept_effect(s: Any, c: Case) -> Iterator[Check]:
    """Each of the subject's operations on a layer of its own; within 64 roundings in
    float32 beside the dtype's own, since a conversion may pass through an SVD."""
    many = min(2, len(c.adapters))
    want = c.outputs(c.want())[0]
    size = float(np.abs(want).max(initial=0)) + 1.0
    limit = 64 * (c.r + terms(c)) * UNIT["float32"] * size + 2 * rounding(c)[0]
    for operation in s.layer(c, many).operations():
        layer = s.layer(c, many)
        layer.apply(operation)
        got = outputs(layer.forward(*c.inputs))[0]
        yield Check(f"y after {operation}", got, want, limit)
