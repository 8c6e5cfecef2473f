"""Layers with an adapter beside a frozen base layer.

`base_layer` keeps W and b; `lora_A` (r, in) and `lora_B` (out, r) are trained. While
merged, the base holds W + s B A and the adapter's path is skipped.
"""

import numpy as np

from lora_np.backend import Array, get_xp
from lora_np.functional.dropout import check_rate
from lora_np.lora import (
    delta_weight,
    init_lora,
    init_lora_embedding,
    merge,
    row_norm,
    scaling,
)
from lora_np.nn import ops
from lora_np.nn.layers import Embedding, Linear, Rng, dropout_mask
from lora_np.nn.module import Module, Parameter
from lora_np.tape import Tensor

DORA_DROPOUT = (
    "use_dora with lora_dropout > 0 is not offered: DoRA's magnitude scales base and "
    "update together, so there is no path to drop alone"
)


class LoraLayer(Module):
    """What LoraLinear and LoraEmbedding share: the scale and merging."""

    base_layer: Linear | Embedding
    lora_A: Parameter
    lora_B: Parameter

    def __init__(
        self, base: Linear | Embedding, r: int, lora_alpha: float, lora_dropout: float,
        use_rslora: bool,
    ):  # fmt: skip
        check_rate(lora_dropout)
        self.scaling = scaling(lora_alpha, r, use_rslora)
        self.r, self.lora_alpha, self.p = r, lora_alpha, lora_dropout
        self.base_layer, self.merged = base, False
        base.freeze()

    def _factors(self, A: np.ndarray, B: np.ndarray) -> None:
        xp = get_xp(self.base_layer.weight.data)
        self.lora_A = Parameter(xp.asarray(A))
        self.lora_B = Parameter(xp.asarray(B))

    def delta(self) -> Array:
        """What merging adds to the base's weight, in its shape, float64."""
        return delta_weight(self.lora_A.data, self.lora_B.data, self.scaling)

    def merged_weight(self) -> Array:
        """The base's weight with the update in it; changes nothing.

        Raises RuntimeError if merged already, OverflowError if it does not fit.
        """
        if self.merged:
            raise RuntimeError("the adapter is merged already; unmerge it first")
        return merge(self.base_layer.weight.data, self.delta())

    def merge(self, weight: Array | None = None) -> None:
        """Put the update into the base's weight (or the given merged weight)."""
        self.base_layer.weight.data = self.merged_weight() if weight is None else weight
        self.merged = True

    def before_load(self) -> None:
        """Refuse a state while merged: the factors would not be those in the weight."""
        if self.merged:
            raise RuntimeError("the adapter is merged; unmerge_lora(model) first")

    def unmerge(self) -> None:
        """Take the update out again (up to `lora.round_trip_bound`)."""
        if not self.merged:
            raise RuntimeError("the adapter is not merged")
        weight = self.base_layer.weight
        weight.data = merge(weight.data, -self.delta())
        self.merged = False


