"""A GPT-2-style transformer: token and position embedding, pre-norm blocks, tied head.

B batch · T time · N = B T rows · D width · V vocabulary
"""

from dataclasses import asdict, dataclass, replace

import numpy as np

from lora_np.backend import Array, get_xp, to_host
from lora_np.functional.contract import expect_ids, expect_shape
from lora_np.nn import ops
from lora_np.nn.layers import (
    Attention,
    Dropout,
    Embedding,
    KeyValueCache,
    LayerNorm,
    Linear,
    Rng,
)
from lora_np.nn.module import Module, Parameter
from lora_np.nn.recompute import recompute
from lora_np.tape import Tensor


@dataclass(frozen=True)
class GPTConfig:
    """Shape of a GPT; names as in GPT-2's published configuration.

    >>> GPTConfig(n_layer=2).n_layer
    2
    """

    vocab_size: int = 256
    n_positions: int = 128
    n_embd: int = 128
    n_layer: int = 4
    n_head: int = 4
    n_kv_head: int | None = None
    dropout: float = 0.0
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        sizes = {"vocab_size": self.vocab_size, "n_positions": self.n_positions,
                 "n_embd": self.n_embd, "n_layer": self.n_layer, "n_head": self.n_head,
                 "n_kv_head": self.n_kv_head or self.n_head}  # fmt: skip
        for name, value in sizes.items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"{name} must be an integer of at least 1, got {value}"
                )
        if self.n_embd % self.n_head or self.n_head % sizes["n_kv_head"]:
            raise ValueError(
                f"n_embd {self.n_embd} must be a multiple of n_head {self.n_head}, and "
                f"that of n_kv_head {sizes['n_kv_head']}"
            )

    def as_dict(self) -> dict:
        """Plain values, for a JSON file."""
        return asdict(self)


