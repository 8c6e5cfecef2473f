"""Do the three witnesses agree? Hand pair, tape of primitives, numerical derivative."""

from collections.abc import Callable
from typing import Any

import numpy as np

from lora_np.numerics import Row, certify, compare
from lora_np.reference.draw import Draw
from lora_np.reference.registry import Pair
from lora_np.tape import Tensor

TAPE_LIMIT = 1e-11  # two orders of summation, relative to the array's largest entry


def _outputs(y: Any) -> tuple:
    return y if isinstance(y, tuple) else (y,)


def against_tape(
    pair: Pair, problem: dict[str, Any], rng: np.random.Generator,
    forward: Callable | None = None, backward: Callable | None = None,
) -> list[Row]:  # fmt: skip
    """Output and gradients of the pair against the tape of primitives.

    >>> from lora_np.reference.registry import pair
    >>> p = pair("linear"); d = Draw.seeded(0)
    >>> all(r.passed for r in against_tape(p, p.problem(d), d.generator()))
    True
    """
    f, f_backward = forward or pair.forward, backward or pair.backward
    names = {k.split("_")[0]: k for k in problem}
    leaves = {
        n: Tensor(problem[names[n]], requires_grad=True)
        for n in pair.wrt
        if n in names and problem[names[n]] is not None
    }
    given = problem | {names[n]: t for n, t in leaves.items()}
    want = _outputs(pair.primitive(**given))
    y, cache = f(**problem)
    got = _outputs(y)
    rows = []
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        label = "y" if len(want) == 1 else f"y{i}"
        rows.append(compare(label, "tape", np.asarray(a), b.data, TAPE_LIMIT))
    if any(tuple(a.shape) != b.shape for a, b in zip(got, want, strict=True)):
        return rows  # the output has another shape: no gradient can be compared
    cotangents = [rng.normal(size=t.shape) for t in want]
    total = sum((t * G).sum() for t, G in zip(want, cotangents, strict=True))
    total.backward()
    dy = tuple(cotangents) if isinstance(y, tuple) else cotangents[0]
    grads = dict(zip(pair.wrt, f_backward(dy, cache), strict=True))
    top = max((float(np.abs(t.grad).max()) for t in leaves.values()
               if t.grad is not None and t.grad.size), default=0.0)  # fmt: skip
    for n, t in leaves.items():
        want_grad = t.grad if t.grad is not None else np.zeros(t.shape)
        rows.append(
            compare("d" + n, "tape", grads[n], want_grad, TAPE_LIMIT, 1e-14 * top)
        )
    return rows


def check_pair(
    pair: Pair, draw: Callable[[bool], Draw],
    forward: Callable | None = None, backward: Callable | None = None,
) -> list[Row]:  # fmt: skip
    """All rows of one pair: tape, exact (on integers), complex step and central.

    draw(whole) gives a source of problems.  A wrong implementation that raises gives a
    failed row, because that, too, is a rejection.

    >>> from lora_np.reference.registry import pair
    >>> rows = check_pair(pair("linear"), lambda whole: Draw.seeded(0, whole))
    >>> all(r.passed is not False for r in rows)
    True
    """
    f, f_backward = forward or pair.forward, backward or pair.backward
    replaced = forward is not None or backward is not None
    try:
        with np.errstate(all="ignore" if replaced else "warn"):
            return _check(pair, draw, f, f_backward)
    except Exception as error:
        if not replaced:
            raise
        return [Row("(raised)", "", False, f"{type(error).__name__}: {error}")]


def _check(pair: Pair, draw: Callable, f: Callable, f_backward: Callable) -> list[Row]:
    d = draw(False)
    problem, rng = pair.problem(d), d.generator()
    rows = against_tape(pair, problem, rng, f, f_backward)
    if any(r.array[0] == "y" and r.note.startswith("has shape") for r in rows):
        return rows
    reason = (
        pair.exact if isinstance(pair.exact, str) else "see the whole-number problem"
    )
    rows += certify(
        f, f_backward, problem, rng=rng, wrt=pair.wrt, exact=reason,
        analytic=pair.analytic,
    ).rows  # fmt: skip
    if isinstance(pair.exact, str):
        return rows
    rows = [r for r in rows if r.method != "exact"]
    whole = draw(True)
    problem = pair.problem(whole)
    off = "on the other problem"
    exact = certify(
        f, f_backward, problem, rng=whole.generator(), wrt=pair.wrt, exact=pair.exact,
        analytic=off, central=off,
    ).rows  # fmt: skip
    return rows + [r for r in exact if r.method == "exact" or not r.method]
