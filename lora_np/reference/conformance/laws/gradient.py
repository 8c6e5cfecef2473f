"""Gradients and steps."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from lora_np.reference import oracle
from lora_np.reference.conformance.case import Array, Case
from lora_np.reference.conformance.check import UNIT, Check, close, law
from lora_np.reference.conformance.laws.common import ROUNDING, named, outputs
from lora_np.reference.conformance.protocol import NotOffered

GROUP = "gradient"
FLOAT64 = tuple(
    o
    for o in (
        "plain",
        "rslora",
        "dora",
        "fan_in_fan_out",
        "fan_in_fan_out dora",
        "dropout",
        "strided",
        "dilated",
        "groups",
        "one place",
        "shared heads",
    )
)
STEPPED = ("linear", "embedding", "conv1d", "conv2d")


def wanted(c: Case) -> dict[str, Array]:
    """The oracle's gradients of factors, inputs and bias."""
    result = c.want(dy=c.dy)
    names = [*c.factors, *c.kind.smooth_inputs, "b"]
    return {n: result["d" + n] for n in names if result.get("d" + n) is not None}


@law(
    GROUP,
    "dA, dB and dx (and dm) are the oracle's.",
    "dA = s Bᵀ(dL/dW), dB = s (dL/dW)Aᵀ, dx = dy W + s (dy B) A. Catches a missing "
    "scale or path, a mean instead of the sum, lost repeats.",
)
def by_hand(s: Any, c: Case) -> Iterator[Check]:
    """Whatever the subject returns must be right; factors must be among it."""
    grads = named(s.layer(c).gradients(c.cast_all(c.dy), *c.inputs))
    want = wanted(c)
    top = max((float(np.abs(v).max()) for v in want.values() if v.size), default=0.0)
    for name, right in want.items():
        if name in c.factors and name not in grads:
            yield Check("d" + name, "no gradient", "a gradient")
        elif name in grads:
            yield gradient("d" + name, grads[name], right, c, top)


def gradient(
    name: str, got: Array, want: Array, c: Case, top: float, times: float = 1.0
) -> Check:
    """Exact for whole numbers; in a rough dtype entry by entry within 2 (n + 4)
    roundings of the same expression of absolute values, n the longest sum on its way.

    times: how often the case's gradient is in `want`.
    """
    if c.dtype not in ROUNDING:
        return close(name, got, want, c, exact=True, scale=1e-3 * top)
    size = times * sizes(c)[name]
    return Check(name, got, want, 2 * (longest(c) + 4) * UNIT[c.dtype] * size)


def longest(c: Case) -> int:
    """n: rows, outputs, inputs and ranks that one gradient entry sums over."""
    rows = int(np.prod(np.shape(c.inputs[0])[:1]))
    return rows + sum(c.W.shape) + c.r


def sizes(c: Case) -> dict[str, Array]:
    """The gradients' expressions with every number's absolute value, by "d" + name."""
    absolute = {
        n: np.abs(v)
        for n, v in {**c.given, **c.factors}.items()
        if isinstance(v, np.ndarray) and v.dtype == np.float64
    }
    dy = tuple(map(np.abs, outputs(c.dy)))
    found = c.want(**{**absolute, "s": abs(c.scale())}, dy=dy if len(dy) > 1 else dy[0])
    return {n: v for n, v in found.items() if n[0] == "d" and v is not None}


@law(
    GROUP,
    "The gradient is the derivative of the subject's own forward.",
    "For Σ dy · y, entry by entry. A bilinear layer has no truncation error at step 1; "
    "elsewhere a central difference with step 1e-5 resolves about 1e-9 of the largest "
    "slope, so the limit there is 1e-6.",
    options=FLOAT64,
    examples=2,
)
def own_derivative(s: Any, c: Case) -> Iterator[Check]:
    """Factors only: inputs may be ids, and the laws above see dx."""
    if c.use_dora and c.constant_norm:
        return  # 2402.09353, section 4.3: not the derivative, on purpose
    grads = named(s.layer(c).gradients(c.dy, *c.inputs))
    for name, at in c.factors.items():
        if name not in grads:
            continue
        slopes = np.zeros_like(at)
        h = 1.0 if c.kind.linear else 1e-5
        for place in list(np.ndindex(at.shape))[:12]:
            slopes[place] = slope(s, c, name, place, h)
        rows = list(np.ndindex(at.shape))[:12]
        got = np.array([grads[name][p] for p in rows])
        want = np.array([slopes[p] for p in rows])
        top = float(np.abs(grads[name]).max()) + 1e-3
        yield Check(
            "d" + name,
            got,
            want,
            (1e-11 if c.kind.linear else 1e-6)
            * top
            * (1 + float(abs(want).max()) / top),
        )


