"""Linear, Embedding, LayerNorm, Dropout, Attention as modules.

B batch · T time · N = B T rows · D width · V vocabulary. Activations are 2-D (N, D).
A `rng` (host NumPy Generator) draws dropout masks; layers without dropout ignore it.
"""

import math

import numpy as np

from lora_np import functional as F
from lora_np.backend import Array, get_xp
from lora_np.functional.dropout import check_rate
from lora_np.functional.qkv import split_qkv
from lora_np.nn import ops
from lora_np.nn.module import Module, Parameter
from lora_np.tape import Tensor

Rng = np.random.Generator


def dropout_mask(x: Tensor, p: float, rng: Rng | None) -> Array:
    """A 0/1 mask of x's shape, drawn on the host and moved to x's device.

    Raises ValueError without an rng: a forgotten one would switch dropout off.

    >>> dropout_mask(Tensor(np.ones((1, 2))), 0.0, np.random.default_rng(0))
    array([[ True,  True]])
    """
    if rng is None:
        raise ValueError(
            f"dropout {p} in training mode needs rng=..., a numpy Generator; "
            "call .eval() for evaluation"
        )
    return get_xp(x.data).asarray(rng.random(x.shape, dtype=np.float32) >= p)


class Linear(Module):
    """y = x Wᵀ + b; weight (out, in) ~ N(0, std²), bias 0.

    >>> Linear(3, 2, np.random.default_rng(0))(Tensor(np.ones((4, 3)))).shape
    (4, 2)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        rng: Rng,
        bias: bool = True,
        std: float | None = None,
        dtype: type = np.float32,
    ):
        std = 1.0 / math.sqrt(in_features) if std is None else std
        weight: np.ndarray = rng.normal(0.0, std, (out_features, in_features)).astype(
            dtype
        )
        self.weight = Parameter(weight)
        self.bias = Parameter(np.zeros(out_features, dtype)) if bias else None

    def forward(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        """x (N, in) → (N, out)."""
        return ops.linear(x, self.weight, self.bias)

    def as_head(self) -> Tensor:
        """The matrix (out, in), for the loss that is fused with the output head."""
        return self.weight


class Embedding(Module):
    """y_n = weight[ids_n]; weight (V, D) ~ N(0, std²).

    >>> Embedding(5, 2, np.random.default_rng(0))(np.array([4, 4])).shape
    (2, 2)
    """

    def __init__(
        self, vocabulary: int, width: int, rng: Rng, std: float = 0.02,
        dtype: type = np.float32,
    ):  # fmt: skip
        self.weight = Parameter(rng.normal(0, std, (vocabulary, width)).astype(dtype))

    def forward(self, ids: Array) -> Tensor:
        """ids (N,) → (N, D)."""
        return ops.embedding(ids, self.weight)

    def as_head(self) -> Tensor:
        """The matrix (V, D) that a tied output head multiplies with."""
        return self.weight


class LayerNorm(Module):
    """Layer norm with gain and bias.

    >>> LayerNorm(4)(Tensor(np.ones((2, 4)))).shape
    (2, 4)
    """

    def __init__(self, width: int, eps: float = 1e-5, dtype: type = np.float32):
        self.weight = Parameter(np.ones(width, dtype))
        self.bias = Parameter(np.zeros(width, dtype))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x (N, D) → (N, D)."""
        return ops.layer_norm(x, self.weight, self.bias, self.eps)


class Dropout(Module):
    """Dropout in training mode, nothing in evaluation mode.

    >>> Dropout(0.5).eval()(Tensor(np.ones(2))).data
    array([1., 1.])
    """

    def __init__(self, p: float):
        check_rate(p)
        self.p = p

    def forward(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        """x of any shape."""
        if not self.training or self.p == 0.0:
            return x
        return ops.dropout(x, dropout_mask(x, self.p, rng), self.p)


class KeyValueCache:
    """Keys and values of the positions seen so far, for one layer and B sequences."""

    def __init__(self, batch: int, room: int, kv_heads: int, size: int, like: Array):
        xp = get_xp(like)
        self.k = xp.zeros((batch, room, kv_heads, size), dtype=like.dtype)
        self.v = xp.zeros((batch, room, kv_heads, size), dtype=like.dtype)
        self.length = 0

    def append(self, k: Array, v: Array) -> tuple[Array, Array]:
        """Store new (B, T, G, K) keys and values; returns all so far."""
        start, stop = self.length, self.length + k.shape[1]
        self.k[:, start:stop], self.v[:, start:stop] = k, v
        self.length = stop
        return self.k[:, :stop], self.v[:, :stop]


class Attention(Module):
    """Causal self-attention: c_attn (fused q, k, v), heads, c_proj.

    >>> Attention(8, 2, np.random.default_rng(0))(Tensor(np.ones((6, 8))), 2).shape
    (6, 8)
    """

    def __init__(
        self, width: int, heads: int, rng: Rng, kv_heads: int | None = None,
        std: float = 0.02, out_std: float = 0.02, dtype: type = np.float32,
    ):  # fmt: skip
        if width % heads:
            raise ValueError(f"n_embd {width} must be a multiple of n_head {heads}")
        self.heads, self.kv_heads = heads, kv_heads or heads
        columns = width + 2 * self.kv_heads * (width // heads)
        self.c_attn = Linear(width, columns, rng, std=std, dtype=dtype)
        self.c_proj = Linear(width, width, rng, std=out_std, dtype=dtype)

    def forward(
        self, x: Tensor, batch: int, rng: Rng | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:  # fmt: skip
        """x (N, D) of `batch` sequences → (N, D); with a cache, x holds new steps."""
        qkv = self.c_attn(x, rng)
        if cache is None:
            o = ops.qkv_attention(qkv, batch, self.heads, self.kv_heads)
            return self.c_proj(o, rng)
        if qkv.requires_grad:
            raise RuntimeError(
                "the key/value cache is for generation and carries no gradient; wrap "
                "the call in `with no_grad():`"
            )
        q, k, v = split_qkv(qkv.data, batch, self.heads, self.kv_heads)
        k, v = cache.append(k, v)
        o = F.attention(q, k, v, causal=True, needs=())[0]
        return self.c_proj(Tensor(o.reshape(x.shape[0], -1)), rng)
