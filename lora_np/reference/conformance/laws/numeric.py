"""Dtypes, shapes at the edge, and inputs left alone."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from lora_np.reference.conformance.case import Case
from lora_np.reference.conformance.check import Check, close, law
from lora_np.reference.conformance.laws.common import named, outputs, same_outputs

GROUP = "numeric"
ROWS = ("linear", "embedding", "conv1d", "conv2d", "qkv", "tasks")


@law(
    GROUP,
    "The output has the inputs' dtype, and so have the gradients.",
    "A float64 scale that promotes float32; float16 that comes back wider.",
    layers=("linear", "embedding"),
    options=("plain", "float32", "float16"),
)
def dtype(s: Any, c: Case) -> Iterator[Check]:
    """Output; gradients, each in the dtype of its array; the weight after merging."""
    layer = s.layer(c)
    y = np.asarray(layer.forward(*c.inputs))
    yield Check("dtype of y", str(y.dtype), c.dtype)
    grads = named(layer.gradients(c.cast_all(c.dy), *c.inputs))
    inputs = dict(zip(c.kind.inputs, c.inputs, strict=True))
    for name, array in {**inputs, **layer.factors()}.items():
        if name in grads:
            kind = str(np.asarray(array).dtype)
            yield Check(f"dtype of d{name}", str(grads[name].dtype), kind)
    layer.merge()
    yield Check("dtype of W'", str(np.asarray(layer.weight()).dtype), c.dtype)


@law(
    GROUP,
    "No rows give no rows.",
    "The last batch of a shard may be empty.",
    layers=ROWS,
    examples=2,
)
def empty_batch(s: Any, c: Case) -> Iterator[Check]:
    """The shape of the output for zero rows."""
    none = tuple(x[:0] for x in c.inputs)
    y = np.asarray(outputs(s.layer(c).forward(*none))[0])
    want = c.outputs(c.want())[0]
    yield Check("y", y, np.zeros((0, *want.shape[1:])))


@law(
    GROUP,
    "A row alone is as in its batch.",
    "Batch 1 is where squeezes and broadcasts go wrong.",
    layers=ROWS,
)
def one_row(s: Any, c: Case) -> Iterator[Check]:
    """The last row alone."""
    last = tuple(x[-1:] for x in c.inputs)
    alone = c.with_given(**{n: c.given[n][-1:] for n in c.kind.inputs})
    y = s.layer(c).forward(*last)
    yield from same_outputs(y, c.outputs(alone.want()), alone)


@law(
    GROUP,
    "Inputs, factors and the cotangent are left as they were.",
    "An in-place += on a result that is still the caller's array.",
)
def inputs_untouched(s: Any, c: Case) -> Iterator[Check]:
    """After forward and gradients; whatever was changed is named."""
    layer = s.layer(c)
    layer.forward(*c.inputs)
    try:
        layer.gradients(c.cast_all(c.dy), *c.inputs)
    finally:
        found = ", ".join(dict.fromkeys(layer.changed)) or "nothing"
        yield Check("changed in place", found, "nothing")
    for name, array in layer.factors().items():
        if name in c.factors:
            yield Check(name, array, c.cast(c.factors[name]))
    yield close("W", layer.weight(), c.cast(c.W), c)


@law(
    GROUP,
    "A row of DoRA without length gives its bias, and finite gradients.",
    "V / ‖V‖ is 0 / 0 there; dead output rows occur in pruned models.",
    layers=("linear",),
    options=("dora", "fan_in_fan_out dora"),
    examples=2,
)
def zero_row(s: Any, c: Case) -> Iterator[Check]:
    """The first row of W, of B and of m is zero."""
    W, B, m = (c.W.copy(), c.factors["B"].copy(), c.factors["m"].copy())
    W[0], B[0], m[0] = 0.0, 0.0, 0.0
    dead = c.with_given(W=W).with_factors(B=B, m=m)
    layer = s.layer(dead)
    yield from same_outputs(layer.forward(*c.inputs), dead.outputs(dead.want()), dead)
    for name, g in named(layer.gradients(c.dy, *c.inputs)).items():
        found = "finite" if np.isfinite(g).all() else "not finite"
        yield Check("d" + name, found, "finite")


@law(
    GROUP,
    "A NumPy scalar as scale, a float and an integer alpha give the same.",
    "np.float64 promotes float32 where a Python float does not.",
    layers=("linear",),
    options=("float32",),
)
def scale_types(s: Any, c: Case) -> Iterator[Check]:
    """lora_alpha given as np.float64."""
    first = replace(c.adapters[0], lora_alpha=np.float64(c.lora_alpha))
    y = s.layer(replace(c, adapters=(first, *c.adapters[1:]))).forward(*c.inputs)
    yield Check("dtype of y", str(np.asarray(y).dtype), "float32")
    yield from same_outputs(y, c.outputs(c.want()), c)
