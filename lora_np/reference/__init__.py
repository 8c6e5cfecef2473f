"""The registry of pairs, problems, wrong implementations, and their agreement.

Loads NumPy and nothing heavier; Hypothesis only inside `strategies`.
"""

from lora_np.reference.agreement import against_tape, check_pair
from lora_np.reference.draw import Draw
from lora_np.reference.registry import PAIRS, Pair, pair
from lora_np.reference.wrong import Wrong
from lora_np.reference.wrong_functional import WRONG as _FUNCTIONAL
from lora_np.reference.wrong_lora import WRONG as _LORA
from lora_np.reference.wrong_systems import WRONG as _SYSTEMS

WRONG: tuple[Wrong, ...] = _FUNCTIONAL + _LORA + _SYSTEMS


def wrong(label: str) -> Wrong:
    """The wrong implementation "pair:name".  Raises KeyError that lists near ones.

    >>> wrong("linear:db_mean").why
    'the mean of dy over the batch instead of the sum'
    """
    for w in WRONG:
        if w.label == label:
            return w
    family = label.split(":")[0]
    near = [w.label for w in WRONG if w.pair == family] or sorted(
        {w.pair for w in WRONG}
    )
    raise KeyError(f"no wrong implementation {label!r}; there are {', '.join(near)}")


__all__ = [
    "PAIRS", "WRONG", "Draw", "Pair", "Wrong", "against_tape", "check_pair", "pair",
    "wrong",
]  # fmt: skip