class MLP(Module):
    """c_proj(gelu(c_fc(x))), four times as wide inside."""

    def __init__(self, config: GPTConfig, rng: Rng, out_std: float, dtype: type):
        D = config.n_embd
        self.c_fc = Linear(D, 4 * D, rng, std=config.initializer_range, dtype=dtype)
        self.c_proj = Linear(4 * D, D, rng, std=out_std, dtype=dtype)

    def forward(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        """x (N, D) → (N, D)."""
        return self.c_proj(ops.gelu_tanh(self.c_fc(x, rng)), rng)


class Block(Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): pre-norm, as in GPT-2."""

    def __init__(self, config: GPTConfig, rng: Rng, dtype: type):
        std = config.initializer_range
        out_std = std / (2 * config.n_layer) ** 0.5  # GPT-2: residual paths start small
        D, eps = config.n_embd, config.layer_norm_epsilon
        self.ln_1 = LayerNorm(D, eps, dtype)
        self.attn = Attention(
            D, config.n_head, rng, config.n_kv_head, std, out_std, dtype
        )
        self.ln_2 = LayerNorm(D, eps, dtype)
        self.mlp = MLP(config, rng, out_std, dtype)
        self.drop = Dropout(config.dropout)

    def forward(
        self, x: Tensor, batch: int, rng: Rng | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:  # fmt: skip
        """x (N, D) → (N, D)."""
        a = self.attn(self.ln_1(x), batch, rng, cache)
        x = x + self.drop(a, rng)
        return x + self.drop(self.mlp(self.ln_2(x), rng), rng)


class GPT(Module):
    """The whole model. `checkpoint_blocks` recomputes each block in backward.

    >>> model = GPT(GPTConfig(16, 8, 8, 1, 2), np.random.default_rng(0))
    >>> model.logits(np.zeros((2, 5), int)).shape
    (10, 16)
    """

    def __init__(self, config: GPTConfig, rng: Rng, dtype: type = np.float32):
        self.config, D = config, config.n_embd
        std = config.initializer_range
        self.wte = Embedding(config.vocab_size, D, rng, std, dtype)
        self.wpe = Embedding(config.n_positions, D, rng, std / 2, dtype)
        self.drop = Dropout(config.dropout)
        self.h = [Block(config, rng, dtype) for _ in range(config.n_layer)]
        self.ln_f = LayerNorm(D, config.layer_norm_epsilon, dtype)
        self.lm_head: Linear | None = None
        if not config.tie_word_embeddings:
            self.lm_head = Linear(D, config.vocab_size, rng, False, std, dtype)
        self.checkpoint_blocks = False

    def untie(self) -> None:
        """Give the head a matrix of its own, a copy of the embedding's."""
        if self.lm_head is None:
            weight = self.head().data.copy()
            self.lm_head = Linear(1, 1, np.random.default_rng(0), bias=False)
            self.lm_head.weight = Parameter(weight)
            self.config = replace(self.config, tie_word_embeddings=False)

    def head(self) -> Tensor:
        """The output matrix (V, D): the embedding's own when tied."""
        return (self.lm_head or self.wte).as_head()

    def new_cache(self, batch: int) -> list[KeyValueCache]:
        """Empty key/value caches, one a layer."""
        c, like = self.config, self.ln_f.weight.data
        size, groups = c.n_embd // c.n_head, c.n_kv_head or c.n_head
        room = c.n_positions
        return [KeyValueCache(batch, room, groups, size, like) for _ in self.h]

    def hidden(
        self, ids_BT: Array, rng: Rng | None = None,
        cache: list[KeyValueCache] | None = None,
    ) -> Tensor:  # fmt: skip
        """ids (B, T) → hidden states (B T, D) after the last norm.

        Raises as `embed` does.
        """
        x = self.embed(ids_BT, cache[0].length if cache else 0)
        return self.encode(x, ids_BT.shape[0], rng, cache)

    def embed(self, ids_BT: Array, past: int = 0) -> Tensor:
        """Token plus position embedding (B T, D); `past` positions went before.

        Raises ValueError for sequences longer than n_positions, IndexError for ids
        outside the vocabulary (checked on the host), TypeError for ids not integer.
        """
        expect_shape("ids_BT", ids_BT, (None, None), "ids[None] makes a batch of one")
        expect_ids("ids_BT", ids_BT, self.config.vocab_size)
        B, T = ids_BT.shape
        if past + T > self.config.n_positions:
            raise ValueError(
                f"{past + T} positions do not fit: the model has "
                f"{self.config.n_positions} (n_positions)"
            )
        xp = get_xp(self.ln_f.weight.data)
        position_N = xp.asarray(np.tile(np.arange(past, past + T), B))
        return self.wte(xp.asarray(ids_BT).reshape(-1)) + self.wpe(position_N)

    def encode(
        self, x: Tensor, batch: int, rng: Rng | None = None,
        cache: list[KeyValueCache] | None = None,
    ) -> Tensor:  # fmt: skip
        """Embedded rows (B T, D) of `batch` sequences → hidden states (B T, D)."""
        x = self.drop(x, rng)
        for i, block in enumerate(self.h):
            if self.checkpoint_blocks and cache is None:
                x = recompute(lambda x, r, block=block: block(x, batch, r), x, rng)
            else:
                x = block(x, batch, rng, cache[i] if cache else None)
        return self.ln_f(x)

    def logits(
        self, ids_BT: Array, rng: Rng | None = None,
        cache: list[KeyValueCache] | None = None,
    ) -> Tensor:  # fmt: skip
        """ids (B, T) → logits (B T, V)."""
        return ops.linear(self.hidden(ids_BT, rng, cache), self.head())

    def loss(
        self, ids_BT: Array, target_BT: Array, reduction: str = "mean",
        rng: Rng | None = None,
    ) -> Tensor:  # fmt: skip
        """Cross-entropy of the targets in nats; -100 marks positions not counted."""
        expect_shape("target_BT", target_BT, tuple(ids_BT.shape), "one target an id")
        h = self.hidden(ids_BT, rng)
        target = get_xp(h.data).asarray(to_host(target_BT).reshape(-1))
        return ops.linear_cross_entropy(h, self.head(), target, reduction=reduction)

    forward = logits
