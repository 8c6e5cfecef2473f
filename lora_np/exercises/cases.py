"""Inputs for exercises, from two sources with one definition.

Small integers that Hypothesis draws, entry by entry, so that a failing case shrinks to
one that a person can follow by hand; and probes: normal numbers in pairwise different
sizes, on which no two known mistakes give the same answer.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Case = dict[str, Any]
SMALL = 3  # entries lie in -3 … 3


class Cases:
    """Draws sizes, options and arrays for one case.

    integers: a function (low, high) -> int, ends included. rng: a NumPy generator makes
    it a probe; None draws small whole numbers only. number: of the probe, so that
    options take turns.

    >>> a, b, c = Cases.probe(0).sizes(3)
    >>> len({a, b, c})
    3
    >>> Cases(lambda low, high: low).array(1, 2)  # the simplest draw
    array([[1., 1.]])
    """

    def __init__(
        self,
        integers: Callable[[int, int], int],
        rng: np.random.Generator | None = None,
        number: int = 0,
    ):
        self.integers, self.rng, self.number = integers, rng, number
        self._options, self._largest = 0, SMALL

    @classmethod
    def probe(cls, number: int) -> "Cases":
        """The probe with this number: the same arrays on every call."""
        rng = np.random.default_rng([7, number])
        return cls(lambda low, high: int(rng.integers(low, high + 1)), rng, number)

    def sizes(self, count: int, low: int = 1, high: int = 3) -> list[int]:
        """Sizes from `low`; in a probe pairwise different and at least 2."""
        if self.rng is None:
            self._largest = high
            return [self.integers(low, high) for _ in range(count)]
        room = list(range(max(low, 2), max(low, 2) + count + 1))
        return [int(n) for n in self.rng.permutation(room)[:count]]

    def choice(self, options: Sequence[Any]) -> Any:
        """One of the options, the first being the simplest; probes take turns."""
        if self.rng is None:
            return options[self.integers(0, len(options) - 1)]
        self._options += 1
        return options[(self.number + self._options) % len(options)]

    def array(self, *shape: int, low: int = -SMALL, high: int = SMALL) -> np.ndarray:
        """float64: integers in low … high, or standard normal numbers.

        The simplest entry is 1, not 0: where zeros are, a smaller size often hides
        the fault, and shrinking would stop early.
        """
        if self.rng is not None:
            x = self.rng.normal(size=shape)
            return np.abs(x) + 0.3 if low >= 0 else x
        simple = sorted(range(low, high + 1), key=lambda v: (v != 1, abs(v), v < 0))
        return np.array(simple, np.float64)[self._entries(shape, 0, high - low)]

    def _entries(self, shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
        """Integers; as many are drawn as the largest sizes need, and the rest left.

        So a smaller size does not move the entries of other arrays, and Hypothesis can
        lower sizes and entries one by one.
        """
        room = [max(self._largest, n) for n in shape]
        flat = [self.integers(low, high) for _ in range(int(np.prod(room)))]
        return np.array(flat).reshape(room)[tuple(map(slice, shape))]

    def scale(self) -> float:
        """A scale that is not 1: a power of two, so that products stay exact."""
        return self.choice([2.0, 0.5, -4.0] if self.rng is None else [1.7, 0.3, -2.6])

    def ids(self, count: int, size: int) -> np.ndarray:
        """Ids below `size`; in a probe with one repeated."""
        ids = self._entries((count,), 0, size - 1).astype(np.int64)
        if self.rng is not None and count > 1:
            ids[-1] = ids[0]
        return ids

    def mask(self, *shape: int) -> np.ndarray:
        """True and False; in a probe with both."""
        mask = self._entries(shape, 0, 1) == 1
        if self.rng is not None:
            mask.flat[0], mask.flat[-1] = True, False
        return mask
