"""The laws, by group. Each cites the equation, or the kind of fault that it catches."""

from lora_np.reference.conformance.check import LAWS, Law
from lora_np.reference.conformance.laws import (
    algebra,
    combining,
    files,
    gradient,
    initialisation,
    modes,
    numeric,
)

__all__ = [
    "LAWS",
    "Law",
    "algebra",
    "combining",
    "files",
    "gradient",
    "initialisation",
    "modes",
    "numeric",
]