def slope(s: Any, c: Case, name: str, place: tuple, h: float) -> float:
    """(L(p + h) - L(p - h)) / 2h of the subject's own forward."""
    ends = []
    for sign in (1.0, -1.0):
        moved = c.factors[name].copy()
        moved[place] += sign * h
        y = outputs(s.layer(c.with_factors(**{name: moved})).forward(*c.inputs))
        dys = outputs(c.dy)
        ends.append(sum((g * part).sum() for g, part in zip(dys, y, strict=True)))
    return (ends[0] - ends[1]) / (2 * h)


@law(
    GROUP,
    "dA = s Bᵀ(dL/dW) and dB = s (dL/dW)Aᵀ, with dL/dW from the forward.",
    "Through W the update and the weight are one matrix; measured by moving entries of "
    "W by 1, which is exact.",
    layers=("linear", "embedding"),
    options=("plain", "rslora", "fan_in_fan_out"),
    examples=2,
)
def through_the_weight(s: Any, c: Case) -> Iterator[Check]:
    """dL/dW entry by entry from the subject's own forward."""
    grads = named(s.layer(c).gradients(c.dy, *c.inputs))
    here = (np.asarray(s.layer(c).forward(*c.inputs)) * c.dy).sum()
    D = np.zeros_like(c.W)
    for place in np.ndindex(D.shape):
        moved = c.W.copy()
        moved[place] += 1.0
        there = c.with_given(**{c.kind.weight: moved})
        D[place] = (np.asarray(s.layer(there).forward(*c.inputs)) * c.dy).sum() - here
    D = D if c.layer == "linear" else D.T
    A, B = c.factors["A"], c.factors["B"]
    for name, want in (("A", c.scale() * B.T @ D), ("B", c.scale() * D @ A.T)):
        if name in grads:
            yield close("d" + name, grads[name], want, c, scale=1.0)


@law(
    GROUP,
    "⟨A, dA⟩ = ⟨B, dB⟩.",
    "Both are the derivative along ΔW; blind to a common factor, so no oracle.",
    layers=("linear", "embedding", "conv1d", "conv2d"),
)
def balance(s: Any, c: Case) -> Iterator[Check]:
    """Euler's identity for a product of two factors."""
    g = named(s.layer(c).gradients(c.cast_all(c.dy), *c.inputs))
    if "A" in g and "B" in g:
        left, right = ((c.factors[n] * g[n].astype(np.float64)).sum() for n in "AB")
        size = sum(float(np.abs(c.factors[n] * g[n]).sum()) for n in "AB")
        unit = UNIT[c.dtype] if c.dtype in ROUNDING else 1e-14
        limit = 2 * (longest(c) + 4) * unit * (size + 1e-300)
        yield Check("⟨A, dA⟩", left, right, limit)


@law(
    GROUP,
    "What is frozen gets no gradient and does not move.",
    "The saving of the method: dW is never formed.",
)
def frozen(s: Any, c: Case) -> Iterator[Check]:
    """No gradient by the weight's name; the weight after two steps, bit for bit."""
    layer = s.layer(c)
    grads = named(layer.gradients(c.cast_all(c.dy), *c.inputs))
    found = "a gradient" if c.kind.weight in grads else "none"
    yield Check(f"d{c.kind.weight}", found, "none")
    if c.layer in STEPPED:
        before = np.array(layer.weight())
        layer.train(c.want()["y"] + 1.0, 2, 0.01, "sgd", *c.inputs)
        yield Check(c.kind.weight, layer.weight(), before, 0.0)


