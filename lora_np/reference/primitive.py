"""Every pair once more, as a chain of the tape's primitives: the second witness.

Written from the definitions, element by element where that is plainest, and slowly:
nothing here is shared with `functional` or `lora`.
"""

import math
from typing import Any

import numpy as np

from lora_np.tape import Tensor, concat, erf, exp, log, tanh, tensor, where

T = Any  # Tensor where a gradient is wanted, array where not


def linear(x_ND: T, W_MD: T, b_M: T = None) -> Tensor:
    """y = x Wᵀ + b"""
    y = tensor(x_ND) @ tensor(W_MD).T
    return y if b_M is None else y + b_M


def embedding(ids_N: np.ndarray, E_VD: T) -> Tensor:
    """y = one-hot(ids) E"""
    one_hot = np.eye(E_VD.shape[0])[ids_N]
    return one_hot @ E_VD


def layer_norm(x_ND: T, g_D: T, b_D: T, eps: float) -> Tensor:
    """y = (x - mean) / √(variance + eps) · g + b"""
    centred = x_ND - x_ND.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    y = centred / (variance + eps) ** 0.5 * g_D
    return y if b_D is None else y + b_D


def rms_norm(x_ND: T, g_D: T, eps: float) -> Tensor:
    """y = x / √(mean of squares + eps) · g"""
    return x_ND / ((x_ND**2).mean(axis=-1, keepdims=True) + eps) ** 0.5 * g_D


def relu(x: T) -> Tensor:
    """y = x where x > 0, else 0"""
    return where(x.data > 0, x, 0.0)


def gelu(x: T) -> Tensor:
    """y = x (1 + erf(x/√2)) / 2"""
    return x * (erf(x / math.sqrt(2)) + 1.0) / 2.0


def gelu_tanh(x: T) -> Tensor:
    """y = x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2"""
    return x * (tanh((x + x**3 * 0.044715) * math.sqrt(2 / math.pi)) + 1.0) * 0.5


def silu(x: T) -> Tensor:
    """y = x / (1 + e^-x)"""
    return x / (exp(-x) + 1.0)


def swiglu(a: T, b: T) -> Tensor:
    """y = silu(a) b"""
    return silu(a) * b


