"""Scaled dot-product attention for several heads, and the step around it.

B batch · T queries · S keys · H query heads · G key/value heads (G divides H)
K head size · C = (H + 2G) K columns of the fused qkv projection · N = B T rows

Arrays come as (batch, time, heads, size): views of a fused projection, not copies.
"""

import math
from collections.abc import Container

from lora_np.backend import Array, get_xp, row_sum
from lora_np.functional.contract import (
    ALL,
    differentiable,
    expect_float,
    expect_shape,
)
from lora_np.functional.rotary import rotary, rotary_backward
from lora_np.functional.softmax import shifted_exp


def _heads_first(x_BTHK: Array, groups: int) -> Array:
    """(B, T, G·n, K) → (B, G, n, T, K), a view: n query heads share one key head."""
    B, T, H, K = x_BTHK.shape
    return x_BTHK.reshape(B, T, groups, H // groups, K).transpose(0, 2, 3, 1, 4)


def _heads_last(x_BGnTK: Array, out: Array) -> Array:
    """The inverse, written into `out` (B, T, H, K); axis n is summed for n = 1 keys."""
    B, T, H, K = out.shape
    G = x_BGnTK.shape[1]
    if G == H and x_BGnTK.shape[2] > 1:
        x_BGnTK = x_BGnTK.sum(axis=2, keepdims=True)  # the heads that shared a key
    out.reshape(B, T, G, H // G, K)[...] = x_BGnTK.transpose(0, 3, 1, 2, 4)
    return out


def attention_bias(
    T: int, S: int, causal: bool, key_mask_BS: Array | None, like: Array
) -> Array | None:
    """0 where a query may look, -inf where not; None when nothing is hidden.

    Causal: query t stands at position S - T + t (S > T when old keys are cached).
    Returns shape (1 or B, 1, 1, T or 1, S) in the real dtype of `like`.

    >>> import numpy as np
    >>> attention_bias(2, 2, True, None, np.zeros(1))[0, 0, 0]
    array([[  0., -inf],
           [  0.,   0.]])
    """
    xp = get_xp(like)
    dtype = like.real.dtype
    hidden = None
    if causal:
        late = xp.arange(S)[None, :] > xp.arange(S - T, S)[:, None]
        hidden = late[None, None, None]
    if key_mask_BS is not None:
        padding = xp.logical_not(key_mask_BS.astype(bool))[:, None, None, None, :]
        hidden = padding if hidden is None else hidden | padding
    if hidden is None:
        return None
    return xp.where(hidden, xp.asarray(-math.inf, dtype), xp.asarray(0.0, dtype))


def _check(q: Array, k: Array, v: Array, key_mask: Array | None) -> None:
    expect_float(q=q, k=k, v=v)
    expect_shape("q_BTHK", q, (None,) * 4)
    expect_shape("k_BSGK", k, (q.shape[0], None, None, q.shape[3]))
    expect_shape("v_BSGK", v, k.shape)
    if k.shape[2] == 0 or q.shape[2] % k.shape[2]:
        raise ValueError(
            f"the {q.shape[2]} query heads must be a multiple of the {k.shape[2]} "
            "key/value heads"
        )
    if key_mask is not None:
        expect_shape("key_mask_BS", key_mask, k.shape[:2], "1 for keys that count")


@differentiable("q", "k", "v")
def attention(
    q_BTHK: Array,
    k_BSGK: Array,
    v_BSGK: Array,
    causal: bool = False,
    key_mask_BS: Array | None = None,
    *,
    needs: Container[str] = ALL,
) -> tuple[Array, tuple]:
    """O = softmax(Q Kᵀ / √K + bias) V for each head        Vaswani et al. 2017, eq. 1

    bias is -inf for hidden keys (later ones if `causal`, those with key_mask 0), added
    *before* the softmax. A query that may look at nothing gives 0, with gradient 0.
    Grouped heads (Ainslie et al. 2023, 2305.13245): query head h uses key h·G // H.
    Returns O (B, T, H, K).  Raises ValueError, TypeError.

    >>> import numpy as np
    >>> q = np.zeros((1, 2, 1, 2)); v = np.arange(4.0).reshape(1, 2, 1, 2)
    >>> attention(q, q, v, causal=True)[0][0, :, 0]
    array([[0., 1.],
           [1., 2.]])
    """
    _check(q_BTHK, k_BSGK, v_BSGK, key_mask_BS)
    xp = get_xp(q_BTHK, k_BSGK, v_BSGK)
    G, scale = k_BSGK.shape[2], 1.0 / math.sqrt(q_BTHK.shape[3])
    q, k, v = (_heads_first(a, G) for a in (q_BTHK, k_BSGK, v_BSGK))
    s = (q * scale) @ k.swapaxes(-1, -2)
    bias = attention_bias(q.shape[3], k.shape[3], causal, key_mask_BS, s)
    p = shifted_exp(s if bias is None else s + bias)
    total = row_sum(p)
    if key_mask_BS is not None or k.shape[3] < q.shape[3]:
        total = xp.where(total == 0, xp.ones_like(total), total)  # nothing to look at
    p /= total
    shape = q_BTHK.shape
    o = _heads_last(p @ v, xp.empty(shape, dtype=xp.result_type(p, v)))
    saved = [n in needs for n in ("q", "k", "v")]
    return o, (q, k, v, p if any(saved) else None, scale, saved, shape, k_BSGK.shape)


def attention_backward(dO_BTHK: Array, cache: tuple, out: tuple | None = None) -> tuple:
    """dV = Pᵀ dO;  dP = dO Vᵀ;  dS = P (dP - Σ_s dP P);  dQ = dS K/√K;  dK = dSᵀ Q/√K

    Indices, one head: o_tk = Σ_s p_ts v_sk gives dv_sk = Σ_t p_ts do_tk and
    dp_ts = Σ_k do_tk v_sk; dS is the softmax's; s_ts = Σ_k q_tk k_sk/√K gives
    dq_tk = Σ_s ds_ts k_sk/√K, dk_sk = Σ_t ds_ts q_tk/√K. Query heads that share a key
    head add up in dK and dV.  Returns (dq, dk, dv), written into `out` if given.

    >>> import numpy as np
    >>> q = np.zeros((1, 1, 1, 2)); _, c = attention(q, q, q)
    >>> attention_backward(np.ones((1, 1, 1, 2)), c)[2][0, 0, 0]
    array([1., 1.])
    """
    q, k, v, p, scale, (need_q, need_k, need_v), q_shape, k_shape = cache
    xp = get_xp(dO_BTHK)
    dO = _heads_first(dO_BTHK, k_shape[2])
    dq = dk = dv = None

    def place(i: int, x: Array, shape: tuple) -> Array:
        room = out[i] if out else xp.empty(shape, dtype=x.dtype)
        return _heads_last(x, room)

    if need_v:
        dv = place(2, p.swapaxes(-1, -2) @ dO, k_shape)
    if need_q or need_k:
        ds = dO @ v.swapaxes(-1, -2)
        inner = row_sum(ds * p)
        ds -= inner
        ds *= p
        ds *= scale
        dq = place(0, ds @ k, q_shape) if need_q else None
        dk = place(1, ds.swapaxes(-1, -2) @ q, k_shape) if need_k else None
    return dq, dk, dv


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
