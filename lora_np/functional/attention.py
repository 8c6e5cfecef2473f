"""Scaled dot-product attention for several heads.

B batch · T queries · S keys · H query heads · G key/value heads (G divides H)
K head size

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
