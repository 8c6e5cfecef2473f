"""What several laws need: outputs as tuples, a fixed larger layer, named gradients."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from lora_np.reference.conformance.case import Adapter, Array, Case
from lora_np.reference.conformance.check import Check, close, rounding

ROUNDING = ("float32", "float16", "bfloat16")


def outputs(y: Any) -> tuple[Any, ...]:
    """One output or several, always as a tuple."""
    return y if isinstance(y, tuple) else (y,)


def same_outputs(
    got: Any, want: Any, case: Case, exact: bool = True, label: str = "y"
) -> Iterator[Check]:
    """Every output against its own; in a rough dtype within the derived bound."""
    wanted, found = outputs(want), outputs(got)
    if len(found) != len(wanted):
        yield Check(label, f"{len(found)} outputs", f"{len(wanted)} outputs")
        return
    limits = rounding(case) if case.dtype != "float64" else (None,) * len(wanted)
    for i, (g, w, limit) in enumerate(zip(found, wanted, limits, strict=True)):
        name = label if len(wanted) == 1 else f"{label}{i}"
        if limit is None:
            yield close(name, g, w, case, exact)
        else:
            yield Check(name, g, w, limit if np.shape(limit) == np.shape(w) else 0.0)


def named(grads: dict[str, Any]) -> dict[str, Array]:
    """The gradients that a subject returned, without those that are None."""
    return {n: g for n, g in grads.items() if g is not None}


def larger(case: Case, inside: int = 64, outside: int = 48, r: int = 8) -> Case:
    """The same kind of layer in a fixed size, large enough for a histogram."""
    rng = np.random.default_rng(0)
    if case.layer == "embedding":
        given = {"ids": np.arange(5), "E": rng.normal(size=(inside, outside))}
    else:
        given = {
            "x": rng.normal(size=(5, inside)),
            "W": rng.normal(size=(outside, inside)),
            "b": None,
        }
    A, B = rng.normal(size=(r, inside)), rng.normal(size=(outside, r))
    factors = {"A": A, "B": B}
    if case.use_dora:
        factors["m"] = np.ones(outside)
    adapter = Adapter(factors, r, 2.0 * r)
    return replace(
        case, given=given, adapters=(adapter,), dy=rng.normal(size=(5, outside))
    )
