"""LoRA on a fused query-key-value projection, each part with its own adapter or none.

N rows · D inputs · C = Q + K + V columns (K = V < Q with shared heads) · R rank

Two published forms of "LoRA on the fused matrix": one adapter on the whole of it, of
rank r for q, k and v together (PEFT; that is `lora_linear`), or, here, one a part:
ΔW = blockdiag(B_q, B_k, B_v) [A_q; A_k; A_v], rows of a part left out zero (loralib).
"""

from collections.abc import Container

from lora_np.backend import Array, add_to, column_sum, get_xp
from lora_np.functional.contract import (
    ALL,
    differentiable,
    expect_float,
    expect_shape,
)
from lora_np.functional.qkv import qkv_attention, qkv_attention_backward
from lora_np.lora.linear import check_factors, lora_linear, lora_linear_backward

Part = tuple[str, Array, Array, slice]


def _parts(widths: tuple, factors: tuple, D: int) -> list[Part]:
    """(name, A, B, columns) of the parts that are adapted."""
    parts, start = [], 0
    for name, width, A, B in zip(
        "qkv", widths, factors[::2], factors[1::2], strict=True
    ):
        if (A is None) != (B is None):
            raise ValueError(f"give both A{name} and B{name}, or neither")
        if A is not None:
            check_factors(A, B, D, width, name)
            parts.append((name, A, B, slice(start, start + width)))
        start += width
    if not parts:
        raise ValueError("adapt at least one of q, k, v; for none use `linear`")
    return parts


@differentiable("x", "b", "Aq", "Bq", "Ak", "Bk", "Av", "Bv")
def lora_qkv(
    x_ND: Array,
    W_CD: Array,
    b_C: Array | None,
    Aq_RD: Array | None,
    Bq_QR: Array | None,
    Ak_RD: Array | None,
    Bk_KR: Array | None,
    Av_RD: Array | None,
    Bv_KR: Array | None,
    s: float,
    widths: tuple[int, int, int],
    *,
    needs: Container[str] = ALL,
) -> tuple[Array, tuple]:
    """y[:, part] = (x Wᵀ + b)[:, part] + s (x A_partᵀ) B_partᵀ,  part ∈ {q, k, v}

    None for both factors of a part leaves it as it is. widths = columns of q, k, v.
    Raises ValueError for one factor without the other, or shapes that do not fit.

    >>> import numpy as np
    >>> x, W, A, B = np.ones((1, 2)), np.zeros((4, 2)), np.ones((1, 2)), np.ones((1, 1))
    >>> lora_qkv(x, W, None, None, None, None, None, A, B, 0.5, (2, 1, 1))[0]
    array([[0., 0., 0., 1.]])
    """
    expect_float(x=x_ND, W=W_CD, b=b_C)
    expect_shape("x_ND", x_ND, (None, None), "flatten batch and time to rows first")
    slip = "rows of q, then k, then v, as many as `widths` adds up to"
    expect_shape("W_CD", W_CD, (sum(widths), x_ND.shape[1]), slip)
    factors = (Aq_RD, Bq_QR, Ak_RD, Bk_KR, Av_RD, Bv_KR)
    parts = _parts(widths, factors, x_ND.shape[1])
    s = float(s)  # a NumPy float64 scalar would promote float32
    sus = [s * (x_ND @ A.T) for _, A, _, _ in parts]
    lows = [u @ B.T for u, (_, _, B, _) in zip(sus, parts, strict=True)]
    y_NC = x_ND @ W_CD.T
    y_NC = y_NC.astype(get_xp(x_ND, W_CD).result_type(y_NC, *lows), copy=False)
    for low, (_, _, _, columns) in zip(lows, parts, strict=True):
        y_NC[:, columns] += low
    if b_C is not None:
        expect_shape("b_C", b_C, (W_CD.shape[0],))
        y_NC = add_to(y_NC, b_C)
    wanted = {n for n in lora_qkv.wrt if n in needs}  # type: ignore[attr-defined]
    if b_C is None:
        wanted.discard("b")
    return y_NC, (x_ND, W_CD, parts, sus, s, wanted)


