"""The three numerical derivatives of L = Σ_k ⟨G_k, y_k⟩ with respect to one input.

exact    slopes of L over steps of 1 and of 2: a line on each side, or an error.
complex  Im L(x + ih) / h, h = 1e-30.
central  c(h) = (L(x+h) - L(x-h)) / 2h with h = 1e-5, twice, extrapolated:
         (4 c(h/2) - c(h)) / 3. A kink shows in the slopes on the left and on the right:
         their gap stays when h is halved, where curvature's halves with it.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lora_np.backend import get_xp, to_host

_COMPLEX_H = 1e-30
_CENTRAL_H = 1e-5
_FINE = 64  # a suspected kink is looked at again with h this much smaller
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Quotient:
    """A numerical derivative: where it stands, and how far it can be trusted.

    kink marks entries whose slopes on the left and on the right differ; bent, entries
    in which L is no line on each side (exact method); floor, the method's resolution.
    """

    want: np.ndarray
    left: np.ndarray
    right: np.ndarray
    kink: np.ndarray
    bent: np.ndarray
    floor: float


class Loss:
    """L as a function of one entry of one input; everything else is held fixed."""

    def __init__(self, f: Callable, inputs: Mapping[str, Any], cotangents: tuple):
        self.f, self.inputs, self.cotangents = f, dict(inputs), cotangents
        accepts = inspect.signature(f).parameters
        self.options: dict = {"needs": ()} if "needs" in accepts else {}

    def terms(self, name: str, array: np.ndarray) -> list[np.ndarray]:
        """G_k · y_k for every output, entry by entry."""
        place = get_xp(self.inputs[name]).asarray
        y = self.f(**{**self.inputs, name: place(array)}, **self.options)[0]
        pairs = zip(self.cotangents, outputs(y), strict=True)
        return [to_host(part) * G for G, part in pairs]

    def at(self, name: str, x: np.ndarray, entry: tuple, step: Any) -> tuple[Any, Any]:
        """L with one entry moved, and the step that was really taken."""
        moved = x.copy()
        moved[entry] += step
        return sum(t.sum() for t in self.terms(name, moved)), moved[entry] - x[entry]

    def exact(self, name: str) -> Quotient:
        """Slopes over 1 and 2 to both sides; for arrays of whole numbers."""
        x = to_host(self.inputs[name]).astype(np.float64)
        here = self.at(name, x, (), 0.0)[0]
        left, right = np.empty_like(x), np.empty_like(x)
        bent = np.zeros(x.shape, bool)
        for e in np.ndindex(x.shape):
            L = {s: self.at(name, x, e, s)[0] for s in (-2.0, -1.0, 1.0, 2.0)}
            left[e], right[e] = here - L[-1.0], L[1.0] - here
            bent[e] = (L[-1.0] - L[-2.0], L[2.0] - L[1.0]) != (left[e], right[e])
        return Quotient((left + right) / 2, left, right, left != right, bent, 0.0)

    def central(self, name: str) -> Quotient:
        """Two central differences, extrapolated; kinks found by the gap that stays."""
        x = to_host(self.inputs[name]).astype(np.float64)
        here = self.terms(name, x)
        size, here = (
            sum(float(np.abs(t).sum()) for t in here),
            sum(t.sum() for t in here),
        )
        h = np.maximum(_CENTRAL_H, 1e-10 * np.abs(x))
        noise = 16 * _EPS * size / _CENTRAL_H

        def slopes(e: tuple, step: float) -> tuple[float, float]:
            (a, da), (b, db) = (self.at(name, x, e, s * step) for s in (-1, 1))
            return (here - a) / -da, (b - here) / db

        want, left, right = np.empty_like(x), np.empty_like(x), np.empty_like(x)
        kink = np.zeros(x.shape, bool)
        for e in np.ndindex(x.shape):
            (l1, r1), (l2, r2) = slopes(e, float(h[e])), slopes(e, float(h[e]) / 2)
            want[e] = (4 * (l2 + r2) / 2 - (l1 + r1) / 2) / 3
            left[e], right[e] = 2 * l2 - l1, 2 * r2 - r1
            if abs(r2 - l2) > max(0.75 * abs(r1 - l1), 2 * noise):
                l3, r3 = slopes(e, float(h[e]) / _FINE)
                kink[e] = abs(r3 - l3) > max(0.75 * abs(r2 - l2), 2 * _FINE * noise)
                if not kink[e]:
                    want[e] = (l3 + r3) / 2  # strong curvature: the smaller step counts
        bent = np.zeros(x.shape, bool)
        return Quotient(want, left, right, kink, bent, noise)

    def complex_step(self, name: str) -> Quotient:
        """Im L(x + ih) / h; its noise is that of the imaginary parts alone."""
        x = to_host(self.inputs[name]).astype(np.complex128)
        want, floor = np.empty(x.shape), 0.0
        for e in np.ndindex(x.shape):
            moved = x.copy()
            moved[e] += 1j * _COMPLEX_H
            parts = [np.imag(t) / _COMPLEX_H for t in self.terms(name, moved)]
            want[e] = sum(t.sum() for t in parts)
            floor = max(floor, 1e-15 * sum(float(np.abs(t).sum()) for t in parts))
        floor += 1e-16 * sum(float(np.abs(G).sum()) for G in self.cotangents)
        none = np.zeros(x.shape, bool)
        return Quotient(want, want, want, none, none, floor)


def outputs(y: Any) -> tuple:
    """The outputs as a tuple, also when there is one.

    >>> outputs(3)
    (3,)
    """
    return y if isinstance(y, tuple) else (y,)
