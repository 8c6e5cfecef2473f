"""Comparing one result with what is wanted: container, types, shapes, numbers.

Nothing here raises for what an answer returned: it may be anything.
"""

import numbers
from typing import Any

import numpy as np

from lora_np.exercises.exercise import Law, as_tuple
from lora_np.exercises.worker import Strange

Difference = tuple[str, str, list[str]]  # kind, sentence, outputs

DYADIC = 1024  # fractions of whole numbers by this are exact in any order of sums


def wrong_container(value: Any, count: int, names: tuple[str, ...]) -> str:
    """A sentence where the result is not `count` outputs or holds no numbers."""
    listed = ", ".join(names[:count])
    if value is None:
        return f"nothing was returned (None): is `return {listed}` missing?"
    if count > 1:
        if not isinstance(value, tuple):
            kind = kind_of(value)
            return f"returned {kind}; return a tuple of {count}: {listed}"
        if len(value) != count:
            return f"returned {len(value)} values; return {count}: {listed}"
    elif isinstance(value, tuple):
        return f"returned a tuple of {len(value)}; return {listed} itself"
    for name, part in zip(names, as_tuple(value)):
        if isinstance(part, Strange):
            return f"{name} is {kind_of(part)}, of which no number can be read"
        if not isinstance(part, list | dict) and np.iscomplexobj(part):
            return f"{name} is complex; the inputs are real"
    return ""


def kind_of(value: Any) -> str:
    if isinstance(value, Strange):
        article = "an" if value.type_name[:1] in "aeiou" else "a"
        return f"{article} {value.type_name}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    return f"a {type(value).__name__}"


def difference(
    law: Law, names: tuple[str, ...], got: tuple, want: tuple, judged: str | None
) -> Difference | None:
    """The first thing wrong: types, shapes, finite numbers, dtype, values.

    want: of the same kind as what must come out; where a law judges (judged is its
    sentence, or ""), only of that kind.
    """
    pairs = list(zip(names, got, want, strict=True))
    if judged is not None:
        return ("values", judged, list(names)) if judged else None
    for find in (_shapes, _infinite, _dtypes):
        if found := find(law, pairs):
            return found
    bad = [n for n, y, w in pairs if not equal(y, w, law)]
    return ("values", in_words(law.says, bad), bad) if bad else None


def kinds(names: tuple[str, ...], got: tuple, want: tuple) -> Difference | None:
    """The first output that is of another kind than wanted."""
    for name, y, w in zip(names, got, want, strict=True):
        if complaint := wrong_type(name, y, w):
            return "result", complaint, [name]
    return None


def _shapes(law: Law, pairs: list) -> Difference | None:
    arrays = [p for p in pairs if not isinstance(p[2], list | dict | str)]
    bad = [n for n, y, w in arrays if np.shape(y) != np.shape(w)]
    if not bad:
        return None
    return "shape", in_words("{arrays} has the wrong shape.", bad), bad


def _infinite(law: Law, pairs: list) -> Difference | None:
    bad = [n for n, y, w in pairs if isinstance(w, np.ndarray | float)
           and np.isfinite(w).all() and not np.isfinite(y).all()]  # fmt: skip
    says = "{arrays} is not finite: "
    return ("finite", in_words(says + law.says, bad), bad) if bad else None


def _dtypes(law: Law, pairs: list) -> Difference | None:
    """Another floating-point type than that of the inputs, which are float64."""
    bad = [n for n, y, w in pairs if isinstance(w, np.ndarray | float)
           and getattr(w, "dtype", np.dtype(float)) == np.float64
           and isinstance(y, np.ndarray | np.generic)
           and y.dtype.kind == "f" and y.dtype != np.float64]  # fmt: skip
    if not bad:
        return None
    dtype = next(y.dtype for n, y, w in pairs if n == bad[0])
    says = f"{{arrays}} is {dtype}; the inputs are float64, and so must the result be"
    return "dtype", in_words(says, bad), bad


def in_words(law: str, arrays: list[str]) -> str:
    """A law in words with the names of the arrays, in the plural where there are more.

    >>> in_words("{arrays} is wrong", ["dx"]), in_words("{arrays} is wrong", ["a", "b"])
    ('dx is wrong', 'a and b are wrong')
    """
    listed = arrays[-1]
    if len(arrays) > 1:
        listed = f"{', '.join(arrays[:-1])} and {arrays[-1]}"
        for one, more in (
            ("is", "are"), ("has", "have"), ("does", "do"), ("differs", "differ"),
            ("belongs", "belong"),
        ):  # fmt: skip
            law = law.replace("{arrays} " + one, "{arrays} " + more)
    return law.format(arrays=listed)


def wrong_type(name: str, y: Any, w: Any) -> str:
    """A sentence where an output is of another kind than wanted."""
    if w is None:
        return "" if y is None else f"{name} must be None here, got {kind_of(y)}"
    if y is None:
        return f"{name} is None"
    if isinstance(w, np.ndarray):
        if not isinstance(y, np.ndarray | np.generic):
            return f"{name} is {kind_of(y)}, not a NumPy array"
        if w.dtype.kind == "f" and y.dtype.kind in "iub":
            return f"{name} has dtype {y.dtype}; the inputs are float"
    elif isinstance(w, bool | str):
        if not isinstance(y, type(w) | np.bool_):
            return f"{name} is {kind_of(y)}, expected {kind_of(w)}"
    elif isinstance(w, int | float):
        number = isinstance(y, numbers.Number) and not isinstance(y, bool | np.bool_)
        if not number and not (isinstance(y, np.ndarray) and y.shape == ()):
            return f"{name} is {kind_of(y)}, expected a number"
    elif isinstance(w, list | dict) and not isinstance(y, type(w)):
        return f"{name} is {kind_of(y)}, expected a {type(w).__name__}"
    return ""


def equal(y: Any, w: Any, law: Law) -> bool:
    """Bit for bit where the law is exact on dyadic numbers, else within tolerance."""
    if isinstance(w, dict):
        return isinstance(y, dict) and y.keys() == w.keys() and all(
            equal(y[k], w[k], law) for k in w
        )  # fmt: skip
    if isinstance(w, list):
        return isinstance(y, list) and len(y) == len(w) and all(
            equal(a, b, law) for a, b in zip(y, w)
        )  # fmt: skip
    if w is None or isinstance(w, str | bool):
        return (type(y) is type(w) and y == w) or (isinstance(y, np.bool_) and y == w)
    try:
        y, w = np.asarray(y), np.asarray(w)
        return y.shape == w.shape and _near(y, w, law)
    except (TypeError, ValueError, OverflowError):
        return False  # no numbers


def _near(y: np.ndarray, w: np.ndarray, law: Law) -> bool:
    if w.size == 0:
        return True
    if law.exact and np.array_equal(DYADIC * w, np.round(DYADIC * w)):
        return bool(np.array_equal(y, w))
    with np.errstate(invalid="ignore"):  # inf - inf
        error = float(np.abs(y - w).max())
    return error <= law.tolerance * max(1e-3, float(np.abs(w).max()))
