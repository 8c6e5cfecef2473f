"""How a derivative is certified: three numerical methods, and a report for each array.

The loss is L = Σ_k ⟨G_k, y_k⟩ over the outputs y_k, with a random cotangent G_k, so one
number depends on every output entry. Each entry of each input is then moved:

exact    D = (L(x+1) - L(x-1)) / 2. Where L is linear in that entry this has no
         truncation error, and with small integers and power-of-two scales no rounding
         either: the comparison is `array_equal`.
complex  D = Im L(x + ih) / h with h = 1e-30. Nothing is subtracted, so nothing
         cancels: about 1e-16 for analytic functions (Squire & Trapp 1998).
central  D = (L(x+h) - L(x-h)) / 2h with h = 6e-6 · max(1, |x|): about 1e-10.

Errors are relative to the array's largest entry (see `report`).
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lora_np.backend import get_xp, to_host
from lora_np.report import Report, Row, compare

COMPLEX_LIMIT = 1e-13
CENTRAL_LIMIT = 1e-7
__all__ = ["Report", "Row", "certify", "compare"]
METHODS = ("exact", "complex", "central")
_COMPLEX_H = 1e-30
_CENTRAL_H = float(np.finfo(np.float64).eps) ** (1 / 3)
_KINK = 1e-2  # one-sided slopes further apart than this share of the largest: a kink


class _Problem:
    """L as a function of one entry; everything else is held fixed."""

    def __init__(self, f: Callable, inputs: Mapping[str, Any], cotangents: tuple):
        self.f, self.inputs, self.cotangents = f, dict(inputs), cotangents
        accepts = inspect.signature(f).parameters
        self.options: dict = {"needs": ()} if "needs" in accepts else {}

    def loss(self, name: str, array: np.ndarray) -> Any:
        place = get_xp(self.inputs[name]).asarray
        moved = {**self.inputs, name: place(array)}
        ys = _outputs(self.f(**moved, **self.options)[0])
        terms = zip(self.cotangents, ys, strict=True)
        return sum((to_host(y) * G).sum() for G, y in terms)

    def slopes(self, name: str, h_of: Callable) -> tuple[np.ndarray, np.ndarray]:
        """Left and right difference quotients of every entry."""
        x = to_host(self.inputs[name]).astype(np.float64)
        left, right, here = np.empty_like(x), np.empty_like(x), self.loss(name, x)
        for at in np.ndindex(x.shape):
            for sign, slope in ((-1.0, left), (1.0, right)):
                moved = x.copy()
                moved[at] += sign * h_of(x[at])
                h = moved[at] - x[at]  # the step that was really taken
                slope[at] = (self.loss(name, moved) - here) / h
        return left, right

    def complex_step(self, name: str) -> np.ndarray:
        x = to_host(self.inputs[name]).astype(np.complex128)
        d = np.empty(x.shape)
        for at in np.ndindex(x.shape):
            moved = x.copy()
            moved[at] += 1j * _COMPLEX_H
            d[at] = np.imag(self.loss(name, moved)) / _COMPLEX_H
        return d

    def size(self) -> float:
        ys = _outputs(self.f(**self.inputs, **self.options)[0])
        return sum(
            float(np.abs(to_host(y) * G).sum())
            for G, y in zip(self.cotangents, ys, strict=True)
        )


def _outputs(y: Any) -> tuple:
    return y if isinstance(y, tuple) else (y,)


def _by_differences(
    problem: _Problem, name: str, got: Any, method: str, array: str
) -> Row:
    """`exact` and `central`: both look at the slope on the left and on the right."""
    exact = method == "exact"
    left, right = problem.slopes(
        name, lambda x: 1.0 if exact else _CENTRAL_H * max(1.0, abs(x))
    )
    want = (left + right) / 2
    top = float(np.abs(want).max(initial=0.0))
    gap = np.abs(right - left)
    floor = 0.0 if exact else 8 * np.finfo(float).eps * problem.size() / _CENTRAL_H
    kink = gap > (0 if exact else max(_KINK * top, 4 * floor))
    if not kink.any():
        return compare(array, method, got, want, 0 if exact else CENTRAL_LIMIT, floor)
    return _with_kinks(compare, array, method, got, want, kink, (left, right), floor)


def _with_kinks(
    compare: Callable, array: str, method: str, got: Any, want: np.ndarray,
    kink: np.ndarray, sides: tuple, floor: float,
) -> Row:  # fmt: skip
    """At a kink any value between the slopes is a subgradient; elsewhere as usual."""
    n = int(kink.sum())
    if got is None or to_host(got).shape != want.shape:
        return compare(array, method, got, want, 0)
    got = to_host(got)
    low, high = np.minimum(*sides), np.maximum(*sides)
    slack = CENTRAL_LIMIT * float(np.abs(want).max())
    inside = (got >= low - slack) & (got <= high + slack)
    target = np.where(kink & inside, got, want)
    limit = 0 if method == "exact" else CENTRAL_LIMIT
    row = compare(array, method, got, target, limit, floor)
    note = f"{n} of {want.size} at a kink: {'' if inside[kink].all() else 'NOT '}"
    note += "between the two slopes"
    return Row(**{**row.__dict__, "note": note, "kinks": n})


def _bind(f: Callable, inputs: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    if isinstance(inputs, Mapping):
        return dict(inputs)
    return dict(zip(inspect.signature(f).parameters, inputs, strict=False))


def _names(f: Callable, inputs: dict, wrt: Sequence[str] | None) -> list[str]:
    """Parameter names whose short names are differentiated, in `f.wrt`'s order."""
    short = {p.split("_")[0]: p for p in inputs}
    if wrt is None:
        wrt = getattr(f, "wrt", None) or [
            p for p, v in inputs.items() if getattr(v, "dtype", None) == np.float64
        ]
    return [n if n in inputs else short.get(n, "") for n in wrt]


