"""Golden vectors: a few hundred cases with answers, for those who run no Python.

The oracle computes the answers. Where the numbers are whole and the layer is bilinear
the limit is 0: every right implementation gives the same bits.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lora_np.reference.conformance.case import COLUMNS, Case
from lora_np.reference.conformance.check import ORDER, UNIT, rounding, whole
from lora_np.reference.conformance.drawing import CaseDraw, draw_case
from lora_np.reference.conformance.exchange import Entry, read, write
from lora_np.reference.strategies import form

FOLDER = Path(__file__).parent.parent / "golden"
EACH = 12  # cases of a column


def golden_case(layer: str, option: str, number: int) -> Case:
    """One case, the same on every machine."""
    column = COLUMNS.index((layer, option))
    rng = np.random.default_rng([2026, column, number])

    def integers(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    def many(count: int, low: int, high: int) -> list[int]:
        return rng.integers(low, high + 1, count).tolist()

    return draw_case(layer, option, CaseDraw(integers, many, *form(layer, option)))


def entries_of(case: Case, name: str) -> Iterator[Entry]:
    """Inputs, options as numbers, and the answers with their limits."""
    for key, value in {**case.given, **case.factors, "s": case.scale()}.items():
        if value is not None:
            yield Entry(key, np.asarray(case.cast(np.asarray(value))), name)
    dys = case.dy if isinstance(case.dy, tuple) else (case.dy,)
    for i, g in enumerate(dys):
        yield Entry("dy" if len(dys) == 1 else f"dy{i}", case.cast(g), name)
    rough = case.dtype != "float64"
    want = case.want(dy=None if rough else case.dy)
    for key, value in want.items():
        if value is None or (rough and key not in ("y", "delta")):
            continue
        limit = 0.0 if whole(case) else ORDER * float(np.abs(value).max())
        if rough and key == "y":
            limit = float(max(b.max() for b in rounding(case)))
        elif rough:
            sizes = {n: np.abs(a) for n, a in case.factors.items()}
            size = case.with_factors(**sizes).want(s=abs(case.scale()))["delta"]
            limit = 2 * (case.r + 4) * UNIT[case.dtype] * float(size.max())
        yield Entry(key, value, name, "want", limit)


def vectors() -> Iterator[Entry]:
    """All cases of all columns."""
    for layer, option in COLUMNS:
        for number in range(EACH):
            name = f"{layer}-{option.replace(' ', '-')}-{number:02d}"
            yield from entries_of(golden_case(layer, option, number), name)


def write_golden(folder: Path = FOLDER) -> int:
    """Write the files; returns the number of cases."""
    count = len(COLUMNS) * EACH
    write(folder, vectors(), {"cases": count, "seed": 2026})
    return count


def differences(folder: Path = FOLDER) -> list[str]:
    """Where recomputed answers leave the limits of the files, in words."""
    kept, _ = read(folder)
    made = list(vectors())
    if [(e.case, e.name) for e in kept] != [(e.case, e.name) for e in made]:
        return ["the index names other arrays than the code"]
    found = []
    for old, new in zip(kept, made, strict=True):
        if old.array.shape != new.array.shape:
            found.append(f"{old.case} {old.name}: shape")
            continue
        off = np.abs(old.array.astype(np.float64) - new.array.astype(np.float64))
        if off.size and float(off.max()) > old.limit:
            found.append(f"{old.case} {old.name}: {float(off.max()):.3g}")
    return found
