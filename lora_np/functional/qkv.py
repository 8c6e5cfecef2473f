"""From the fused qkv projection to the heads' output: split, rotate, attend.

B batch · T time · N = B T rows · H query heads · G key/value heads · K head size
C = (H + 2G) K columns: H query heads, then G key heads, then G value heads
"""

from collections.abc import Container

from lora_np.backend import Array, get_xp
from lora_np.functional.attention import attention, attention_backward
from lora_np.functional.contract import (
    ALL,
    differentiable,
    expect_float,
    expect_shape,
)
from lora_np.functional.rotary import rotary, rotary_backward


def split_qkv(qkv_NC: Array, batch: int, heads: int, kv_heads: int) -> tuple:
    """Views q (B,T,H,K), k and v (B,T,G,K) of the fused projection (N, (H+2G) K).

    >>> import numpy as np
    >>> [a.shape for a in split_qkv(np.zeros((6, 16)), 2, 2, 1)]
    [(2, 3, 2, 4), (2, 3, 1, 4), (2, 3, 1, 4)]
    """
    N, C = qkv_NC.shape
    parts = heads + 2 * kv_heads
    if C % parts or batch < 1 or N % batch:
        raise ValueError(
            f"qkv_NC {qkv_NC.shape} does not split into {batch} sequences of "
            f"{heads} query and 2 x {kv_heads} key/value heads"
        )
    x = qkv_NC.reshape(batch, N // batch, parts, C // parts)
    return x[:, :, :heads], x[:, :, heads:-kv_heads], x[:, :, -kv_heads:]


@differentiable("qkv")
def qkv_attention(
    qkv_NC: Array,
    batch: int,
    heads: int,
    kv_heads: int | None = None,
    causal: bool = True,
    key_mask_BS: Array | None = None,
    rotary_base: float | None = None,
    *,
    needs: Container[str] = ALL,
) -> tuple[Array, tuple | None]:
    """Everything between the fused qkv projection and the output projection.

    Columns of qkv: H query heads, G key heads, G value heads, each K wide. With
    `rotary_base`, queries and keys are rotated by their position first.
    Returns (N, H K).  Raises ValueError when the columns do not split.

    >>> import numpy as np
    >>> qkv_attention(np.zeros((6, 16)), batch=2, heads=2, kv_heads=1)[0].shape
    (6, 8)
    """
    expect_float(qkv=qkv_NC)
    expect_shape("qkv_NC", qkv_NC, (None, None), "flatten batch and time to rows first")
    q, k, v = split_qkv(qkv_NC, batch, heads, kv_heads or heads)
    turn_q = turn_k = None
    if rotary_base is not None:
        position_T = get_xp(qkv_NC).arange(q.shape[1])
        q, turn_q = rotary(q, position_T, rotary_base)
        k, turn_k = rotary(k, position_T, rotary_base)
    inner = ("q", "k", "v") if "qkv" in needs else ()
    o, cache = attention(q, k, v, causal, key_mask_BS, needs=inner)
    cache = (cache, turn_q, turn_k, batch, heads, kv_heads or heads, qkv_NC.shape)
    rows = o.reshape(qkv_NC.shape[0], o.shape[2] * o.shape[3])
    return rows, cache if inner else None


def qkv_attention_backward(dy_NP: Array, cache: tuple | None) -> tuple:
    """The three gradients of `attention_backward`, side by side in one array.

    Splitting columns is linear, so its transpose puts the columns back; a rotation's
    transpose is the rotation back.  Returns (dqkv,).

    >>> import numpy as np
    >>> _, c = qkv_attention(np.zeros((6, 16)), batch=2, heads=2, kv_heads=1)
    >>> qkv_attention_backward(np.ones((6, 8)), c)[0].shape
    (6, 16)
    """
    if cache is None:
        return (None,)
    inner, turn_q, turn_k, batch, heads, kv_heads, shape = cache
    dqkv_NC = get_xp(dy_NP).empty(shape, dtype=dy_NP.dtype)
    out = split_qkv(dqkv_NC, batch, heads, kv_heads)
    B, T, H, K = out[0].shape
    dq, dk, _ = attention_backward(dy_NP.reshape(B, T, H, K), inner, out)
    if turn_q is not None:
        dq[...] = rotary_backward(dq, turn_q)[0]
        dk[...] = rotary_backward(dk, turn_k)[0]
    return (dqkv_NC,)