@law(
    GROUP,
    "After two steps from the start everything trainable has moved.",
    "At the first step one gradient is zero (dA has the factor B = 0), at the second "
    "none. Ids that never occurred do not move.",
    layers=STEPPED,
    options=("plain", "rslora", "dora", "fan_in_fan_out", "strided"),
    examples=4,
)
def everything_moves(s: Any, c: Case) -> Iterator[Check]:
    """SGD from the subject's own default start. Where the oracle stands still, a factor
    may; for an embedding, columns of A without a token must."""
    layer = s.fresh(c, s.initialisations(c)[0], 0)
    before = {n: np.array(a) for n, a in layer.factors().items()}
    if any(before[n].shape != a.shape for n, a in c.factors.items()):
        raise NotOffered("factors of another shape: no oracle speaks of them")
    target = c.base()[0] + c.dy
    layer.train(target, 2, 0.05, "sgd", *c.inputs)
    after = layer.factors()
    start = {n: a for n, a in before.items() if n in c.factors}
    want = oracle.steps(
        oracle_of(c),
        {**c.given, **start, "s": c.scale()},
        target,
        2,
        0.05,
        trained=tuple(start),
    )
    for name, first in start.items():
        should = np.any(want[name] != first)
        moved = np.any(after[name] != first)
        if should:
            yield Check(name, "moved" if moved else "did not move", "moved")
        if c.layer == "embedding" and name == "A":
            unseen = np.setdiff1d(np.arange(len(c.W)), c.given["ids"])
            yield Check("A of ids never seen", after["A"][:, unseen], first[:, unseen])


def oracle_of(c: Case) -> Any:
    """The oracle's function for the case, DoRA's norm held as the case says."""
    if not (c.use_dora and c.constant_norm):
        return c.kind.want

    def constant(**given: Any) -> dict:
        V = oracle.linear(given["x"], given["W"], given["A"], given["B"], given["s"])
        norm = np.sqrt((V["merged"] ** 2).sum(1))
        return oracle.dora(**{**given, "norm": norm})

    return constant


@law(
    GROUP,
    "Gradients of two batches, added, are those of the joint batch.",
    "Gradient accumulation; catches overwriting, and a mean inside the layer.",
)
def accumulation(s: Any, c: Case) -> Iterator[Check]:
    """The batch, twice, the second time with another cotangent."""
    dys = outputs(c.dy)
    more = tuple(2 * g for g in dys)
    batches = [
        (c.cast_all(c.dy), *c.inputs),
        (c.cast_all(more if len(more) > 1 else more[0]), *c.inputs),
    ]
    grads = named(s.layer(c).accumulate(batches))
    want = wanted(c)
    top = max((float(np.abs(v).max()) for v in want.values() if v.size), default=0.0)
    for name in c.factors:
        if name in grads and name in want:
            times = 3.0  # dy and 2 dy
            yield gradient(
                "d" + name, grads[name], times * want[name], c, times * top, times
            )


@law(
    GROUP,
    "Computing the forward again in the backward gives the same gradients.",
    "Activation checkpointing; catches dropout drawn anew and a cache used twice.",
)
def checkpointing(s: Any, c: Case) -> Iterator[Check]:
    """Against the oracle's gradients."""
    grads = named(s.layer(c).checkpointed(c.cast_all(c.dy), *c.inputs))
    want = wanted(c)
    top = max((float(np.abs(v).max()) for v in want.values() if v.size), default=0.0)
    for name in c.factors:
        if name in grads and name in want:
            yield gradient("d" + name, grads[name], want[name], c, top)


@law(
    GROUP,
    "Three optimizer steps end where the textbook's do.",
    "SGD, and AdamW (1711.05101) with its bias corrections; rtol 1e-6 for AdamW, since "
    "its first step divides a gradient by its own size.",
    layers=STEPPED,
    options=("plain", "rslora", "dora", "fan_in_fan_out"),
    examples=4,
)
def steps(s: Any, c: Case) -> Iterator[Check]:
    """On half the squared error to a fixed target."""
    target = c.want()["y"] + c.dy
    for optimizer, limit in (("sgd", 1e-9), ("adamw", 1e-6)):
        layer = s.layer(c)
        layer.train(target, 3, 1e-3, optimizer, *c.inputs)
        given = {**c.given, **c.factors, "s": c.scale()}
        want = oracle.steps(
            oracle_of(c), given, target, 3, 1e-3, optimizer, tuple(c.factors)
        )
        after = layer.factors()
        for name in c.factors:
            size = float(np.abs(want[name]).max())
            yield Check(
                f"{name} after 3 steps of {optimizer}",
                after[name],
                want[name],
                limit * size,
            )
