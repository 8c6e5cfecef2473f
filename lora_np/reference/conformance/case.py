"""A case: one LoRA layer with its inputs, in numbers, and what must come out of it.

A column of the matrix is a layer with an option; `drawing` fills it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lora_np.reference import oracle, problems
from lora_np.reference.draw import Draw

Array = np.ndarray


@dataclass(frozen=True)
class Kind:
    """What the laws know of a kind of layer.

    inputs: what forward takes, in order. factors: the trained arrays. weight: the
    frozen array that merging changes. linear: y is linear in each input and factor.
    """

    want: Callable[..., dict[str, Any]]
    problem: Callable[[Draw], dict[str, Any]]
    inputs: tuple[str, ...]
    factors: tuple[str, ...]
    weight: str = "W"
    linear: bool = True
    smooth_inputs: tuple[str, ...] = ("x",)


_PARTS = ("Aq", "Bq", "Ak", "Bk", "Av", "Bv")
KINDS: dict[str, Kind] = {
    "linear": Kind(oracle.linear, problems.lora_linear, ("x",), ("A", "B")),
    "dora": Kind(
        oracle.dora, problems.dora_linear, ("x",), ("A", "B", "m"), linear=False
    ),
    "embedding": Kind(
        oracle.embedding,
        problems.lora_embedding,
        ("ids",),
        ("A", "B"),
        "E",
        smooth_inputs=(),
    ),
    "conv1d": Kind(oracle.conv, problems.lora_conv1d, ("x",), ("A", "B")),
    "conv2d": Kind(oracle.conv, problems.lora_conv2d, ("x",), ("A", "B")),
    "qkv": Kind(oracle.qkv, problems.lora_qkv, ("x",), _PARTS),
    "attention": Kind(
        oracle.self_attention,
        problems.lora_self_attention,
        ("x",),
        (*_PARTS, "Ao", "Bo"),
        linear=False,
    ),
    "tied": Kind(
        oracle.tied,
        problems.lora_tied,
        ("ids", "h"),
        ("A", "B"),
        "E",
        smooth_inputs=("h",),
    ),
    "tasks": Kind(
        oracle.tasks, problems.lora_linear_tasks, ("x", "task"), ("A", "B", "c")
    ),
    "lstm": Kind(
        oracle.lstm,
        problems.lora_lstm,
        ("x", "h", "c"),
        ("Ax", "Bx", "Ah", "Bh"),
        "Wx",
        linear=False,
        smooth_inputs=("x", "h", "c"),
    ),
}

OPTIONS: dict[str, tuple[str, ...]] = {
    "linear": (
        "plain",
        "rslora",
        "dora",
        "fan_in_fan_out",
        "fan_in_fan_out dora",
        "dropout",
        "float32",
        "float16",
        "bfloat16",
    ),
    "embedding": ("plain", "rslora", "float32", "float16"),
    "conv1d": ("plain", "strided", "dilated", "groups"),
    "conv2d": ("plain", "strided", "dilated", "groups", "one place", "float32"),
    "qkv": ("plain", "shared heads", "float32"),
    "attention": ("plain",),
    "tied": ("plain",),
    "tasks": ("plain",),
    "lstm": ("plain",),
}
COLUMNS = tuple((layer, o) for layer, options in OPTIONS.items() for o in options)


@dataclass(frozen=True)
class Adapter:
    """Factors by name, with the rank and lora_alpha that they came with."""

    factors: dict[str, Array]
    r: int
    lora_alpha: float


@dataclass(frozen=True)
class Case:
    """Everything that a law or a subject asks about one layer.

    given: the frozen arrays, the inputs and the geometry, under the oracle's names.
    adapters: the one in use, one of the same rank, one of another rank (where there is
    only one, combining is not asked). dy: a cotangent like the output.
    All arrays are float64 and hold values that `dtype` can hold; whole: integers.
    constant_norm: DoRA's gradient is wanted with the norm held constant.
    """

    layer: str
    option: str
    given: dict[str, Any]
    adapters: tuple[Adapter, ...]
    dy: Any
    p: float = 0.0
    dtype: str = "float64"
    whole: bool = False
    constant_norm: bool = False

    @property
    def kind(self) -> Kind:
        """The kind of layer; DoRA is its own."""
        return KINDS["dora" if self.use_dora else self.layer]

    @property
    def use_dora(self) -> bool:
        """PEFT's option."""
        return "dora" in self.option

    @property
    def use_rslora(self) -> bool:
        """PEFT's option: lora_alpha / sqrt(r)."""
        return self.option == "rslora"

    @property
    def fan_in_fan_out(self) -> bool:
        """The subject stores W transposed; here it is (out, in) all the same."""
        return self.option.startswith("fan_in_fan_out")

    @property
    def r(self) -> int:
        """Rank of the adapter in use."""
        return self.adapters[0].r

    @property
    def lora_alpha(self) -> float:
        """lora_alpha of the adapter in use."""
        return self.adapters[0].lora_alpha

    @property
    def factors(self) -> dict[str, Array]:
        """The trained arrays of the adapter in use."""
        return self.adapters[0].factors

    @property
    def inputs(self) -> tuple[Any, ...]:
        """What forward takes, in the kind's order, in the case's dtype."""
        return tuple(self.cast(self.given[n]) for n in self.kind.inputs)

    @property
    def W(self) -> Array:
        """The frozen weight, (out, in) or (vocabulary, width)."""
        return self.given[self.kind.weight]

    @property
    def b(self) -> Array | None:
        """The bias, or None."""
        return self.given.get("b")

    def scale(self, adapter: int = 0) -> float:
        """s of one of the adapters."""
        a = self.adapters[adapter]
        return oracle.scale(a.lora_alpha, a.r, self.use_rslora)

    def want(self, adapter: int = 0, **changed: Any) -> dict[str, Any]:
        """The oracle's answer, with some of its arguments changed."""
        given = {**self.given, **self.adapters[adapter].factors}
        if self.use_dora and self.constant_norm:
            delta = oracle.linear(
                given["x"], given["W"], given["A"], given["B"], self.scale(adapter)
            )["merged"]
            given["norm"] = np.sqrt((delta**2).sum(1))
        found = self.kind.want(**{**given, "s": self.scale(adapter), **changed})
        if self.layer == "lstm":  # of its two weights the laws look at the first
            found |= {"delta": found["delta_x"], "merged": found["merged_x"]}
        return found

    def outputs(self, result: dict[str, Any]) -> tuple[Array, ...]:
        """The outputs of an answer of the oracle's."""
        return (result["y"],) if "y" in result else (result["y0"], result["y1"])

    def base(self) -> tuple[Array, ...]:
        """The output without an adapter."""
        return self.outputs(self.want(**self.silent()))

    def silent(self) -> dict[str, Any]:
        """Changes under which the oracle computes the base alone."""
        if self.use_dora:
            n = np.sqrt((self.W**2).sum(1))
            return {"B": 0 * self.factors["B"], "m": n, "norm": None}
        off = {n: 0 * a for n, a in self.factors.items() if n[0] == "B" or n == "c"}
        return off

    def with_factors(self, **changed: Any) -> "Case":
        """The same case with other arrays in the adapter in use."""
        first = self.adapters[0]
        new = replace(first, factors={**first.factors, **changed})
        return replace(self, adapters=(new, *self.adapters[1:]))

    def with_given(self, **changed: Any) -> "Case":
        """The same case with other inputs or frozen arrays."""
        return replace(self, given={**self.given, **changed})

    def using(self, adapter: int) -> "Case":
        """The same case with another of its adapters in use."""
        chosen = self.adapters[adapter]
        rest = tuple(a for i, a in enumerate(self.adapters) if i != adapter)
        return replace(self, adapters=(chosen, *rest))

    def cast(self, value: Any) -> Any:
        """A float64 array in the case's dtype (bfloat16's values in float32)."""
        if not isinstance(value, np.ndarray) or value.dtype != np.float64:
            return value
        return value.astype(np.float32 if self.dtype == "bfloat16" else self.dtype)

    def cast_all(self, value: Any) -> Any:
        """`cast` for an array or each of several."""
        if isinstance(value, tuple):
            return tuple(self.cast(v) for v in value)
        return self.cast(value)


def to_dtype(a: Array, dtype: str) -> Array:
    """Rounded to what `dtype` holds, as float64. bfloat16 keeps 8 bits of a float32.

    >>> to_dtype(np.array([1.0 + 2**-9]), "bfloat16")
    array([1.])
    """
    if dtype != "bfloat16":
        return a.astype(dtype).astype(np.float64)
    bits = np.ascontiguousarray(a, np.float32).view(np.uint32)
    even = ((bits >> 16) & 1) + 0x7FFF
    kept = ((bits + even) & np.uint32(0xFFFF0000)).astype(np.uint32)
    return kept.view(np.float32).astype(np.float64)
