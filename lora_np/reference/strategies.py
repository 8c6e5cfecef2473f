"""Hypothesis strategies for the registry's problems (needs hypothesis)."""

from typing import Any

from hypothesis import strategies as st

from lora_np.reference.draw import Draw
from lora_np.reference.registry import Pair


@st.composite
def draws(draw: Any, whole: bool = False) -> Draw:
    """A Draw whose integers come from Hypothesis, so that problems shrink."""
    return Draw(lambda low, high: draw(st.integers(low, high)), whole)


@st.composite
def problems(draw: Any, pair: Pair, whole: bool = False) -> dict[str, Any]:
    """Keyword arguments for `pair.forward`."""
    return pair.problem(draw(draws(whole)))