def softmax(z: T) -> Tensor:
    """p = eᶻ / Σ eᶻ along the last axis"""
    e = exp(z - z.data.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def dropout(x: T, mask: np.ndarray, p: float) -> Tensor:
    """y = x / (1 - p) where the mask is 1, else 0"""
    return where(mask, x / (1 - p), 0.0)


def cross_entropy(
    z_NV: T, target_N: np.ndarray, reduction: str = "mean", ignore_index: int = -100
) -> Tensor:
    """The mean or sum over the counted rows of ln Σ eᶻ - z_target."""
    rows = np.flatnonzero(target_N != ignore_index)
    z = z_NV[rows]
    picked = z[np.arange(len(rows)), target_N[rows]]
    losses = log(exp(z).sum(axis=-1)) - picked
    return losses.mean() if reduction == "mean" else losses.sum()


def linear_cross_entropy(
    h_ND: T,
    W_VD: T,
    target_N: np.ndarray,
    ignore_index: int,
    reduction: str,
    piece: int,
) -> Tensor:
    """Cross-entropy of all logits h Wᵀ at once."""
    return cross_entropy(linear(h_ND, W_VD), target_N, reduction, ignore_index)


def rotary(x_BTHK: T, position_T: np.ndarray, base: float) -> Tensor:
    """As a product with one rotation matrix for each position."""
    B, steps, H, K = x_BTHK.shape
    turns = np.zeros((steps, 1, K, K))
    for t, position in enumerate(position_T):
        for i in range(K // 2):
            a, j = position * base ** (-2 * i / K), i + K // 2
            turns[t, 0][[i, i, j, j], [i, j, i, j]] = (
                math.cos(a), math.sin(a), -math.sin(a), math.cos(a),
            )  # fmt: skip
    return (x_BTHK.reshape(B, steps, H, 1, K) @ turns).reshape(B, steps, H, K)


def attention(
    q_BTHK: T, k_BSGK: T, v_BSGK: T, causal: bool, key_mask_BS: Any = None
) -> Tensor:
    """Head by head, query by query."""
    (B, steps, H, K), (S, G) = q_BTHK.shape, k_BSGK.shape[1:3]
    rows = []
    for b in range(B):
        for t in range(steps):
            last = S - steps + t + 1 if causal else S
            seen = np.array([
                s for s in range(last) if key_mask_BS is None or key_mask_BS[b, s]
            ], dtype=int)  # fmt: skip
            for h in range(H):
                g = h // (H // G)
                if seen.size == 0:
                    rows.append(q_BTHK[b, t, h].reshape(1, K) * 0.0)
                    continue
                q = q_BTHK[b, t, h].reshape(1, K)
                p = softmax(q @ k_BSGK[b, seen, g].T / math.sqrt(K))
                rows.append(p @ v_BSGK[b, seen, g])
    return concat(rows).reshape(B, steps, H, K)


def qkv_attention(
    qkv_NC: T, batch: int, heads: int, kv_heads: int, causal: bool = True,
    key_mask_BS: Any = None, rotary_base: float | None = None,
) -> Tensor:  # fmt: skip
    """Columns cut into q, k and v, rotated if asked, then `attention`."""
    N, C = qkv_NC.shape
    K = C // (heads + 2 * kv_heads)
    ends = heads * K, (heads + kv_heads) * K
    q, k, v = qkv_NC[:, : ends[0]], qkv_NC[:, ends[0] : ends[1]], qkv_NC[:, ends[1] :]
    q = q.reshape(batch, N // batch, heads, K)
    k, v = (a.reshape(batch, N // batch, kv_heads, K) for a in (k, v))
    if rotary_base is not None:
        position = np.arange(N // batch)
        q, k = rotary(q, position, rotary_base), rotary(k, position, rotary_base)
    return attention(q, k, v, causal, key_mask_BS).reshape(N, heads * K)


def _two(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def conv2d(
    x_BCHW: T, W_OChw: T, b_O: T = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Output place by output place; padding by looking only where the image is."""
    (B, _, H, W), (O, _, h, w) = x_BCHW.shape, W_OChw.shape
    (sh, sw), (ph, pw), (dh, dw) = _two(stride), _two(padding), _two(dilation)
    H2 = (H + 2 * ph - dh * (h - 1) - 1) // sh + 1
    W2 = (W + 2 * pw - dw * (w - 1) - 1) // sw + 1
    places = []
    for u in range(H2):
        for v in range(W2):
            rows = [(i, u * sh + i * dh - ph) for i in range(h)]
            cols = [(j, v * sw + j * dw - pw) for j in range(w)]
            hits = [
                (i, j, a, c) for i, a in rows for j, c in cols
                if 0 <= a < H and 0 <= c < W
            ]  # fmt: skip
            places.append(_one_place(x_BCHW, W_OChw, groups, hits))
    y = concat(places, axis=2).reshape(B, O, H2, W2)
    return y if b_O is None else y + b_O.reshape(O, 1, 1)


def _one_place(x: T, W: T, groups: int, hits: list) -> Tensor:
    B, (O, Cg) = x.shape[0], W.shape[:2]
    if not hits:
        return Tensor(np.zeros((B, O, 1)))
    i, j, a, c = (np.array(column) for column in zip(*hits, strict=True))
    blocks = []
    for g in range(groups):
        seen = x[:, g * Cg : (g + 1) * Cg][:, :, a, c].reshape(B, -1)
        kernel = W[g * (O // groups) : (g + 1) * (O // groups)][:, :, i, j]
        blocks.append(seen @ kernel.reshape(O // groups, -1).T)
    return concat(blocks, axis=1).reshape(B, O, 1)


def conv1d(
    x_BCT: T, W_OCk: T, b_O: T = None, stride: int = 1, padding: int = 0,
    dilation: int = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """`conv2d` over an image of height 1."""
    (B, C, L), (O, Cg, k) = x_BCT.shape, W_OCk.shape
    image, kernel = x_BCT.reshape(B, C, 1, L), W_OCk.reshape(O, Cg, 1, k)
    y = conv2d(image, kernel, b_O, (1, stride), (0, padding), (1, dilation), groups)
    return y.reshape(B, O, y.shape[3])


def lstm_cell(x_ND: T, h_NH: T, c_NH: T, Wx_4HD: T, Wh_4HH: T, b_4H: T) -> tuple:
    """c' = σ(f) c + σ(i) tanh(g), h' = σ(o) tanh(c')"""
    H = h_NH.shape[1]
    z = x_ND @ Wx_4HD.T + h_NH @ Wh_4HH.T + b_4H
    gates = [z[:, n * H : (n + 1) * H] for n in range(4)]
    i, f, o = (1.0 / (exp(-gates[n]) + 1.0) for n in (0, 1, 3))
    c = f * c_NH + i * tanh(gates[2])
    return o * tanh(c), c


def lstm(x_TND: T, h_NH: T, c_NH: T, Wx_4HD: T, Wh_4HH: T, b_4H: T) -> tuple:
    """`lstm_cell`, step after step."""
    steps, N, _ = x_TND.shape
    hs, h, c = [], h_NH, c_NH
    for t in range(steps):
        h, c = lstm_cell(x_TND[t], h, c, Wx_4HD, Wh_4HH, b_4H)
        hs.append(h.reshape(1, N, h_NH.shape[1]))
    return concat(hs), c


def truncated_svd(x: T, k: int) -> Tensor:
    """y = P x with the projector P on the k leading left singular vectors

    No SVD is differentiated: P = (1 + sign(x xᵀ - μ)) / 2 with any μ between σ_k² and
    σ_k+1², and the matrix sign by Newton and Schulz's iteration S ← S (3 - S²) / 2,
    which is a polynomial. On a batch, matrix by matrix.
    """
    if len(x.shape) == 3:
        one = [
            truncated_svd(x[i], k).reshape(1, *x.shape[1:]) for i in range(x.shape[0])
        ]
        return concat(one)
    if x.shape[0] > x.shape[1]:
        return truncated_svd(x.T, k).T
    square = np.linalg.svd(x.data, compute_uv=False) ** 2
    if k == len(square):
        return x * 1.0
    middle = (square[k - 1] + square[k]) / 2
    eye = np.eye(x.shape[0])
    S = (x @ x.T - eye * middle) * (1.0 / (square[0] + middle))
    for _ in range(60):
        S = S @ (eye * 3.0 - S @ S) * 0.5
    return (S + eye) @ x * 0.5


def projection(x_ND: T, P_DK: T) -> Tensor:
    """y = x (P Pᵀ)"""
    return x_ND @ (P_DK @ P_DK.T)


def kl_divergence(z_NV: T, w_NV: T, reduction: str) -> Tensor:
    """Σ p (ln p - ln q), a mean over rows or a sum"""
    p, q = softmax(z_NV), softmax(w_NV)
    total = (p * (log(p) - log(q))).sum()
    return total / z_NV.shape[0] if reduction == "mean" else total


def discriminator_loss(real_N: T, fake_M: T) -> Tensor:
    """- mean ln σ(real) - mean ln(1 - σ(fake))"""
    real, fake = 1.0 / (exp(-real_N) + 1.0), 1.0 / (exp(-fake_M) + 1.0)
    return -log(real).mean() - log(1.0 - fake).mean()


def generator_loss(fake_M: T, saturating: bool) -> Tensor:
    """- mean ln σ(fake), or mean ln(1 - σ(fake))"""
    sigma = 1.0 / (exp(-fake_M) + 1.0)
    return log(1.0 - sigma).mean() if saturating else -log(sigma).mean()


# ---- LoRA, through the dense update ΔW wherever it exists


def lora_linear(
    x_ND: T, W_MD: T, b_M: T, A_RD: T, B_MR: T, s: float, mask_ND: Any = None,
    p: float = 0.0,
) -> Tensor:  # fmt: skip
    """y = x Wᵀ + b + x_d (s B A)ᵀ"""
    dropped = x_ND if mask_ND is None else dropout(x_ND, mask_ND, p)
    delta = (B_MR @ A_RD) * s
    return linear(x_ND, W_MD, b_M) + dropped @ delta.T


def lora_embedding(ids_N: np.ndarray, E_VD: T, A_RV: T, B_DR: T, s: float) -> Tensor:
    """`embedding` of E + s (B A)ᵀ"""
    return embedding(ids_N, (B_DR @ A_RV).T * s + E_VD)


def lora_tied(ids_N: np.ndarray, h_PD: T, E_VD: T, A_RD: T, B_VR: T, s: float) -> tuple:
    """`embedding` and head of E + s B A"""
    E = (B_VR @ A_RD) * s + E_VD
    return embedding(ids_N, E), h_PD @ E.T


def lora_conv2d(
    x_BCHW: T, W_OChw: T, b_O: T, A_RChw: T, B_OR11: T, s: float, stride: Any,
    padding: Any, dilation: Any, groups: int, mask: Any = None, p: float = 0.0,
) -> Tensor:  # fmt: skip
    """The base's convolution plus one with the dense ΔW, built group by group."""
    O, R = W_OChw.shape[0] // groups, A_RChw.shape[0] // groups
    rows = []
    for g in range(groups):
        A = A_RChw[g * R : (g + 1) * R].reshape(R, -1)
        B = B_OR11[g * O : (g + 1) * O].reshape(O, R)
        rows.append((B @ A) * s)
    delta = concat(rows).reshape(*W_OChw.shape)
    dropped = x_BCHW if mask is None else dropout(x_BCHW, mask, p)
    options = (stride, padding, dilation, groups)
    base = conv2d(x_BCHW, tensor(W_OChw), b_O, *options)
    return base + conv2d(dropped, delta, None, *options)


def lora_conv1d(
    x_BCT: T, W_OCk: T, b_O: T, A_RCk: T, B_OR1: T, s: float, stride: int,
    padding: int, dilation: int, groups: int, mask: Any = None, p: float = 0.0,
) -> Tensor:  # fmt: skip
    """`lora_conv2d` over an image of height 1."""

    def lift(a: Any) -> Any:
        return a.reshape(*a.shape[:2], 1, a.shape[2])

    wide = None if mask is None else lift(mask)
    y = lora_conv2d(
        lift(x_BCT), lift(W_OCk), b_O, lift(A_RCk), lift(B_OR1), s, (1, stride),
        (0, padding), (1, dilation), groups, wide, p,
    )  # fmt: skip
    return y.reshape(*y.shape[:2], y.shape[3])


def lora_qkv(
    x_ND: T, W_CD: T, b_C: T, Aq_RD: T, Bq_QR: T, Ak_RD: T, Bk_KR: T, Av_RD: T,
    Bv_KR: T, s: float, widths: tuple,
) -> Tensor:  # fmt: skip
    """`linear` with W + the stacked dense updates, zero for a part left out."""
    pairs = ((Aq_RD, Bq_QR), (Ak_RD, Bk_KR), (Av_RD, Bv_KR))
    D = x_ND.shape[1]
    rows = [
        Tensor(np.zeros((width, D))) if A is None else (B @ A) * s
        for (A, B), width in zip(pairs, widths, strict=True)
    ]
    return linear(x_ND, concat(rows) + W_CD, b_C)


def lora_linear_tasks(
    x_ND: T, W_MD: T, b_M: T, A_JRD: T, B_JMR: T, c_JM: T, task_N: np.ndarray, s: float
) -> Tensor:
    """Row by row: `linear` with its task's W + s B A and b + c"""
    rows = []
    for n, j in enumerate(task_N):
        W = (B_JMR[int(j)] @ A_JRD[int(j)]) * s + W_MD
        y = linear(x_ND[n : n + 1], W, b_M)
        rows.append(y if c_JM is None else y + c_JM[int(j)])
    return concat(rows)


def lora_lstm(
    x_TND: T, h_NH: T, c_NH: T, Wx_4HD: T, Wh_4HH: T, b_4H: T, Ax_RD: T, Bx_4HR: T,
    Ah_RH: T, Bh_4HR: T, s: float,
) -> tuple:  # fmt: skip
    """`lstm` with the dense Wx + s Bx Ax and Wh + s Bh Ah."""
    Wx = Wx_4HD if Ax_RD is None else (Bx_4HR @ Ax_RD) * s + Wx_4HD
    Wh = Wh_4HH if Ah_RH is None else (Bh_4HR @ Ah_RH) * s + Wh_4HH
    return lstm(x_TND, h_NH, c_NH, Wx, Wh, b_4H)


def lora_self_attention(
    x_ND: T, W_CD: T, Wo_DP: T, Aq_RD: T, Bq_QR: T, Ak_RD: T, Bk_KR: T, Av_RD: T,
    Bv_KR: T, Ao_RP: T, Bo_DR: T, s: float, batch: int, heads: int, kv_heads: int,
    causal: bool, key_mask_BS: Any = None,
) -> Tensor:  # fmt: skip
    """`lora_qkv`, `qkv_attention`, then `lora_linear`."""
    P = Wo_DP.shape[1]
    widths = (P, P // heads * kv_heads, P // heads * kv_heads)
    factors = (Aq_RD, Bq_QR, Ak_RD, Bk_KR, Av_RD, Bv_KR)
    qkv = lora_qkv(x_ND, W_CD, None, *factors, s, widths)
    o = qkv_attention(qkv, batch, heads, kv_heads, causal, key_mask_BS)
    return lora_linear(o, Wo_DP, None, Ao_RP, Bo_DR, s)


def dora_linear(
    x_ND: T, W_MD: T, b_M: T, A_RD: T, B_MR: T, m_M: T, s: float, norm_M: Any = None
) -> Tensor:
    """`linear` with (m/n) (W + s B A), n the row norms or the given ones."""
    V = (B_MR @ A_RD) * s + W_MD
    n = (V**2).sum(axis=1) ** 0.5 if norm_M is None else norm_M
    U = V * (m_M / n).reshape(W_MD.shape[0], 1)
    return linear(x_ND, U, b_M)
