"""A JAX function as a subject (needs jax).

    from lora_np.reference.subjects.jax_function import JaxLayer

    def factory(case):
        return JaxLayer(my_lora_linear, case)      # f(x, W, b, A, B, s) -> y

The function's parameters are matched by name with the case's arrays; `s` is the scale,
`r` and `lora_alpha` are there too. Gradients come from jax.vjp.
"""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from lora_np.reference.conformance.case import Array, Case
from lora_np.reference.conformance.protocol import Grads, Layer, NotOffered


class JaxLayer(Layer):
    """f(**arrays), by name; `stop` names arrays that count as frozen beside W."""

    def __init__(self, f: Callable, case: Case):
        try:
            self.jax = importlib.import_module("jax")
        except ImportError:
            raise NotOffered("jax is not installed: pip install jax") from None
        self.jax.config.update("jax_enable_x64", True)
        self.f, self.case = f, case
        self.names = tuple(inspect.signature(f).parameters)
        known = {**case.given, **case.factors, "s": float(case.scale()), "r": case.r,
                 "lora_alpha": float(case.lora_alpha)}  # fmt: skip
        missing = [n for n in self.names if n not in known]
        if missing:
            raise NotOffered(f"{f.__name__} asks for {', '.join(missing)}; a case of "
                             f"{case.layer} has {', '.join(known)}")  # fmt: skip
        self.now = {n: known[n] for n in self.names}

    def _arrays(self, inputs: tuple) -> dict[str, Any]:
        given = {**self.now, **dict(zip(self.case.kind.inputs, inputs, strict=True))}
        place = self.jax.numpy.asarray
        return {
            n: place(self.case.cast(v)) if isinstance(v, np.ndarray) else v
            for n, v in given.items()
        }

    def forward(self, *inputs: Any) -> Any:
        """f of the case's arrays and these inputs."""
        return np.asarray(self.f(**self._arrays(inputs)))

    def gradients(self, dy: Any, *inputs: Any) -> Grads:
        """jax.vjp in the factors, the smooth inputs and the bias."""
        given = self._arrays(inputs)
        wanted = (*self.case.factors, *self.case.kind.smooth_inputs, "b")
        free = {n: given[n] for n in wanted if given.get(n) is not None}
        fixed = {n: v for n, v in given.items() if n not in free}
        _, back = self.jax.vjp(lambda free: self.f(**fixed, **free), free)
        (grads,) = back(self.jax.numpy.asarray(dy))
        return {n: np.asarray(g) for n, g in grads.items()}

    def factors(self) -> dict[str, Array]:
        """As they are in the case's dtype."""
        return {n: self.case.cast(self.now[n]) for n in self.case.factors}

    def weight(self) -> Array:
        """The frozen weight: nothing moves it."""
        return self.case.cast(self.case.W)