def lora_qkv_backward(dy_NC: Array, cache: tuple) -> tuple:
    """Each part as `lora_linear_backward` on its own columns; dx adds over the parts.

    dB_p = s dy_pᵀ (x A_pᵀ);  dA_p = s (dy_p B_p)ᵀ x;  dx = dy W + s Σ_p (dy_p B_p) A_p.
    Returns (dx, db, dAq, dBq, dAk, dBk, dAv, dBv), None for what is absent.

    >>> import numpy as np
    >>> x, W, A, B = np.ones((1, 2)), np.zeros((4, 2)), np.ones((1, 2)), np.ones((1, 1))
    >>> _, c = lora_qkv(x, W, None, None, None, None, None, A, B, 0.5, (2, 1, 1))
    >>> lora_qkv_backward(np.ones((1, 4)), c)[6]
    array([[0.5, 0.5]])
    """
    x_ND, W_CD, parts, sus, s, wanted = cache
    grads = dict.fromkeys(lora_qkv.wrt)  # type: ignore[attr-defined]
    if "x" in wanted:
        grads["x"] = dy_NC @ W_CD
    if "b" in wanted:
        grads["b"] = column_sum(dy_NC)
    for (name, A, B, columns), su_NR in zip(parts, sus, strict=True):
        dy_NP = dy_NC[:, columns]
        if "B" + name in wanted:
            grads["B" + name] = dy_NP.T @ su_NR
        v_NR = s * (dy_NP @ B)
        if "A" + name in wanted:
            grads["A" + name] = v_NR.T @ x_ND
        if "x" in wanted:
            grads["x"] = add_to(grads["x"], v_NR @ A)
    return tuple(grads.values())


@differentiable("x", "Aq", "Bq", "Ak", "Bk", "Av", "Bv", "Ao", "Bo")
def lora_self_attention(
    x_ND: Array,
    W_CD: Array,
    Wo_DP: Array,
    Aq_RD: Array | None,
    Bq_QR: Array | None,
    Ak_RD: Array | None,
    Bk_KR: Array | None,
    Av_RD: Array | None,
    Bv_KR: Array | None,
    Ao_RP: Array,
    Bo_DR: Array,
    s: float,
    batch: int,
    heads: int,
    kv_heads: int,
    causal: bool = True,
    key_mask_BS: Array | None = None,
    *,
    needs: Container[str] = ALL,
) -> tuple[Array, tuple]:
    """y = lora_linear(attention(lora_qkv(x)))        all of the block

    W (C, D) is the frozen fused projection, Wo (D, P) the frozen output projection.

    >>> import numpy as np
    >>> I, A, B = np.ones((2, 2)), np.ones((1, 2)), np.zeros((2, 1))
    >>> y, _ = lora_self_attention(np.ones((3, 2)), np.ones((6, 2)), I, A, B, A, B, A,
    ...                            B, A, B, 1.0, batch=1, heads=1, kv_heads=1)
    >>> y.shape
    (3, 2)
    """
    expect_float(x=x_ND, Wo=Wo_DP, Ao=Ao_RP, Bo=Bo_DR)
    P = Wo_DP.shape[1]
    widths = (P, P // heads * kv_heads, P // heads * kv_heads)
    factors = (Aq_RD, Bq_QR, Ak_RD, Bk_KR, Av_RD, Bv_KR)
    qkv, c1 = lora_qkv(x_ND, W_CD, None, *factors, s, widths, needs=needs)
    o, c2 = qkv_attention(qkv, batch, heads, kv_heads, causal, key_mask_BS)
    names = [("x", "x"), *((n, n[0]) for n in ("Ao", "Bo") if n in needs)]
    y, c3 = lora_linear(o, Wo_DP, None, Ao_RP, Bo_DR, s, needs=[b for _, b in names])
    return y, (c1, c2, c3)


def lora_self_attention_backward(dy_ND: Array, cache: tuple) -> tuple:
    """The three backwards in reverse order; each is derived at its own forward.

    Returns (dx, dAq, dBq, dAk, dBk, dAv, dBv, dAo, dBo).

    >>> import numpy as np
    >>> I, A, B = np.ones((2, 2)), np.ones((1, 2)), np.zeros((2, 1))
    >>> _, c = lora_self_attention(np.ones((3, 2)), np.ones((6, 2)), I, A, B, A, B, A,
    ...                            B, A, B, 1.0, batch=1, heads=1, kv_heads=1)
    >>> dAq = lora_self_attention_backward(np.ones((3, 2)), c)[1]
    >>> bool(dAq.any())   # B starts at zero, so A has no gradient yet
    False
    """
    c1, c2, c3 = cache
    do_NP, _, dAo, dBo = lora_linear_backward(dy_ND, c3)
    (dqkv_NC,) = qkv_attention_backward(do_NP, c2)
    dx, _, *factors = lora_qkv_backward(dqkv_NC, c1)
    return dx, *factors, dAo, dBo
