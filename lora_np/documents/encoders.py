"""D0's system: embed → encode → force the features to rank k → decode.

B batch · T time · D width · C classes.  Under an honest name: a low-rank bottleneck on
*features*. LoRA factors the update of a weight and leaves the features alone.
"""

from typing import Protocol

import numpy as np

from lora_np.backend import Array
from lora_np.documents.recurrent import LSTM
from lora_np.nn import ops
from lora_np.nn.layers import Embedding, Linear, Rng
from lora_np.nn.module import Module
from lora_np.tape import Tensor

HOW = ("svd", "random", "orthonormal")


class Encoder(Protocol):
    """What a classifier encodes with; GPT and LSTMEncoder are such."""

    def embed(self, ids_BT: Array) -> Tensor:
        """ids (B, T) → rows (B T, D)."""

    def encode(self, x: Tensor, batch: int) -> Tensor:
        """rows (B T, D) → features (B T, D)."""


class LSTMEncoder(Module):
    """Embedding and LSTM of the same width, with a GPT's two steps.

    >>> encoder = LSTMEncoder(16, 6, np.random.default_rng(0))
    >>> encoder.encode(encoder.embed(np.zeros((2, 3), int)), 2).shape
    (6, 6)
    """

    def __init__(self, vocabulary: int, width: int, rng: Rng):
        self.embedding = Embedding(vocabulary, width, rng, std=1.0 / np.sqrt(width))
        self.lstm = LSTM(width, width, rng)

    def embed(self, ids_BT: Array) -> Tensor:
        """ids (B, T) → embedded rows (B T, D)."""
        return self.embedding(ids_BT.reshape(-1))

    def encode(self, x: Tensor, batch: int) -> Tensor:
        """Rows (B T, D) → hidden states (B T, D)."""
        N, D = x.shape
        hs, _ = self.lstm(x.reshape(batch, N // batch, D).transpose(1, 0, 2))
        return hs.transpose(1, 0, 2).reshape(N, D)


def low_rank(
    h: Tensor, batch: int, k: int, how: str = "svd", rng: Rng | None = None
) -> Tensor:
    """Features (B T, D), each sequence's (T, D) matrix forced to rank k.

    how: "svd" (the best rank k of each matrix), "random" (x P Pᵀ, P Gaussian as Johnson
    and Lindenstrauss) or "orthonormal" (the projector on P's columns).
    Raises ValueError for a rank that the matrices cannot have, or another `how`.
    """
    N, D = h.shape
    T = N // batch
    if how == "svd":
        return ops.truncated_svd(h.reshape(batch, T, D), k).reshape(N, D)
    if how not in HOW:
        raise ValueError(f"how must be one of {HOW}, got {how!r}")
    if not 1 <= k <= D:
        raise ValueError(f"rank k must lie in 1 ... {D}, the features' width, got {k}")
    P = directions(D, k, how, np.random.default_rng(0) if rng is None else rng)
    return ops.projection(h, P.astype(h.dtype))


def directions(D: int, k: int, how: str, rng: Rng) -> np.ndarray:
    """P (D, k): entries N(0, 1/k), so that x P keeps lengths on average; or, for
    "orthonormal", an orthonormal basis of its columns.

    >>> P = directions(4, 2, "orthonormal", np.random.default_rng(0))
    >>> bool(np.allclose(P.T @ P, np.eye(2)))
    True
    """
    P = rng.normal(size=(D, k)) / np.sqrt(k)
    return np.linalg.qr(P)[0] if how == "orthonormal" else P


class Classifier(Module):
    """embed → encode → (rank k) → mean over time → linear.

    >>> encoder = LSTMEncoder(16, 6, np.random.default_rng(0))
    >>> model = Classifier(encoder, 6, 3, np.random.default_rng(1), rank=2)
    >>> model.logits(np.arange(8).reshape(2, 4)).shape
    (2, 3)
    """

    def __init__(
        self, encoder: Encoder, width: int, classes: int, rng: Rng,
        rank: int | None = None, how: str = "svd",
    ):  # fmt: skip
        if how not in HOW:
            raise ValueError(f"how must be one of {HOW}, got {how!r}")
        self.encoder, self.rank, self.how = encoder, rank, how
        self.head = Linear(width, classes, rng)

    def features(self, ids_BT: Array, offset: Array | Tensor | None = None) -> Tensor:
        """Pooled features (B, D); `offset` (B T, D) is added to the embedding."""
        B, T = ids_BT.shape
        x = self.encoder.embed(ids_BT)
        h = self.encoder.encode(x if offset is None else x + offset, B)
        if self.rank is not None:
            h = low_rank(h, B, self.rank, self.how)
        return h.reshape(B, T, h.shape[1]).mean(axis=1)

    def logits(self, ids_BT: Array, offset: Array | Tensor | None = None) -> Tensor:
        """Logits (B, C)."""
        return self.head(self.features(ids_BT, offset))

    def loss(
        self, ids: Array, target: Array, reduction: str = "mean", rng: Rng | None = None
    ) -> Tensor:
        """Cross-entropy of the labels (B,)."""
        return ops.cross_entropy(self.logits(ids), target, reduction=reduction)
