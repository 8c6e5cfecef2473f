"""What was computed instead: a known mistake, a constant ratio, a transpose, a swap.

Decided on probes (normal numbers, pairwise different sizes), where two different
formulas do not give the same numbers by accident.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from lora_np.exercises.cases import Case
from lora_np.exercises.exercise import Exercise, Mistake, as_tuple, probes

CLOSE = 1e-7  # the same formula in another order of sums stays far below


def alike(a: Any, b: Any) -> bool:
    """Equal in kind and shape, and in values up to rounding; NaN equals NaN.

    >>> alike(np.ones(2), np.ones(2) + 1e-12), alike(np.ones(2), np.ones((1, 2)))
    (True, False)
    """
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(alike(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(alike(x, y) for x, y in zip(a, b))
    if a is None or b is None:
        return a is None and b is None
    if isinstance(a, str) and isinstance(b, str):
        return a == b
    other = str | dict | list | tuple
    if isinstance(a, other) or isinstance(b, other) or np.shape(a) != np.shape(b):
        return False
    try:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    except (TypeError, ValueError, OverflowError):
        return False
    top = np.abs(b[np.isfinite(b)]).max(initial=1e-15)
    return bool(np.isclose(a, b, rtol=0, atol=CLOSE * top, equal_nan=True).all())


class Observed:
    """An answer's outputs on the probes; None where it raised.

    Stops at `end` (of time.monotonic) or at the first trouble; trouble: what that was.
    """

    def __init__(self, exercise: Exercise, answer: Any, end: float):
        self.outputs: list[tuple | None] = []
        self.trouble: Any = None
        self.complete = True
        for case in probes(exercise):
            if time.monotonic() > end:
                self.complete = False
                break
            self.outputs.append(self._call(exercise, answer, case))
            if self.trouble and self.trouble.type in ("stopped", "ended"):
                self.complete = False
                break
        self.cases = probes(exercise)[: len(self.outputs)]

    def _call(self, exercise: Exercise, answer: Any, case: Case) -> tuple | None:
        found: list[Any] = []
        for function in exercise.functions:
            inputs = {p: case[p] for p in exercise.parameters(function)}
            outcome = answer.call(function.__name__, inputs)
            if outcome.trouble:
                self.trouble = self.trouble or outcome.trouble
                return None
            found += as_tuple(outcome.value)
        return tuple(found)


def diagnose(
    exercise: Exercise, seen: Observed
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(names of mistakes, sentences) for what the answer computed instead."""
    if not seen.complete:
        return (), ()
    got, cases = seen.outputs, seen.cases
    right = [right_answer(exercise, case) for case in cases]
    wrong = {
        m: [_mistaken(m, case, r) for case, r in zip(cases, right)]
        for m in exercise.mistakes
    }
    for m, theirs in wrong.items():
        if all(alike(_seen(exercise, a), _seen(exercise, b))
               for a, b in zip(got, theirs)):  # fmt: skip
            return (m.name,), (f"You computed {m.says}.",)
    if exercise.found or exercise.want is None:
        return (), ()  # it would find the bug; there is more than one right answer
    named, sentences = _by_output(exercise, got, right, wrong, cases)
    return tuple(dict.fromkeys(named)), tuple(dict.fromkeys(sentences))


def _by_output(
    exercise: Exercise, got: list, right: list, wrong: dict, cases: tuple
) -> tuple[list[str], list[str]]:
    """As `diagnose`, for each output that is wrong.

    A mistake is named only if every output that it changes is as it says.
    """
    count = len(exercise.returns)

    def agree(outputs: list, i: int) -> bool:
        return all(alike(_at(g, i), _at(o, i)) for g, o in zip(got, outputs))

    changes = {m: [i for i in range(count) if _only(theirs, right, i)]
               for m, theirs in wrong.items()}  # fmt: skip
    fitting = [m for m, theirs in wrong.items()
               if changes[m] and all(agree(theirs, i) for i in changes[m])]  # fmt: skip
    fitting.sort(key=lambda m: -len(changes[m]))
    named: list[str] = []
    sentences: list[str] = []
    for i, output in enumerate(exercise.returns):
        if agree(right, i):
            continue
        found = next((m for m in fitting if i in changes[m]), None)
        mine = [_at(g, i) for g in got]
        good = [_at(r, i) for r in right]
        if found:
            named.append(found.name)
            sentences.append(f"You computed {found.says}.")
        elif sentence := _pattern(output, mine, good, right, exercise, cases):
            sentences.append(sentence)
    return named, sentences


