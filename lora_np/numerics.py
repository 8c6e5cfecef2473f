"""How a derivative is certified: three numerical methods, and a report for each array.

The loss is L = Σ_k ⟨G_k, y_k⟩ over the outputs y_k, with a random cotangent G_k, so one
number depends on every output entry. Each entry of each input is then moved:

exact    by 1 and 2. Where L is linear in that entry this has no truncation error, and
         with small integers and power-of-two scales no rounding either: the comparison
         is `array_equal`.
complex  by ih, h = 1e-30. Nothing is subtracted, so nothing cancels: about 1e-16 for
         analytic functions (Squire & Trapp 1998).
central  by ±h and ±h/2, extrapolated (Richardson): about 1e-10.

Errors are relative to the array's largest entry (see `report`); the quotients are in
`quotients`.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lora_np.backend import get_xp, to_host
from lora_np.quotients import Loss, Quotient, outputs
from lora_np.report import Report, Row, compare

COMPLEX_LIMIT = 1e-13
CENTRAL_LIMIT = 1e-7
LIMITS = {"exact": 0.0, "complex": COMPLEX_LIMIT, "central": CENTRAL_LIMIT}
METHODS = tuple(LIMITS)
__all__ = ["Report", "Row", "certify", "compare"]


def judge(array: str, method: str, got: Any, q: Quotient) -> Row:
    """The row of one array: as `compare`, but for entries at a kink.

    At a kink any value between the slopes on its two sides is a subgradient.
    """
    if q.bent.any():
        at = tuple(int(i[0]) for i in np.nonzero(q.bent))
        note = f"L is not linear in entry {at}; do not declare this input exact"
        return Row(array, method, False, note)
    limit, n = LIMITS[method], int(q.kink.sum())
    if n == 0 or got is None or to_host(got).shape != q.want.shape:
        return compare(array, method, got, q.want, limit, q.floor)
    got = to_host(got)
    low, high = np.minimum(q.left, q.right), np.maximum(q.left, q.right)
    slack = limit * float(np.abs(q.want).max()) + q.floor
    inside = (got >= low - slack) & (got <= high + slack)
    target = np.where(q.kink & inside, got, q.want)
    row = compare(array, method, got, target, limit, q.floor)
    between = "between" if inside[q.kink].all() else "NOT between"
    note = f"{n} of {got.size} at a kink: {between} the two slopes"
    return replace(row, note=note, kinks=n)


def _bind(f: Callable, inputs: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any]:
    if isinstance(inputs, Mapping):
        return dict(inputs)
    parameters = list(inspect.signature(f).parameters)
    if len(inputs) > len(parameters):
        raise ValueError(f"{len(inputs)} inputs for {len(parameters)} parameters of f")
    return dict(zip(parameters, inputs, strict=False))


def _resolve(names: Sequence[str], f: Callable, inputs: dict, option: str) -> list[str]:
    """Full parameter names for full or short ones; "" for an input that is left out.

    Raises ValueError for a name that is no parameter of f: it would check nothing.
    """
    known = list(inspect.signature(f).parameters)
    short = {p.split("_")[0]: p for p in [*known, *inputs]}
    found = []
    for n in names:
        full = n if n in inputs or n in known else short.get(n)
        if full is None:
            raise ValueError(
                f"{option} names {n!r}, which is no input of the function; it has "
                f"{', '.join(known)}"
            )
        found.append(full if inputs.get(full) is not None else "")
    return found


def _names(f: Callable, inputs: dict, wrt: Sequence[str] | None) -> list[str]:
    """The differentiated inputs, in the order of the backward's gradients."""
    if wrt is None:
        wrt = getattr(f, "wrt", None) or [
            p for p, v in inputs.items() if getattr(v, "dtype", None) == np.float64
        ]
    if not wrt:
        raise TypeError("no float64 array among the inputs: nothing to certify")
    return _resolve(wrt, f, inputs, "wrt")


def _check_inputs(inputs: dict, names: list[str], exact: list[str]) -> None:
    for name in filter(None, names):
        x = inputs[name]
        if getattr(x, "dtype", None) != np.float64:
            kind = getattr(x, "dtype", type(x).__name__)
            raise TypeError(
                f"certification needs float64 arrays, {name} is {kind}; "
                "at lower precision a difference quotient is mostly rounding"
            )
        if name in exact and not np.array_equal(to_host(x), np.round(to_host(x))):
            raise ValueError(
                f"the exact method needs whole numbers, {name} has others; draw "
                "it with rng.integers, or leave it out of `exact`"
            )


def _cotangents(y: Any, rng: np.random.Generator, whole: bool) -> tuple:
    def draw(shape: tuple) -> np.ndarray:
        if whole:
            return rng.integers(1, 4, shape) * rng.choice([-1.0, 1.0], shape)
        return rng.normal(size=shape)

    return tuple(draw(tuple(part.shape)) for part in outputs(y))


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
    Raises: TypeError for arrays that are not float64, ValueError for names that are no
    inputs, or other than whole numbers where the exact method is declared.
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
    if isinstance(exact, str) and exact in inspect.signature(f).parameters:
        raise ValueError(f"exact must be a tuple of names or a sentence, got {exact!r}")
    linear = [] if isinstance(exact, str) else _resolve(exact, f, bound, "exact")
    _check_inputs(bound, names, linear)
    before = {n: to_host(v).copy() for n, v in bound.items() if hasattr(v, "dtype")}
    y, cache = f(**bound)
    G = _cotangents(y, rng, whole=not isinstance(exact, str))
    dy = [get_xp(p).asarray(g.copy()) for g, p in zip(G, outputs(y), strict=True)]
    got = f_backward(tuple(dy) if isinstance(y, tuple) else dy[0], cache)
    got = got if isinstance(got, tuple) else (got,)
    if len(got) != len(names):
        raise ValueError(
            f"the backward returned {len(got)} gradients for {len(names)} inputs "
            f"({', '.join(n or '?' for n in names)})"
        )
    rows = [
        Row(n, "", False, "was changed in place")
        for n, x in before.items()
        if not np.array_equal(x, to_host(bound[n]))
    ]
    if any(not np.array_equal(to_host(d), g) for d, g in zip(dy, G, strict=True)):
        rows.append(Row("dy", "", False, "the backward changed it in place"))
    loss = Loss(f, bound, G)
    for name, d in zip(names, got, strict=True):
        if name:
            applies = (exact if not linear else name in linear, analytic, central)
            rows += _rows(loss, name, d, applies)
    return Report(tuple(rows))


def _rows(loss: Loss, name: str, got: Any, applies: tuple) -> list[Row]:
    """One row for each method; `applies` has True or the reason why not for each."""
    array, rows = "d" + name.split("_")[0], []
    measure = (loss.exact, loss.complex_step, loss.central)
    for method, use, quotient in zip(METHODS, applies, measure, strict=True):
        if use is True:
            rows.append(judge(array, method, got, quotient(name)))
        else:
            reason = use if isinstance(use, str) else "not linear in this input"
            rows.append(Row(array, method, None, reason))
    return rows