class LoraLinear(LoraLayer):
    """y = x Wᵀ + b + s (x_d Aᵀ) Bᵀ; with use_dora DoRA's (constant norm, as PEFT).

    >>> rng = np.random.default_rng(0); base = Linear(3, 2, rng)
    >>> x = Tensor(np.ones((4, 3), np.float32)); layer = LoraLinear(base, 2, 4, rng)
    >>> bool(np.array_equal(layer(x).data, base(x).data))   # B = 0 at the start
    True
    """

    def __init__(
        self, base: Linear, r: int, lora_alpha: float, rng: Rng,
        lora_dropout: float = 0.0, use_rslora: bool = False, use_dora: bool = False,
        init_lora_weights: bool | str = True,
    ):  # fmt: skip
        super().__init__(base, r, lora_alpha, lora_dropout, use_rslora)
        if use_dora and lora_dropout:
            raise ValueError(DORA_DROPOUT)
        out, inside = base.weight.shape
        self._factors(
            *init_lora((r, inside), (out, r), rng, init_lora_weights, base.weight.dtype)
        )
        self.lora_magnitude_vector: Parameter | None = None
        self._dora_delta: Array = None
        if use_dora:
            self.lora_magnitude_vector = Parameter(row_norm(self._direction()))

    def as_head(self) -> Tensor:
        """The adapted weight as a Tensor, for a loss that is fused with the head.

        Raises ValueError in training with lora_dropout: the fused loss drops nothing.
        """
        weight = self.base_layer.weight
        if self.merged:
            return weight
        if self.training and self.p:
            raise ValueError(
                "lora_dropout on the output head is not offered (the loss is fused "
                "with it); leave the head out of target_modules or set lora_dropout=0"
            )
        update = (self.lora_B @ self.lora_A) * self.scaling
        V = weight + update
        if self.lora_magnitude_vector is None:
            return V
        n = row_norm(self._direction())
        xp = get_xp(n)
        inverse = xp.where(n == 0, n, 1.0 / xp.where(n == 0, xp.ones_like(n), n))
        return V * (self.lora_magnitude_vector * inverse).reshape(-1, 1)

    def _direction(self) -> Array:
        """V = W + s B A in the weight's dtype."""
        W = self.base_layer.weight.data
        return W + (self.scaling * (self.lora_B.data @ self.lora_A.data)).astype(
            W.dtype
        )

    def forward(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        """x (N, in) → (N, out)."""
        base = self.base_layer
        if self.merged:
            return base(x)
        A, B, bias = self.lora_A, self.lora_B, base.bias  # type: ignore[union-attr]
        if self.lora_magnitude_vector is not None:
            norm = row_norm(self._direction())
            m = self.lora_magnitude_vector
            return ops.dora_linear(x, base.weight, bias, A, B, m, self.scaling, norm)
        if not self.training or self.p == 0.0:
            return ops.lora_linear(x, base.weight, bias, A, B, self.scaling)
        mask = dropout_mask(x, self.p, rng)
        return ops.lora_linear(x, base.weight, bias, A, B, self.scaling, mask, self.p)

    def delta(self) -> Array:
        """What merging adds: s B A, or with DoRA diag(m/n) V - W."""
        if self.lora_magnitude_vector is None:
            return super().delta()
        if self.merged:
            return self._dora_delta
        xp = get_xp(self.lora_A.data)
        W = self.base_layer.weight.data.astype(xp.float64)
        V = W + super().delta()
        n = row_norm(V)
        m = self.lora_magnitude_vector.data.astype(xp.float64)
        self._dora_delta = (m / xp.where(n == 0, xp.ones_like(n), n))[:, None] * V - W
        return self._dora_delta


class LoraEmbedding(LoraLayer):
    """y = E[ids] + s B A[:, ids]; A (r, V) = 0 and B (D, r) ~ N(0, 1) at the start.

    Used as a tied head too, the same update enters there (`as_head`), before merging
    and after. (PEFT's unmerged model leaves the tied head as it was and changes it only
    when merged: for a tied target its logits differ from these until then.)

    >>> rng = np.random.default_rng(0); base = Embedding(5, 3, rng)
    >>> LoraEmbedding(base, 2, 4, rng)(np.array([1, 1])).shape
    (2, 3)
    """

    def __init__(
        self, base: Embedding, r: int, lora_alpha: float, rng: Rng,
        use_rslora: bool = False, init_lora_weights: bool | str = True,
    ):  # fmt: skip
        super().__init__(base, r, lora_alpha, 0.0, use_rslora)
        V, D = base.weight.shape
        dtype = base.weight.dtype
        self._factors(
            *init_lora_embedding((r, V), (D, r), rng, init_lora_weights, dtype)
        )

    def delta(self) -> Array:
        """ΔE = s (B A)ᵀ, shape (V, D)."""
        return super().delta().T

    def forward(self, ids: Array) -> Tensor:
        """ids (N,) → (N, D)."""
        if self.merged:
            return self.base_layer(ids)
        weight = self.base_layer.weight
        return ops.lora_embedding(ids, weight, self.lora_A, self.lora_B, self.scaling)

    def as_head(self) -> Tensor:
        """E + s (B A)ᵀ as a Tensor (V, D), for the head that shares the matrix."""
        weight = self.base_layer.weight
        if self.merged:
            return weight
        low = self.lora_A.T @ self.lora_B.T
        return weight + low * self.scaling
