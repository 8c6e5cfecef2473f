"""Small measures that the documents' tests share."""

import re
from collections.abc import Callable, Mapping

import numpy as np

from lora_np.reference import Draw


def raises(f: Callable, *errors: type[Exception], says: str = "") -> bool:
    """Whether f raises one of the errors (ValueError, TypeError) with these words.

    Another error is passed on: a test that fails for another reason shows nothing.

    >>> raises(lambda: np.ones(2) @ np.ones(3))
    True
    """
    try:
        f()
    except Exception as error:
        if isinstance(error, errors or (ValueError, TypeError)) and says in str(error):
            return True
        raise
    return False


def product(formula: str, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """The product of matrices that a formula writes: names, ᵀ, brackets as one factor.

    So a formula in a sentence is the one that was computed. "(dL/dy)" is a name.
    Raises ValueError where the shapes do not fit, or a factor has no value.

    >>> product("Bᵀ (A x)", {"A": np.eye(2), "B": np.eye(2), "x": np.ones((2, 1))}).T
    array([[1., 1.]])
    """
    out = None
    for factor in re.findall(r"\([^)]*\)ᵀ?|\S+", formula):
        name = factor.removesuffix("ᵀ")
        if name not in values and not name.startswith("("):
            raise ValueError(f"the formula {formula!r} has a factor {name!r}")
        got = values[name] if name in values else product(name[1:-1], values)
        got = got.T if factor != name else got
        out = got if out is None else out @ got
    assert out is not None, formula
    return out


def error(got: np.ndarray, want: np.ndarray) -> float:
    """max |got - want| / max |want|.

    >>> error(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    0.5
    """
    return float(np.abs(got - want).max() / np.abs(want).max())


def distance(got: np.ndarray, want: np.ndarray) -> float:
    """‖got - want‖ / ‖want‖ (Frobenius).

    >>> distance(np.array([3.0, 0.0]), np.array([0.0, 0.0]) + [3.0, 4.0])
    0.8
    """
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def drawn(case: int) -> Callable[[bool], Draw]:
    """Problems of one case, as `reference.check_pair` asks for them.

    >>> drawn(3)(True).whole
    True
    """
    return lambda whole: Draw.seeded(case, whole, case=case)
