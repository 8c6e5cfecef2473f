"""Hypothesis strategies for the registry's problems and the laws' cases.

Needs hypothesis. Both shrink to small whole numbers that a person can follow.
"""

from typing import Any

from hypothesis import strategies as st

from lora_np.reference.conformance.case import COLUMNS, Case
from lora_np.reference.conformance.drawing import CaseDraw, draw_case
from lora_np.reference.draw import Draw
from lora_np.reference.registry import Pair

_ROUGH = ("float32", "float16", "bfloat16")  # these round, so the entries must not fit
_SMOOTH = ("attention", "lstm")  # these saturate: their entries are quarters


@st.composite
def draws(draw: Any, whole: bool = False) -> Draw:
    """A Draw whose integers come from Hypothesis, so that problems shrink."""
    return Draw(lambda low, high: draw(st.integers(low, high)), whole)


@st.composite
def problems(draw: Any, pair: Pair, whole: bool = False) -> dict[str, Any]:
    """Keyword arguments for `pair.forward`."""
    return pair.problem(draw(draws(whole)))


@st.composite
def cases(draw: Any, layer: str = "", option: str = "") -> Case:
    """A LoRA layer with inputs, two further adapters and a cotangent.

    layer and option name a column of `COLUMNS`; left out, any one is drawn. Sizes
    differ by preference and are equal one time in four; r = 1, r > min(in, out) and
    repeated ids occur; lora_alpha is never r, B is never 0.
    """
    if not layer:
        layer, option = draw(st.sampled_from(COLUMNS))

    def many(count: int, low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=count, max_size=count))

    def integers(low: int, high: int) -> int:
        return draw(st.integers(low, high))

    whole, fraction = form(layer, option)
    if whole and integers(0, 3) == 3:  # whole numbers hide what float32 would lose
        whole, fraction = False, 7.0
    return draw_case(layer, option, CaseDraw(integers, many, whole, fraction))


def form(layer: str, option: str) -> tuple[bool, float]:
    """(whole numbers?, what entries are divided by) in a column.

    >>> form("linear", "plain"), form("linear", "float16")
    ((True, 1.0), (False, 7.0))
    """
    if option in _ROUGH:
        return False, 7.0
    return layer not in _SMOOTH, 4.0 if layer in _SMOOTH else 1.0
