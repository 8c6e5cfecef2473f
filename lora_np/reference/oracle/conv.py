"""Convolution in any number of dimensions, place of the kernel by place.

B batch · C input, O output channels · R rank · g groups · any spatial axes
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from lora_np.reference.oracle.dense import Array, Result, wide


def _each(value: Any, axes: int) -> tuple[int, ...]:
    return (value,) * axes if np.ndim(value) == 0 else tuple(value)


class Geometry:
    """Which inputs each place of the kernel sees: slices of the padded input."""

    def __init__(self, x: Array, kernel: tuple[int, ...], stride: Any, padding: Any,
                 dilation: Any, groups: int):  # fmt: skip
        axes = len(kernel)
        self.kernel, self.groups = kernel, groups
        self.stride, self.padding, self.dilation = (
            _each(v, axes) for v in (stride, padding, dilation)
        )
        self.inside = tuple(
            n + 2 * p for n, p in zip(x.shape[2:], self.padding, strict=True)
        )
        self.out = tuple(
            (n - d * (k - 1) - 1) // t + 1 for n, d, k, t in
            zip(self.inside, self.dilation, kernel, self.stride, strict=True)
        )  # fmt: skip

    def pad(self, x: Array) -> Array:
        """x with its border of zeros."""
        return np.pad(x, [(0, 0), (0, 0), *((p, p) for p in self.padding)])

    def places(self) -> Iterator[tuple[tuple, tuple]]:
        """(place in the kernel, the slices of the padded input that it meets)."""
        for place in itertools.product(*map(range, self.kernel)):
            slices = tuple(
                slice(i * d, i * d + t * (n - 1) + 1, t) for i, d, t, n in
                zip(place, self.dilation, self.stride, self.out, strict=True)
            )  # fmt: skip
            yield place, (slice(None), slice(None), *slices)

    def blocks(self, channels: int, outputs: int) -> Iterator[tuple[slice, slice]]:
        """(input channels, output channels) of each group."""
        c, o = channels // self.groups, outputs // self.groups
        for g in range(self.groups):
            yield slice(g * c, (g + 1) * c), slice(g * o, (g + 1) * o)

    def forward(self, x: Array, W: Array) -> Array:
        """Σ over the places of the kernel, each a matrix on the channels."""
        padded = self.pad(x)
        y = np.zeros((x.shape[0], W.shape[0], *self.out))
        for place, at in self.places():
            for c, o in self.blocks(x.shape[1], W.shape[0]):
                seen, matrix = padded[at][:, c], W[(o, slice(None), *place)]
                y[:, o] += np.einsum("bc...,oc->bo...", seen, matrix)
        return y

    def weight_gradient(self, x: Array, W: Array, dy: Array) -> Array:
        """dL/dW of `forward`."""
        padded, dW = self.pad(x), np.zeros_like(W)
        for place, at in self.places():
            for c, o in self.blocks(x.shape[1], W.shape[0]):
                seen, back = padded[at][:, c], dy[:, o]
                flat = [a.reshape(*a.shape[:2], -1) for a in (back, seen)]
                dW[(o, slice(None), *place)] = np.einsum("bop,bcp->oc", *flat)
        return dW

    def input_gradient(self, x: Array, W: Array, dy: Array) -> Array:
        """dL/dx of `forward`."""
        padded = np.zeros_like(self.pad(x))
        for place, at in self.places():
            for c, o in self.blocks(x.shape[1], W.shape[0]):
                back = np.einsum(
                    "bo...,oc->bc...", dy[:, o], W[(o, slice(None), *place)]
                )
                padded[at][:, c] += back
        return padded[(slice(None), slice(None), *(
            slice(p, p + n) for p, n in zip(self.padding, x.shape[2:], strict=True)
        ))]  # fmt: skip


def _delta(A: Array, B: Array, s: float, groups: int) -> Array:
    """ΔW_oc… = s Σ_ρ B_oρ A_ρc…, ρ over the ranks of o's group."""
    out, each = B.shape[0] // groups, A.shape[0] // groups
    rows = []
    for o in range(B.shape[0]):
        ranks = A[o // out * each : (o // out + 1) * each]
        rows.append(s * np.tensordot(B[o].ravel(), ranks, 1))
    return np.stack(rows)


def _factor_gradients(D: Array, A: Array, B: Array, s: float, groups: int) -> tuple:
    out, each = B.shape[0] // groups, A.shape[0] // groups
    dA, dB = np.zeros_like(A), np.zeros_like(B)
    for o in range(B.shape[0]):
        for i in range(each):
            rank = o // out * each + i
            dA[rank] += s * B[o, i].item() * D[o]
            dB[o, i] = s * (D[o] * A[rank]).sum()
    return dA, dB


def conv(
    x: Array, W: Array, A: Array, B: Array, s: float, b: Array | None = None,
    stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1,
    mask: Array | None = None, p: float = 0.0, dy: Array | None = None,
) -> Result:  # fmt: skip
    """y = W * x + ΔW * x_d + b, one or more spatial axes

    x (B,C,…)  W (O,C/g,k…)  A (R,C/g,k…)  B (O,R/g,1…)  b (O,)  dy (B,O,…).
    Returns y, delta, merged (as W), dx, db, dA, dB.

    >>> one = np.ones((1, 1, 1))
    >>> conv(one, one, one, one, s=3.0)["y"].item()
    4.0
    """
    x, W, A, B, b, dy = wide(x, W, A, B, b, dy)
    see = Geometry(x, W.shape[2:], stride, padding, dilation, groups)
    keep = np.ones_like(x) if mask is None else np.asarray(mask, np.float64) / (1 - p)
    delta = _delta(A, B, s, groups)
    y = see.forward(x, W) + see.forward(x * keep, delta)
    over = (slice(None), *(None,) * (x.ndim - 2))
    out: Result = {"y": y if b is None else y + b[over], "delta": delta,
                   "merged": W + delta}  # fmt: skip
    if dy is not None:
        D = see.weight_gradient(x * keep, W, dy)
        out["dA"], out["dB"] = _factor_gradients(D, A, B, s, groups)
        out["dx"] = see.input_gradient(x, W, dy)
        out["dx"] = out["dx"] + keep * see.input_gradient(x, delta, dy)
        axes = (0, *range(2, x.ndim))
        out["db"] = None if b is None else dy.sum(axis=axes)
    return out
