"""A case: one LoRA layer with its inputs, in numbers, and what must come out of it.

A column of the matrix is a layer with an option. `draw_case` fills it from any source
of integers: Hypothesis (then it shrinks) or a NumPy generator.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
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
    "embedding": ("plain", "rslora", "float32"),
    "conv1d": ("plain", "strided", "dilated", "groups"),
    "conv2d": ("plain", "strided", "dilated", "groups", "one place"),
    "qkv": ("plain", "shared heads"),
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
    All arrays are float64 and hold values that `dtype` can hold.
    """

    layer: str
    option: str
    given: dict[str, Any]
    adapters: tuple[Adapter, ...]
    dy: Any
    p: float = 0.0
    dtype: str = "float64"
    note: dict[str, Any] = field(default_factory=dict)

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
        if self.use_dora and self.note.get("constant_norm"):
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


class CaseDraw(Draw):
    """Draws that shrink: arrays entry by entry, the simplest entry being 1.

    many(count, low, high) gives a list of integers; fraction: what entries are divided
    by (7 makes numbers that every dtype has to round).
    """

    def __init__(
        self,
        integers: Callable[[int, int], int],
        many: Callable[[int, int, int], list[int]],
        whole: bool,
        fraction: float = 1.0,
    ):
        super().__init__(integers, whole)
        self.many, self.fraction = many, fraction

    def sizes(self, count: int, low: int = 2, high: int = 4) -> list[int]:
        """Pairwise different, or (one time in four) all equal."""
        low = min(low, 2)
        if self.integers(0, 3) == 3:
            return [self.integers(low, high)] * count
        room = list(range(low, max(high, low + count) + 1))
        return [room.pop(self.integers(0, len(room) - 1)) for _ in range(count)]

    def array(self, *shape: int) -> Array:
        """Integers from ±{1, 2, 3}, divided by `fraction`."""
        simple = np.array([1.0, -1.0, 2.0, -2.0, 3.0, -3.0]) / self.fraction
        drawn = self.many(math.prod(shape), 0, 5)
        return simple[np.array(drawn, np.int64)].reshape(shape)

    def ids(self, count: int, size: int) -> Array:
        """Ids below `size`, one of them repeated where there are two."""
        ids = np.array(self.many(count, 0, size - 1), np.int64)
        if count > 1:
            ids[-1] = ids[0]
        return ids

    def scale(self) -> float:
        """s: a power of two that is not 1."""
        return self.choice([2.0, 0.5, -2.0, 4.0])


_GEOMETRY = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
_ROUNDED = ("float32", "float16", "bfloat16")


def draw_case(layer: str, option: str, d: CaseDraw) -> Case:
    """A case of one column.  Raises KeyError for a column that does not exist."""
    if option not in OPTIONS[layer]:
        raise KeyError(f"{layer} has no option {option!r}; it has {OPTIONS[layer]}")
    kind = KINDS["dora" if "dora" in option else layer]
    given = _problem(layer, option, kind, d)
    dtype = option if option in _ROUNDED else "float64"
    s, factors = given.pop("s"), {}
    for name in kind.factors:
        if given.get(name) is not None:
            factors[name] = given.pop(name)
        else:
            given.setdefault(name, None)
    r = next(
        a.shape[-2 if layer == "tasks" else 0]
        for n, a in factors.items()
        if n[0] == "A"
    )
    first = Adapter(factors, r, s * r)
    adapters = [first]
    if set(factors) == {"A", "B"} and layer != "tied":
        adapters.append(_another(first, r, d))
        other = r + given.get("groups", 1)
        adapters.append(_another(first, other, d))
    round_ = lambda v: (  # noqa: E731
        to_dtype(v, dtype) if isinstance(v, np.ndarray) and v.dtype == np.float64 else v
    )
    adapters = [
        replace(a, factors={n: round_(f) for n, f in a.factors.items()})
        for a in adapters
    ]
    given = {n: round_(v) for n, v in given.items()}
    case = Case(
        layer,
        option,
        given,
        tuple(adapters),
        None,
        p=0.5 if option == "dropout" else 0.0,
        dtype=dtype,
    )
    shapes = [y.shape for y in case.outputs(case.want())]
    dys = tuple(round_(d.array(*shape)) for shape in shapes)
    return replace(case, dy=dys if len(dys) > 1 else dys[0])


def _problem(layer: str, option: str, kind: Kind, d: CaseDraw) -> dict[str, Any]:
    """The registry's problem under short names, the option forced on it."""
    made = kind.problem(d)
    names = {"key_mask_BS": "key_mask", "kv_heads": "kv_heads"}
    given = {names.get(k, k.split("_")[0]): v for k, v in made.items()}
    given.pop("mask", None), given.pop("p", None)
    if layer in ("conv1d", "conv2d"):
        given = _convolution(layer, option, given, d)
    if layer == "qkv":
        given = _fused(option, given, d)
    return given


def _convolution(layer: str, option: str, given: dict, d: CaseDraw) -> dict:
    """Geometry by option, and A, B of a rank that fits."""
    axes = 2 if layer == "conv2d" else 1
    groups = 2 if option == "groups" else 1
    geometry = dict(_GEOMETRY, groups=groups)
    kernel = tuple(d.choice([2, 1, 3]) for _ in range(axes))
    if option == "one place":
        kernel = (1,) * axes
    if option in ("strided", "dilated"):
        kernel = tuple(d.choice([2, 3]) for _ in range(axes))
    if option == "strided":
        geometry |= {"stride": d.choice([2, 1]), "padding": d.choice([1, 0])}
    if option == "dilated":
        geometry |= {"dilation": 2, "padding": d.choice([0, 1])}
    C, O = groups * d.choice([1, 2]), groups * d.choice([1, 2, 3])
    R = groups * d.choice([1, 2])
    size = tuple(d.choice([5, 6]) for _ in range(axes))
    return {
        "x": d.array(d.choice([1, 2]), C, *size),
        "W": d.array(O, C // groups, *kernel),
        "b": d.array(O) if d.choice([False, True]) else None,
        "A": d.array(R, C // groups, *kernel),
        "B": d.array(O, R // groups, *(1,) * axes),
        "s": given["s"],
        **geometry,
    }


def _fused(option: str, given: dict, d: CaseDraw) -> dict:
    """Equal widths and one r (what loralib has), or fewer key and value columns."""
    if option == "shared heads":
        return {**given, "widths": tuple(given["widths"])}
    N, D = d.sizes(2)
    width, R = d.choice([1, 2, 3]), d.choice([1, 2])
    parts = d.choice(["qkv", "qv", "v", "q", "kv"])
    made: dict[str, Any] = {
        "x": d.array(N, D),
        "W": d.array(3 * width, D),
        "b": None,
        "s": given["s"],
        "widths": (width,) * 3,
    }
    if d.choice([False, True]):
        made["b"] = d.array(3 * width)
    for part in "qkv":
        on = part in parts
        made[f"A{part}"] = d.array(R, D) if on else None
        made[f"B{part}"] = d.array(width, R) if on else None
    return made


def _another(like: Adapter, r: int, d: CaseDraw) -> Adapter:
    """A further adapter on the same layer, of rank r."""
    A, B = like.factors["A"], like.factors["B"]
    per_group = B.shape[1] * r // like.r
    made = {
        "A": d.array(r, *A.shape[1:]),
        "B": d.array(B.shape[0], per_group, *B.shape[2:]),
    }
    return Adapter(made, r, d.scale() * r)
