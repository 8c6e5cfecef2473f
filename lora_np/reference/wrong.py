"""Wrong implementations, kept: what each check must reject. The vocabulary.

A Wrong replaces a pair's forward, its backward, or both; `why` says the slip in a line.
The catalogue itself is in `wrong_functional` and `wrong_lora`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Wrong:
    """One wrong implementation of one pair."""

    pair: str
    name: str
    why: str
    forward: Callable | None = None
    backward: Callable | None = None

    @property
    def label(self) -> str:
        """pair:name, as the command line takes it."""
        return f"{self.pair}:{self.name}"


class Catalogue:
    """Collects the wrong implementations of several pairs."""

    def __init__(self) -> None:
        self.items: list[Wrong] = []

    def add(self, pair: str, name: str, why: str, **replaced: Callable) -> None:
        """One more; `forward=` and `backward=` replace the pair's own."""
        self.items.append(Wrong(pair, name, why, **replaced))


def edit(forward: Callable, backward: Callable, /, **edits: Callable) -> Callable:
    """A backward that is right but for the named gradients.

    edits: short name -> function(right gradient, dy, cache) giving the wrong one.

    >>> from lora_np.functional import linear, linear_backward
    >>> wrong = edit(linear, linear_backward, b=lambda g, dy, c: 0 * g)
    >>> _, cache = linear(np.ones((2, 3)), np.ones((4, 3)), np.ones(4))
    >>> wrong(np.ones((2, 4)), cache)[2]
    array([0., 0., 0., 0.])
    """
    names = forward.wrt  # type: ignore[attr-defined]

    def wrong(dy: Any, cache: Any) -> tuple:
        grads = dict(zip(names, backward(dy, cache), strict=True))
        for name, change in edits.items():
            if grads[name] is not None:
                grads[name] = change(grads[name], dy, cache)
        return tuple(grads.values())

    return wrong


def scaled(factor: float) -> Callable:
    """An edit that multiplies the gradient.

    >>> scaled(2.0)(3.0, None, None)
    6.0
    """
    return lambda g, dy, cache: g * factor


def first_row(g: np.ndarray, dy: np.ndarray, cache: Any) -> np.ndarray:
    """An edit: the gradient of a bias from the first row alone.

    >>> first_row(None, np.array([[1.0], [2.0]]), None)
    array([1.])
    """
    return dy[0]


def mean_over_rows(g: np.ndarray, dy: np.ndarray, cache: Any) -> np.ndarray:
    """An edit: the mean over the batch where the sum belongs.

    >>> mean_over_rows(np.array([4.0]), np.ones((2, 1)), None)
    array([2.])
    """
    return g / dy.shape[0]


def transposed(g: np.ndarray, dy: Any, cache: Any) -> np.ndarray:
    """An edit: the transpose.

    >>> transposed(np.ones((2, 3)), None, None).shape
    (3, 2)
    """
    return g.T
