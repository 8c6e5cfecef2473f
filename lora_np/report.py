"""What a certification found: a row for each array and method, and how rows compare.

Errors are max|got - want| / max|want| of the whole array: entry by entry, a correct
gradient looks wrong wherever an entry happens to be small (chapter 02 shows one).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from lora_np.backend import to_host

ZERO = "both zero within the method's resolution"


@dataclass(frozen=True)
class Row:
    """One array certified by one method; `passed` is None where it does not apply."""

    array: str
    method: str
    passed: bool | None
    note: str = ""
    worst: tuple[int, ...] = ()
    got: float = math.nan
    want: float = math.nan
    absolute: float = math.nan
    relative: float = math.nan
    kinks: int = 0

    def __str__(self) -> str:
        mark = {True: "ok", False: "FAILED", None: "n/a"}[self.passed]
        line = f"{self.array:<10} {self.method:<8} {mark:<7}"
        if not math.isnan(self.absolute):
            line += (
                f" relative {self.relative:8.1e}  absolute {self.absolute:8.1e}"
                f"  worst at {self.worst}: got {self.got:.9g}, want {self.want:.9g}"
            )
        return (line + ("  " + self.note if self.note else "")).rstrip()


@dataclass(frozen=True)
class Report:
    """All rows of one certification.  `passed`: some row passed and none failed."""

    rows: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        return any(r.passed for r in self.rows) and not self.failed

    @property
    def failed(self) -> tuple[Row, ...]:
        return tuple(r for r in self.rows if r.passed is False)

    def row(self, array: str, method: str) -> Row:
        """The row of one array and method."""
        return next(r for r in self.rows if (r.array, r.method) == (array, method))

    def __str__(self) -> str:
        return "\n".join(str(r) for r in self.rows)


def compare(
    array: str, method: str, got: Any, want: np.ndarray, limit: float, floor: float = 0
) -> Row:
    """Compare every entry; limit 0 means bit for bit.

    `floor` is the method's resolution, the smallest difference that it can tell from
    rounding. It is added to the tolerance, and noted where it is the larger part; where
    it exceeds a hundredth of the largest entry the method says nothing (n/a). An array
    that lies below it as a whole counts as zero, and `got` must lie below it too.

    >>> compare("dx", "central", np.array([1.0, 2.0]), np.array([1.0, 2.5]), 1e-7).worst
    (1,)
    """
    if got is None:
        return Row(array, method, False, "no gradient was returned")
    got = to_host(got)
    if got.shape != want.shape:
        slip = "; transposed?" if got.shape == want.shape[::-1] else ""
        note = f"has shape {got.shape}, the input has {want.shape}{slip}"
        return Row(array, method, False, note)
    if want.size == 0:
        return Row(array, method, True, "no entries")
    error = np.abs(got - want)
    if not np.isfinite(got).all():
        at = np.unravel_index(int(np.argmin(np.isfinite(got))), got.shape)
        note = f"is not finite at {tuple(map(int, at))}"
        return Row(array, method, False, note)
    at = np.unravel_index(int(np.argmax(error)), got.shape)
    top, largest = float(np.abs(want).max()), float(error.max())
    relative = largest / top if top > 0 else (0.0 if largest == 0 else math.inf)
    passed: bool | None = largest <= limit * top + floor
    note = ""
    if limit == 0:
        passed = bool(np.array_equal(got, want))
    elif top <= floor:
        passed, note = _both_zero(float(np.abs(got).max()), floor)
    elif floor > 0.01 * top:
        passed, note = None, f"resolves only {floor:.0e} beside a gradient of {top:.0e}"
    elif passed and relative > limit:
        note = f"within the method's resolution {floor / top:.0e}"
    return Row(
        array, method, passed, note, tuple(map(int, at)), float(got[at]),
        float(want[at]), largest, relative,
    )  # fmt: skip


def _both_zero(got: float, floor: float) -> tuple[bool | None, str]:
    """The numerical side is zero within its resolution: is the gradient?"""
    if got <= 1e-3 * floor:
        return True, ZERO
    if got <= floor:
        return None, f"resolves only {floor:.0e}, the gradient is {got:.0e}"
    return False, ""
