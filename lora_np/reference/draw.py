"""Drawing test problems: sizes, options and arrays, from any source of integers.

The same problem definition serves Hypothesis (tests) and a plain NumPy generator (the
`check` command): both provide one function, `integers(low, high)`, ends included.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


class Draw:
    """A source of problems.

    whole: arrays hold small integers, none of them 0 (for the exact method); else
    normal numbers. square: True or False forces the square case or forbids it.
    case: the number of the case among several; options then take turns instead of being
    drawn, so that a few cases meet each of them.

    >>> d = Draw.seeded(0); len(set(d.sizes(3))) in (1, 3)
    True
    """

    def __init__(
        self, integers: Callable[[int, int], int], whole: bool = False,
        square: bool | None = None, case: int | None = None,
    ):  # fmt: skip
        self.integers, self.whole, self.square = integers, whole, square
        self.case, self._options = case, 0

    @classmethod
    def seeded(
        cls, seed: int, whole: bool = False, square: bool | None = None,
        case: int | None = None,
    ) -> "Draw":  # fmt: skip
        """Problems from a NumPy generator with this seed."""
        rng = np.random.default_rng([seed, whole])
        integers = lambda low, high: int(rng.integers(low, high + 1))  # noqa: E731
        return cls(integers, whole, square, case)

    def sizes(self, count: int, low: int = 2, high: int = 6) -> list[int]:
        """Pairwise different sizes, or (one time in four) all equal: the square case.

        With different sizes a transposed product raises; with equal ones only its
        values are wrong. Each hides faults that the other shows.
        """
        square = self.integers(0, 3) == 0 if self.square is None else self.square
        if square:
            return [self.integers(low, high)] * count
        room = list(range(low, max(high, low + count) + 1))
        return [room.pop(self.integers(0, len(room) - 1)) for _ in range(count)]

    def choice(self, options: Sequence[Any]) -> Any:
        """One of the options; with a case number each in turn, from another start."""
        if self.case is None:
            return options[self.integers(0, len(options) - 1)]
        self._options += 1
        return options[(self.case + self._options) % len(options)]

    def rank(self, D: int, M: int) -> int:
        """r: 1, something between, or more than min(D, M)."""
        return self.choice([1, 2, 3, min(D, M) + 1])

    def scale(self) -> float:
        """s, never 1 (α ≠ r); a power of two where exactness is wanted, or negative."""
        return self.choice(
            [0.5, 2.0, 4.0, -0.5] if self.whole else [0.5, 1.7, 4.0, -0.3]
        )

    def generator(self) -> np.random.Generator:
        """A NumPy generator with a drawn seed, for contents."""
        return np.random.default_rng(self.integers(0, 2**32 - 1))

    def array(self, *shape: int) -> np.ndarray:
        """float64 contents: integers from ±{1, 2, 3}, or standard normal."""
        rng = self.generator()
        if self.whole:
            return rng.integers(1, 4, shape) * rng.choice([-1.0, 1.0], shape)
        return rng.normal(size=shape)

    def ids(self, count: int, size: int) -> np.ndarray:
        """Ids below `size` with at least one of them repeated (count ≥ 2)."""
        ids = self.generator().integers(0, size, count)
        ids[-1] = ids[0]
        return ids

    def mask(self, *shape: int) -> np.ndarray:
        """A 0/1 mask with at least one of each (for two entries or more)."""
        mask = self.generator().random(shape) < 0.6
        mask.flat[0], mask.flat[-1] = True, False
        return mask
