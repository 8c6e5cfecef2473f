"""Ways to adapt a GPT besides LoRA, each small: what is trained, and the loss.

B batch · T time · P prompt positions · D width · V vocabulary
"""

import copy

import numpy as np

from lora_np.backend import Array
from lora_np.graph import no_grad
from lora_np.models import GPT
from lora_np.nn import ops
from lora_np.nn.layers import Attention, Linear, Rng
from lora_np.nn.module import Module, Parameter
from lora_np.tape import Tensor, concat


def bitfit(model: GPT) -> GPT:
    """Only the biases trainable (Ben Zaken et al. 2021, 2106.10199).

    >>> from lora_np.models import GPTConfig
    >>> model = bitfit(GPT(GPTConfig(16, 8, 8, 1, 2), np.random.default_rng(0)))
    >>> all(name.endswith("bias") for name in model.trainable())
    True
    """
    model.freeze()
    for name, p in model.named_parameters():
        p.requires_grad = name.endswith("bias")
    return model


def _repeat(rows_PD: Tensor, batch: int) -> Tensor:
    """(P, D) → (B, P, D): the same rows for every sequence."""
    P, D = rows_PD.shape
    return rows_PD.reshape(1, P, D) + np.zeros((batch, P, D), rows_PD.dtype)


class PromptTuning(Module):
    """Trained vectors before the embedded text (Lester et al. 2021, 2104.08691).

    They start as the embeddings of the text in `start` (B, P).
    """

    def __init__(self, model: GPT, start: Array):
        self.model = model
        model.freeze()
        with no_grad():
            rows = model.embed(start[:1]).data
        self.prompt = Parameter(rows.copy())

    def loss(
        self, ids: Array, target: Array, reduction: str = "mean", rng: Rng | None = None
    ) -> Tensor:
        """Cross-entropy of the targets; the prompt's positions do not count."""
        (B, T), (P, D) = ids.shape, self.prompt.shape
        x = self.model.embed(ids, past=P).reshape(B, T, D)
        whole = concat([_repeat(self.prompt, B), x], axis=1).reshape(B * (P + T), D)
        h = self.model.encode(whole, B, rng).reshape(B, P + T, D)[:, P:]
        return ops.linear_cross_entropy(
            h.reshape(B * T, D), self.model.head(), target.reshape(-1),
            reduction=reduction,
        )  # fmt: skip


class PrefixAttention(Module):
    """An attention layer with trained keys and values before the text's own.

    Li & Liang 2021 (2101.00190), without their reparametrisation by a network.
    """

    def __init__(self, base: Attention, prefix: int, rng: Rng):
        self.base = base
        K = base.c_proj.weight.shape[1] // base.heads
        shape = (prefix, base.kv_heads * K)
        dtype = base.c_proj.weight.dtype
        self.prefix_k = Parameter(rng.normal(0, 0.02, shape).astype(dtype))
        self.prefix_v = Parameter(rng.normal(0, 0.02, shape).astype(dtype))

    def forward(self, x: Tensor, batch: int, rng: Rng | None = None,
                cache: None = None) -> Tensor:  # fmt: skip
        """x (B T, D) → (B T, D); every position sees the whole prefix."""
        qkv, H, G = self.base.c_attn(x, rng), self.base.heads, self.base.kv_heads
        T, P = x.shape[0] // batch, self.prefix_k.shape[0]
        K = self.base.c_proj.weight.shape[1] // H
        q = qkv[:, : H * K].reshape(batch, T, H, K)
        k, v = (
            concat([_repeat(prefix, batch), qkv[:, start : start + G * K]
                    .reshape(batch, T, G * K)], axis=1).reshape(batch, P + T, G, K)
            for prefix, start in ((self.prefix_k, H * K), (self.prefix_v, (H + G) * K))
        )  # fmt: skip
        o = ops.attention(q, k, v, causal=True)
        return self.base.c_proj(o.reshape(batch * T, H * K), rng)


def prefix_tuning(model: GPT, prefix: int, rng: Rng) -> GPT:
    """Put trained keys and values before those of every layer, in place."""
    model.freeze()
    for block in model.h:
        block.attn = PrefixAttention(block.attn, prefix, rng)  # type: ignore[assignment]
    return model


class Bottleneck(Module):
    """y + up(gelu(down(y))) after a sub-layer (Houlsby et al. 2019, 1902.00751).

    `up` starts at zero, so that the model is unchanged at first.
    """

    def __init__(self, inner: Module, width: int, middle: int, rng: Rng):
        self.inner = inner
        self.down = Linear(width, middle, rng)
        self.up = Linear(middle, width, rng, std=0.0)

    def forward(self, x: Tensor, *rest: object) -> Tensor:
        """The sub-layer's output, adapted."""
        y = self.inner(x, *rest)
        return y + self.up(ops.gelu_tanh(self.down(y)))


def bottleneck_adapters(model: GPT, middle: int, rng: Rng) -> GPT:
    """A bottleneck after attention and MLP of every block, in place."""
    model.freeze()
    for block in model.h:
        block.attn = Bottleneck(block.attn, model.config.n_embd, middle, rng)  # type: ignore[assignment]
        block.mlp = Bottleneck(block.mlp, model.config.n_embd, middle, rng)  # type: ignore[assignment]
    return model


class Distillation(Module):
    """A student with fewer blocks that follows a frozen teacher (Hinton et al. 2015).

    The student starts as a copy of every second block of the teacher.
    """

    def __init__(self, teacher: GPT):
        self.student = copy.deepcopy(teacher)
        self.student.h = self.student.h[::2]
        for p in self.student.parameters():
            p.requires_grad = True
        self._teacher = (teacher,)  # in a tuple: not a part of this module
        teacher.freeze()
        self.follow = True

    def loss(
        self, ids: Array, target: Array, reduction: str = "mean", rng: Rng | None = None
    ) -> Tensor:
        """KL(teacher ‖ student) while following, else cross-entropy of the targets."""
        if not self.follow:
            return self.student.loss(ids, target, reduction, rng)
        with no_grad():
            z = self._teacher[0].logits(ids).data
        return ops.kl_divergence(z, self.student.logits(ids, rng), reduction)


def freeze_A(model: Module) -> Module:
    """Freeze every lora_A of a model with an adapter, in place: B alone is trained.

    The honest reading of "G Gaussian and frozen, train R only", as an update and not as
    a replacement of W (LoRA-FA, Zhang et al. 2023, 2308.03303).
    """
    for name, p in model.named_parameters():
        if name.endswith("lora_A"):
            p.requires_grad = False
    return model