def _seen(exercise: Exercise, outputs: tuple | None) -> tuple | None:
    """The outputs, or what the exercise's `view` makes of them."""
    if exercise.view is None or outputs is None:
        return outputs
    return _quiet(lambda: exercise.view(outputs)) or outputs  # type: ignore[misc]


def _only(theirs: list, right: list, i: int) -> bool:
    """Whether a mistake changes output i."""
    return not all(alike(_at(t, i), _at(r, i)) for t, r in zip(theirs, right))


def _at(outputs: tuple | None, i: int) -> Any:
    return outputs[i] if outputs is not None and i < len(outputs) else None


def right_answer(exercise: Exercise, case: Case) -> tuple:
    """What is wanted; where several answers are right, one of them."""
    if exercise.want is not None:
        return as_tuple(exercise.want(case))
    return _quiet(lambda: exercise.functions[0](**made(case))) or ()


def made(case: Case) -> dict[str, Any]:
    """The case with generators and functions in place of their recipes, and copies."""
    from copy import deepcopy

    from lora_np.exercises.worker import Made

    return {k: v.make() if isinstance(v, Made) else deepcopy(v)
            for k, v in case.items()}  # fmt: skip


def _mistaken(m: Mistake, case: Case, right: tuple) -> tuple | None:
    """A mistake's outputs; further functions of the exercise are right."""
    found = _quiet(lambda: m.compute(made(case)))
    return found and found + right[len(found) :]


def _quiet(compute: Callable[[], Any]) -> tuple | None:
    with np.errstate(all="ignore"):
        try:
            return as_tuple(compute())
        except Exception:  # a mistake that raises on this probe explains nothing
            return None


def _pattern(
    output: str, mine: list, good: list, right: list, exercise: Exercise, cases: tuple
) -> str:
    """A transpose, another output's value, or a constant ratio."""
    arrays = [(a, g) for a, g in zip(mine, good)
              if isinstance(a, np.ndarray) and isinstance(g, np.ndarray)]  # fmt: skip
    if not arrays or len(arrays) != len(mine):
        return ""
    if all(alike(a, g.T) for a, g in arrays) and arrays[0][1].ndim > 1:
        return f"{output} is transposed: return its .T."
    for j, other in enumerate(exercise.returns):
        if other != output and all(alike(a, _at(r, j)) for a, r in zip(mine, right)):
            return f"{output} holds what {other} should: check the order of `return`."
    if any(a.shape != g.shape for a, g in arrays):
        return ""
    found = [_ratio(a, g) for a, g in arrays]
    ratios = [r for r in found if r is not None]
    if len(ratios) < len(found):
        return ""
    if all(np.isclose(r, -1) for r in ratios):
        return f"{output} has the opposite sign."
    for name, values in _scalars(cases).items():
        if all(np.isclose(r, v) for r, v in zip(ratios, values)):
            return f"{output} is {name} times what it should be."
    if np.allclose(ratios, ratios[0]):
        return f"{output} is {ratios[0]:.6g} times what it should be, everywhere."
    listed = ", ".join(f"{r:.4g}" for r in ratios[:3])
    return f"{output} has a constant ratio to the right one on each input: {listed}."


def _ratio(a: np.ndarray, g: np.ndarray) -> float | None:
    """c with a = c g, if there is one."""
    top = np.abs(g).max(initial=0.0)
    if top == 0 or not np.isfinite(a).all():
        return None
    c = float(a.flat[np.abs(g).argmax()] / g.flat[np.abs(g).argmax()])
    return c if alike(a, c * g) and not np.isclose(c, 0.0) else None


def _scalars(cases: tuple) -> dict[str, list[float]]:
    """Names for ratios: scalar inputs, sizes of arrays, and their inverses."""
    found: dict[str, list[float]] = {}
    for key, value in cases[0].items():
        if isinstance(value, float | int) and not isinstance(value, bool):
            found[key] = [float(c[key]) for c in cases]
        elif isinstance(value, np.ndarray):
            for axis in range(value.ndim):
                name = f"{key}.shape[{axis}]"
                found[name] = [
                    float(c[key].shape[axis]) if np.ndim(c[key]) > axis else np.nan
                    for c in cases
                ]
    inverse = {
        f"1/{k}": [1 / v if v else np.nan for v in values]
        for k, values in found.items()
    }
    return {**found, **inverse}
