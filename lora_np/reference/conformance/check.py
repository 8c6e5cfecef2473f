"""Comparing: what a law yields, and how far numbers may differ.

Whole numbers through a bilinear layer are compared exactly. Elsewhere the limit is
relative to the array's largest entry: 1e-11 for two orders of summation in float64
(as for the tape). In float32, float16 and bfloat16 it is entry by entry the bound of
Higham 2002, section 3.1, for a sum of n products with rounding unit u,

    |got - want| ≤ 2 (n + 4) u · (the same expression of absolute values),

n the number of inputs plus r; the factor 2 covers a second rounding of an
intermediate result.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from lora_np.reference.conformance.case import OPTIONS, Array, Case

UNIT = {
    "float64": 2.0**-53,
    "float32": 2.0**-24,
    "float16": 2.0**-11,
    "bfloat16": 2.0**-8,
}
ORDER = 1e-11  # two orders of summation in float64, relative to the largest entry


@dataclass(frozen=True)
class Check:
    """One comparison: got against want, |difference| at most limit."""

    label: str
    got: Any
    want: Any
    limit: Any = 0.0

    def error(self) -> str:
        """What is wrong, in words, or nothing."""
        if isinstance(self.got, str) or isinstance(self.want, str):
            return "" if self.got == self.want else f"got {self.got}, want {self.want}"
        got, want = np.asarray(self.got), np.asarray(self.want)
        if got.shape != want.shape:
            return f"has shape {got.shape}, expected {want.shape}"
        if not np.isfinite(got).all():
            return "is not finite"
        off = np.abs(got.astype(np.float64) - want.astype(np.float64))
        over = off > self.limit
        if not over.any():
            return ""
        at = np.unravel_index(int((off - self.limit).argmax()), off.shape)
        place = list(map(int, at))
        return (
            f"differs by {off[at]:.3g} at {place}"
            if place
            else f"differs by {off[at]:.3g}"
        )


@dataclass(frozen=True)
class Law:
    """A named law with its reason.

    why: the equation or the kind of fault that it catches. layers: the kinds of layer
    it speaks of (all, if empty). examples: how many cases; a law that builds many
    layers takes fewer.
    """

    group: str
    name: str
    says: str
    why: str
    run: Callable[[Any, Case], Iterator[Check]]
    layers: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    examples: int = 16

    @property
    def label(self) -> str:
        """group.name, as the command line takes it."""
        return f"{self.group}.{self.name}"

    def speaks_of(self, layer: str, option: str) -> bool:
        """Whether the law applies to a column."""
        return (not self.layers or layer in self.layers) and (
            not self.options or option in self.options
        )


REGISTERED: list[Law] = []  # `laws` puts them in order


def law(
    group: str,
    says: str,
    why: str,
    layers: tuple[str, ...] = (),
    options: tuple[str, ...] = (),
    examples: int = 16,
) -> Callable:
    """Register a function (subject, case) -> checks as a law."""
    for layer in layers:
        assert layer in OPTIONS, layer

    def register(f: Callable) -> Callable:
        name = f.__name__.replace("_", " ")
        REGISTERED.append(Law(group, name, says, why, f, layers, options, examples))
        return f

    return register


def close(
    label: str,
    got: Any,
    want: Array,
    case: Case,
    exact: bool = False,
    scale: float = 0.0,
) -> Check:
    """A check with the limit that float64 and the case's numbers allow.

    exact: no tolerance where the numbers are whole and the layer bilinear. scale: an
    absolute size below which differences do not count relative to want's own.
    """
    want = np.asarray(want)
    if exact and whole(case):
        return Check(label, got, want, 0.0)
    unit = ORDER * UNIT[case.dtype] / UNIT["float64"]
    size = float(np.abs(want).max()) if want.size else 0.0
    return Check(label, got, want, unit * max(size, scale))


def whole(case: Case) -> bool:
    """Whether every number of the case is whole and every product exact."""
    return (
        case.whole
        and case.kind.linear
        and case.dtype == "float64"
        and not case.use_rslora
        and not case.use_dora
    )


def rounding(case: Case, changed: dict[str, Any] | None = None) -> tuple[Array, ...]:
    """The bound of this module's first lines for each output, entry by entry."""
    absolute = {
        n: np.abs(v)
        for n, v in {**case.given, **case.factors, **(changed or {})}.items()
        if isinstance(v, np.ndarray) and v.dtype == np.float64
    }
    s = abs(case.scale())
    sizes = case.outputs(case.want(**{**absolute, "s": s}))
    return tuple(2 * (terms(case) + 4) * UNIT[case.dtype] * y for y in sizes)


def terms(case: Case) -> int:
    """n: the products that are summed for one output, base and update together."""
    inputs = 1 if case.layer == "embedding" else int(np.prod(case.W.shape[1:]))
    return inputs + case.r
