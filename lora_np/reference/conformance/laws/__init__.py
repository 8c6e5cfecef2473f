"""The laws, by group. Each cites the equation, or the kind of fault that it catches."""

from lora_np.reference.conformance.check import REGISTERED, Law
from lora_np.reference.conformance.laws import (
    algebra,
    combining,
    files,
    gradient,
    initialisation,
    modes,
    numeric,
)

_ORDER = (initialisation, algebra, gradient, combining, modes, numeric, files)
_GROUPS = [room.GROUP for room in _ORDER]
LAWS: tuple[Law, ...] = tuple(
    sorted(REGISTERED, key=lambda law: _GROUPS.index(law.group))
)

__all__ = ["LAWS", "Law"]
