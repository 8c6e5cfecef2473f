"""Fused qkv and the whole attention block through dense weights, head by head.

N rows = batch · time · D inputs · C = columns of q, k and v · P = heads · K
"""

from typing import Any

import numpy as np

from lora_np.reference.oracle.dense import Array, Result, factors, product, wide


def _spans(widths: tuple[int, int, int]) -> dict[str, slice]:
    ends = np.cumsum((0, *widths))
    return {n: slice(int(ends[i]), int(ends[i + 1])) for i, n in enumerate("qkv")}


def _delta(pairs: dict[str, tuple], widths: tuple, D: int, s: float) -> Array:
    delta = np.zeros((sum(widths), D))
    for name, span in _spans(widths).items():
        if pairs[name][0] is not None:
            A, B = pairs[name]
            delta[span] = product(A, B, s)
    return delta


def _split(dense: Array, pairs: dict[str, tuple], widths: tuple, s: float) -> Result:
    out: Result = {}
    for name, span in _spans(widths).items():
        A, B = pairs[name]
        if A is not None:
            out[f"dA{name}"], out[f"dB{name}"] = factors(dense[span], A, B, s)
    return out


def qkv(
    x: Array, W: Array, Aq: Array | None, Bq: Array | None, Ak: Array | None,
    Bk: Array | None, Av: Array | None, Bv: Array | None, s: float,
    widths: tuple[int, int, int], b: Array | None = None, dy: Array | None = None,
) -> Result:  # fmt: skip
    """y = x (W + blockdiag(B_q, B_k, B_v) [A_q; A_k; A_v] s)ᵀ + b

    x (N,D)  W (C,D), rows of q, k, v  A (R,D)  B (width,R), both None for a part left
    out; dy (N,C). Returns y, delta, merged (C,D), dx, db, dAq, dBq, …

    >>> one = np.ones((1, 1))
    >>> qkv(one, np.ones((3, 1)), one, one, None, None, None, None, 3.0, (1, 1, 1))["y"]
    array([[4., 1., 1.]])
    """
    x, W, b, dy = wide(x, W, b, dy)
    pairs = {
        "q": tuple(wide(Aq, Bq)),
        "k": tuple(wide(Ak, Bk)),
        "v": tuple(wide(Av, Bv)),
    }
    delta = _delta(pairs, widths, W.shape[1], s)
    y = x @ (W + delta).T
    out: Result = {"y": y if b is None else y + b, "delta": delta, "merged": W + delta}
    if dy is not None:
        out |= _split(dy.T @ x, pairs, widths, s)
        out["dx"], out["db"] = dy @ (W + delta), None if b is None else dy.sum(0)
    return out


def _softmax(scores: Array) -> Array:
    seen = np.exp(scores - scores[np.isfinite(scores)].max())
    return seen / seen.sum()


def _attend(q: Array, k: Array, v: Array, allowed: Array, do: Array | None) -> tuple:
    """One head of one sequence, query by query: (o, dq, dk, dv)."""
    o, root = np.zeros_like(q), np.sqrt(q.shape[1])
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    for t in range(len(q)):
        if not allowed[t].any():
            continue  # a query that sees nothing gives zeros
        weight = _softmax(np.where(allowed[t], k @ q[t] / root, -np.inf))
        o[t] = weight @ v
        if do is not None:
            dv += np.outer(weight, do[t])
            jacobian = np.diag(weight) - np.outer(weight, weight)
            dscore = jacobian @ (v @ do[t]) / root
            dq[t] = dscore @ k
            dk += np.outer(dscore, q[t])
    return o, dq, dk, dv


def self_attention(
    x: Array, W: Array, Wo: Array, Aq: Any, Bq: Any, Ak: Any, Bk: Any, Av: Any, Bv: Any,
    Ao: Array, Bo: Array, s: float, batch: int, heads: int, kv_heads: int,
    causal: bool = True, key_mask: Array | None = None, dy: Array | None = None,
) -> Result:  # fmt: skip
    """y = attention(x W'ᵀ) Wo'ᵀ, every projection with its own update

    x (N,D)  W (C,D)  Wo (D,P)  Ao (R,P)  Bo (D,R); heads of size P / heads; key_mask
    (batch, time) True where a key may be seen; dy (N,D).
    Returns y, delta, merged (C,D), delta_o, merged_o (D,P), dx, dAq … dBo.

    >>> one = np.ones((1, 1))
    >>> self_attention(one, np.ones((3, 1)), one, one, one, one, one, one, one,
    ...                      one, one, 1.0, 1, 1, 1)["y"].item()
    4.0
    """
    x, W, Wo, Ao, Bo, dy = wide(x, W, Wo, Ao, Bo, dy)
    pairs = {
        "q": tuple(wide(Aq, Bq)),
        "k": tuple(wide(Ak, Bk)),
        "v": tuple(wide(Av, Bv)),
    }
    P, T, K = Wo.shape[1], len(x) // batch, Wo.shape[1] // heads
    widths = (P, K * kv_heads, K * kv_heads)
    delta, delta_o = _delta(pairs, widths, W.shape[1], s), product(Ao, Bo, s)
    whole, whole_o = W + delta, Wo + delta_o
    z = x @ whole.T
    o, dz = np.zeros((len(x), P)), np.zeros_like(z)
    do = None if dy is None else dy @ whole_o
    seen = np.ones((batch, T), bool) if key_mask is None else np.asarray(key_mask, bool)
    for i in range(batch):
        rows = slice(i * T, (i + 1) * T)
        allowed = np.tril(np.ones((T, T), bool)) if causal else np.ones((T, T), bool)
        for head in range(heads):
            group = head * kv_heads // heads
            columns = [slice(head * K, (head + 1) * K)]
            columns += [slice(P + (j * kv_heads + group) * K,
                              P + (j * kv_heads + group + 1) * K)
                        for j in (0, 1)]  # fmt: skip
            part = None if do is None else do[rows, columns[0]]
            q, k, v = (z[rows, c] for c in columns)
            o[rows, columns[0]], *grads = _attend(q, k, v, allowed & seen[i], part)
            for c, g in zip(columns, grads, strict=True):
                dz[rows, c] += g
    out: Result = {"y": o @ whole_o.T, "delta": delta, "merged": whole,
                   "delta_o": delta_o, "merged_o": whole_o}  # fmt: skip
    if dy is not None:
        out |= _split(dz.T @ x, pairs, widths, s)
        out["dAo"], out["dBo"] = factors(dy.T @ o, Ao, Bo, s)
        out["dx"] = dz @ whole
    return out
