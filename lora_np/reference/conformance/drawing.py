"""Drawing a case of one column of the matrix, from any source of integers.

Hypothesis's integers make it shrink; a NumPy generator's make the golden vectors.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from lora_np.reference.conformance.case import (
    KINDS,
    OPTIONS,
    Adapter,
    Array,
    Case,
    Kind,
    to_dtype,
)
from lora_np.reference.draw import Draw


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
    if set(factors) == {"A", "B"} and layer not in ("tied", "tasks"):
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
        p=d.choice([0.25, 0.75]) if option == "dropout" else 0.0,
        dtype=dtype,
        whole=d.whole,
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