def _check_inputs(inputs: dict, names: list[str]) -> None:
    for name in filter(None, names):
        x = inputs[name]
        if x is not None and getattr(x, "dtype", None) != np.float64:
            kind = getattr(x, "dtype", type(x).__name__)
            raise TypeError(
                f"certification needs float64 arrays, {name} is {kind}; "
                "at lower precision a difference quotient is mostly rounding"
            )


def _cotangents(y: Any, rng: np.random.Generator, whole: bool) -> tuple:
    def draw(shape: tuple) -> np.ndarray:
        if whole:
            return rng.integers(1, 4, shape) * rng.choice([-1.0, 1.0], shape)
        return rng.normal(size=shape)

    return tuple(draw(tuple(part.shape)) for part in _outputs(y))


def certify(
    f: Callable,
    f_backward: Callable,
    inputs: Mapping[str, Any] | Sequence[Any],
    *,
    rng: np.random.Generator,
    wrt: Sequence[str] | None = None,
    exact: Sequence[str] | str = "not declared linear in each entry",
    analytic: bool | str = True,
    central: bool | str = True,
) -> Report:
    """Certify f_backward against f by every method that applies.

    f(**inputs) -> (y, cache), y an array or a tuple of arrays; f_backward(dy, cache) ->
    one gradient or a tuple of them, in the order of `wrt` (default: `f.wrt`, else
    every float64 input).

    Args:
      inputs: name -> value, or the values in the order of f's parameters.
      rng: draws the cotangent (integers where the exact method is to be used).
      exact: the inputs in each entry of which f is linear (or linear on both sides of
        a kink); the inputs must then hold small integers. A sentence: why not.
      analytic: True, or a sentence that says why the complex step does not apply.
      central: True, or a sentence likewise.
    Raises: TypeError for arrays that are not float64.
    Source: Squire & Trapp 1998 (complex step); the thresholds are this module's.

    >>> square = lambda x: (x * x, x)
    >>> rng = np.random.default_rng(0)
    >>> certify(square, lambda dy, x: 2 * x * dy, [np.ones(3)], rng=rng).passed
    True
    >>> certify(square, lambda dy, x: x * dy, [np.ones(3)], rng=rng).passed
    False
    """
    bound = _bind(f, inputs)
    names = _names(f, bound, wrt)
    _check_inputs(bound, names)
    before = {
        n: to_host(bound[n]).copy() for n in filter(None, names) if bound[n] is not None
    }
    y, cache = f(**bound)
    G = _cotangents(y, rng, whole=not isinstance(exact, str))
    place = [get_xp(part).asarray(g) for g, part in zip(G, _outputs(y), strict=True)]
    got = f_backward(tuple(place) if isinstance(y, tuple) else place[0], cache)
    got = got if isinstance(got, tuple) else (got,)
    if len(got) != len(names):
        raise ValueError(
            f"the backward returned {len(got)} gradients for {len(names)} inputs "
            f"({', '.join(n or '?' for n in names)})"
        )
    changed = [n for n, x in before.items() if not np.array_equal(x, to_host(bound[n]))]
    rows = [Row("d" + n, "", False, "the input was changed in place") for n in changed]
    problem = _Problem(f, bound, G)
    for name, d in zip(names, got, strict=True):
        if name and bound[name] is not None:
            rows += _rows(problem, name, d, exact, analytic, central)
    return Report(tuple(rows))


def _rows(
    problem: _Problem, name: str, got: Any, exact: Any, analytic: Any, central: Any
) -> list[Row]:
    short = name.split("_")[0]
    array = "d" + short
    reasons = {"exact": exact, "complex": analytic, "central": central}
    if not isinstance(exact, str):
        linear = short in exact or name in exact
        reasons["exact"] = True if linear else "not linear in this input"
    rows = []
    for method in METHODS:
        if reasons[method] is not True:
            rows.append(Row(array, method, None, str(reasons[method])))
        elif method == "complex":
            want = problem.complex_step(name)
            floor = 1e-15 * problem.size()
            rows.append(compare(array, method, got, want, COMPLEX_LIMIT, floor))
        else:
            rows.append(_by_differences(problem, name, got, method, array))
    return rows
