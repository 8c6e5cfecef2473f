"""One problem definition a pair: the keyword arguments of its forward, drawn.

What every problem obeys: pairwise different sizes or a square case, s ≠ 1, B ≠ 0, at
least two rows, repeated ids, r = 1 as well as r > min(in, out).
"""

from typing import Any

import numpy as np

from lora_np.lora.dora import row_norm
from lora_np.reference.draw import Draw

Problem = dict[str, Any]


def linear(d: Draw) -> Problem:
    """Three sizes; a bias two times in three."""
    N, D, M = d.sizes(3)
    b = d.array(M) if d.choice([True, False, True]) else None
    return {"x_ND": d.array(N, D), "W_MD": d.array(M, D), "b_M": b}


def embedding(d: Draw) -> Problem:
    """Repeated ids."""
    N, V, D = d.sizes(3)
    return {"ids_N": d.ids(N, V), "E_VD": d.array(V, D)}


def layer_norm(d: Draw) -> Problem:
    """Rows with variance; with and without a bias; two sizes of eps."""
    N, D = d.sizes(2, low=3)
    x = d.array(N, D) + np.arange(D)  # no row without variance
    b = d.array(D) if d.choice([True, False, True]) else None
    eps = d.choice([1e-5, 0.1])
    return {"x_ND": x, "g_D": d.array(D), "b_D": b, "eps": eps}


def rms_norm(d: Draw) -> Problem:
    """Two sizes of eps, one large enough to notice."""
    N, D = d.sizes(2)
    eps = d.choice([1e-5, 0.1])
    return {"x_ND": d.array(N, D), "g_D": d.array(D), "eps": eps}


def elementwise(d: Draw) -> Problem:
    """A matrix for a smooth activation."""
    return {"x": 1.5 * d.array(*d.sizes(2)) if not d.whole else d.array(*d.sizes(2))}


def relu(d: Draw) -> Problem:
    """A zero, which is the kink, and nothing near it."""
    x = d.array(*d.sizes(2))
    x = 3.0 * x if d.whole else x + 0.01 * np.sign(x)  # no step crosses the kink
    x[0, 0] = 0.0  # which is here
    return {"x": x}


def swiglu(d: Draw) -> Problem:
    """Gate and value."""
    shape = d.sizes(2)
    return {"a": d.array(*shape), "b": d.array(*shape)}


def softmax(d: Draw) -> Problem:
    """Two or three axes."""
    return {"z": d.array(*d.sizes(d.choice([2, 3])))}


def dropout(d: Draw) -> Problem:
    """A mask with both values."""
    shape = d.sizes(2)
    p = d.choice([0.5, 0.75] if d.whole else [0.1, 0.5])
    return {"x": d.array(*shape), "mask": d.mask(*shape), "p": p}


def _targets(d: Draw, N: int, V: int, ignore: int) -> np.ndarray:
    """Repeated targets of which row 1, and only that, does not count (N ≥ 3)."""
    target = d.ids(N, V)
    target[target == ignore] = (ignore + 1) % V
    target[1] = ignore
    return target


def cross_entropy(d: Draw) -> Problem:
    """One row that does not count, under two marks; mean and sum."""
    N, V = d.sizes(2, low=3)
    ignore = d.choice([-100, 2])
    return {
        "z_NV": 2 * d.array(N, V),
        "target_N": _targets(d, N, V, ignore),
        "ignore_index": ignore,
        "reduction": d.choice(["mean", "sum", "mean"]),
    }


def linear_cross_entropy(d: Draw) -> Problem:
    """As `cross_entropy`, with pieces that cut the rows unevenly."""
    N, D, V = d.sizes(3, low=3)
    ignore = d.choice([-100, 2])
    return {"h_ND": d.array(N, D), "W_VD": d.array(V, D),
            "target_N": _targets(d, N, V, ignore), "ignore_index": ignore,
            "reduction": d.choice(["mean", "sum", "mean"]),
            "piece": d.choice([2, 1, 2, 5])}  # fmt: skip


def rotary(d: Draw) -> Problem:
    """Positions from 1, so that the first is turned too."""
    B, T, H = d.sizes(3, high=4)
    K = d.choice([4, 6])
    return {"x_BTHK": d.array(B, T, H, K), "position_T": np.arange(1, T + 1),
            "base": d.choice([100.0, 10000.0])}  # fmt: skip


def _heads(d: Draw) -> tuple[int, int, int]:
    """(query heads, key heads, head size): grouped two times in three."""
    groups, share = d.choice([(2, 1), (2, 2), (1, 3)])
    return groups * share, groups, d.choice([2, 4])


def _padding(d: Draw, B: int, S: int) -> np.ndarray | None:
    if d.choice([True, False]):
        return None
    mask = np.ones((B, S), bool)
    mask[0, -1] = False  # padded on the right
    mask[-1, 0] = d.choice([True, False])  # and on the left: a query that sees nothing
    return mask


def attention(d: Draw) -> Problem:
    """Grouped heads, padding, and more keys than queries."""
    H, G, K = _heads(d)
    B, T = d.sizes(2, high=4)
    causal = d.choice([True, False])
    S = T + d.choice([0, 1, 2])
    return {"q_BTHK": d.array(B, T, H, K), "k_BSGK": d.array(B, S, G, K),
            "v_BSGK": d.array(B, S, G, K), "causal": causal,
            "key_mask_BS": _padding(d, B, S)}  # fmt: skip


def qkv_attention(d: Draw) -> Problem:
    """Grouped heads, padding, with and without rotation."""
    H, G, K = _heads(d)
    B, T = d.sizes(2, high=4)
    return {"qkv_NC": d.array(B * T, (H + 2 * G) * K), "batch": B, "heads": H,
            "kv_heads": G, "causal": d.choice([True, False]),
            "key_mask_BS": _padding(d, B, T),
            "rotary_base": d.choice([None, 100.0])}  # fmt: skip


def _bias(d: Draw, size: int) -> np.ndarray | None:
    """A bias two times in three."""
    return d.array(size) if d.choice([True, False, True]) else None


def conv2d(d: Draw) -> Problem:
    """Uneven kernels, strides, padding, dilation; one or two groups."""
    g = d.choice([1, 2])
    C, O = g * d.choice([1, 2]), g * d.choice([1, 3])
    h, w = d.choice([(1, 2), (2, 3), (3, 2), (2, 2)])
    stride, padding, dilation = (
        d.choice([1, (2, 1)]),
        d.choice([0, (1, 2)]),
        d.choice([1, (1, 2)]),
    )
    H, W = d.choice([(5, 6), (4, 7), (6, 6)])
    return {"x_BCHW": d.array(2, C, H, W), "W_OChw": d.array(O, C // g, h, w),
            "b_O": _bias(d, O), "stride": stride, "padding": padding,
            "dilation": dilation, "groups": g}  # fmt: skip


def conv1d(d: Draw) -> Problem:
    """As `conv2d`, along one axis."""
    g = d.choice([1, 2])
    C, O, k = g * d.choice([1, 2]), g * d.choice([1, 3]), d.choice([2, 3])
    return {"x_BCT": d.array(2, C, d.choice([6, 7])), "W_OCk": d.array(O, C // g, k),
            "b_O": _bias(d, O), "stride": d.choice([1, 2]), "padding": d.choice([0, 1]),
            "dilation": d.choice([1, 2]), "groups": g}  # fmt: skip


def lstm_cell(d: Draw) -> Problem:
    """Three sizes, a state that is not zero."""
    N, D, H = d.sizes(3, high=4)
    return {"x_ND": d.array(N, D), "h_NH": d.array(N, H), "c_NH": d.array(N, H),
            "Wx_4HD": d.array(4 * H, D), "Wh_4HH": d.array(4 * H, H),
            "b_4H": d.array(4 * H)}  # fmt: skip


def lstm(d: Draw) -> Problem:
    """Three steps."""
    cell = lstm_cell(d)
    N, D = cell.pop("x_ND").shape
    half = {k: 0.5 * v for k, v in cell.items()}
    return {"x_TND": d.array(3, N, D), **half}


def truncated_svd(d: Draw) -> Problem:
    """Wide, tall or square, one matrix or several; σ_k and σ_k+1 apart or close.

    The spectrum is built: 4, 2, 1 … with σ_k+1 at 0.5 or 0.95 of σ_k, and two *kept*
    values equal where there are two (which is no trouble).
    """
    N, D = d.sizes(2, low=3)
    most = min(N, D)
    k = d.choice([1, 2, most])
    U, V = (np.linalg.qr(d.generator().normal(size=(n, n)))[0] for n in (N, D))
    sigma = 4.0 * 0.5 ** np.arange(most)
    sigma[k:] *= d.choice([1.0, 1.9])
    if k > 1:
        sigma[k - 2] = sigma[k - 1]
        sigma[: k - 1] = np.maximum(sigma[: k - 1], sigma[k - 1])
    x = (U[:, :most] * sigma) @ V[:, :most].T
    return {"x": np.stack([x, x[::-1, ::-1] * 1.5]) if d.choice([False, True]) else x,
            "k": k}  # fmt: skip


def projection(d: Draw) -> Problem:
    """Down to fewer, as many or more numbers a row."""
    N, D, K = d.sizes(3)
    return {"x_ND": d.array(N, D), "P_DK": d.array(D, K)}


def kl_divergence(d: Draw) -> Problem:
    """Two sets of logits that differ, both reductions."""
    N, V = d.sizes(2)
    return {"z_NV": d.array(N, V), "w_NV": d.array(N, V) + np.arange(V),
            "reduction": d.choice(["mean", "sum"])}  # fmt: skip


def discriminator_loss(d: Draw) -> Problem:
    """Different numbers of real and generated rows."""
    N, M = d.sizes(2)
    return {"real_N": 2.0 * d.array(N), "fake_M": 2.0 * d.array(M)}


def generator_loss(d: Draw) -> Problem:
    """Both forms."""
    return {"fake_M": 2.0 * d.array(*d.sizes(1)), "saturating": d.choice([True, False])}


def lora_linear_tasks(d: Draw) -> Problem:
    """More rows than tasks, tasks repeated and one of them without rows."""
    J, D, M = d.sizes(3, low=3)
    R, N = d.rank(D, M), J + 3
    task = d.ids(N, J - 1)
    return {"x_ND": d.array(N, D), "W_MD": d.array(M, D),
            "b_M": d.array(M) if d.choice([True, False, True]) else None,
            "A_JRD": d.array(J, R, D), "B_JMR": d.array(J, M, R),
            "c_JM": d.array(J, M) if d.choice([True, False, True]) else None,
            "task_N": task, "s": d.scale()}  # fmt: skip


def lora_lstm(d: Draw) -> Problem:
    """Three steps; both weights adapted, or only one of them."""
    p = lstm(d)
    D, H = p["x_TND"].shape[2], p["h_NH"].shape[1]
    which = d.choice(["xh", "x", "h", "xh"])
    for name, width, key in (("x", D, "D"), ("h", H, "H")):
        R = d.rank(width, 4 * H)
        p[f"A{name}_R{key}"] = 0.5 * d.array(R, width) if name in which else None
        p[f"B{name}_4HR"] = 0.5 * d.array(4 * H, R) if name in which else None
    return p | {"s": d.choice([0.5, -0.3, 1.7])}


def lora_linear(d: Draw) -> Problem:
    """r = 1 to more than the sizes; s never 1; dropout half of the time."""
    N, D, M = d.sizes(3)
    R = d.rank(D, M)
    p: Problem = {
        "x_ND": d.array(N, D),
        "W_MD": d.array(M, D),
        "b_M": d.array(M) if d.choice([True, False, True]) else None,
        "A_RD": d.array(R, D),
        "B_MR": d.array(M, R),
        "s": d.scale(),
    }
    if d.choice([True, False]):
        p |= {"mask_ND": d.mask(N, D), "p": 0.5 if d.whole else d.choice([0.1, 0.5])}
    return p


def lora_embedding(d: Draw) -> Problem:
    """Repeated ids, A and B both not zero."""
    N, V, D = d.sizes(3)
    R = d.rank(V, D)
    return {"ids_N": d.ids(N, V), "E_VD": d.array(V, D), "A_RV": d.array(R, V),
            "B_DR": d.array(D, R), "s": d.scale()}  # fmt: skip


def lora_tied(d: Draw) -> Problem:
    """Ids for the lookup and other rows for the head."""
    N, V, D, P = d.sizes(4)
    R = d.rank(V, D)
    return {"ids_N": d.ids(N, V), "h_PD": d.array(P, D), "E_VD": d.array(V, D),
            "A_RD": d.array(R, D), "B_VR": d.array(V, R), "s": d.scale()}  # fmt: skip


def lora_conv2d(d: Draw) -> Problem:
    """`conv2d` with r a multiple of the groups."""
    p = conv2d(d)
    O, _, h, w = p["W_OChw"].shape
    g = p["groups"]
    R = g * d.choice([1, 2])
    p |= {"A_RChw": d.array(R, *p["W_OChw"].shape[1:]),
          "B_OR11": d.array(O, R // g, 1, 1), "s": d.scale()}  # fmt: skip
    if d.choice([True, False]):
        p |= {"mask": d.mask(*p["x_BCHW"].shape), "p": 0.5 if d.whole else 0.2}
    return p


def lora_conv1d(d: Draw) -> Problem:
    """`conv1d` with r a multiple of the groups."""
    p = conv1d(d)
    O, g = p["W_OCk"].shape[0], p["groups"]
    R = g * d.choice([1, 2])
    p |= {"A_RCk": d.array(R, *p["W_OCk"].shape[1:]), "B_OR1": d.array(O, R // g, 1),
          "s": d.scale()}  # fmt: skip
    if d.choice([True, False]):
        p |= {"mask": d.mask(*p["x_BCT"].shape), "p": 0.5 if d.whole else 0.2}
    return p


def _qkv_factors(d: Draw, D: int, widths: tuple, needed: str) -> Problem:
    factors: Problem = {}
    letters = {"q": "Q", "k": "K", "v": "K"}
    for part, width in zip("qkv", widths, strict=True):
        R = d.rank(D, width)
        adapted = part in needed
        factors[f"A{part}_RD"] = d.array(R, D) if adapted else None
        factors[f"B{part}_{letters[part]}R"] = d.array(width, R) if adapted else None
    return factors


def lora_qkv(d: Draw) -> Problem:
    """Any subset of q, k, v adapted; fewer key columns."""
    N, D = d.sizes(2)
    widths = d.choice([(4, 2, 2), (3, 3, 3), (6, 2, 2)])
    parts = d.choice(["q", "v", "qv", "kv", "qkv"])
    C = sum(widths)
    return {
        "x_ND": d.array(N, D),
        "W_CD": d.array(C, D),
        "b_C": d.array(C) if d.choice([True, False]) else None,
        **_qkv_factors(d, D, widths, parts),
        "s": d.scale(),
        "widths": widths,
    }


def lora_self_attention(d: Draw) -> Problem:
    """All of q, k, v and the output adapted, each with its own r."""
    H, G, K = d.choice([(2, 1, 2), (2, 2, 2), (4, 2, 2)])
    B, T = d.choice([(2, 3), (2, 2), (3, 2)])
    D = d.choice([3, 5, H * K])
    R, P = d.rank(D, H * K), H * K
    return {"x_ND": 0.7 * d.array(B * T, D), "W_CD": 0.7 * d.array((H + 2 * G) * K, D),
            "Wo_DP": d.array(D, P), **_qkv_factors(d, D, (P, G * K, G * K), "qkv"),
            "Ao_RP": d.array(R, P), "Bo_DR": d.array(D, R), "s": 0.3, "batch": B,
            "heads": H, "kv_heads": G, "causal": d.choice([True, False]),
            "key_mask_BS": _padding(d, B, T)}  # fmt: skip


def dora_linear(d: Draw) -> Problem:
    """`lora_linear` without dropout, magnitudes that are not the norms."""
    p = lora_linear(d)
    p.pop("mask_ND", None), p.pop("p", None)
    return p | {"m_M": np.abs(d.array(p["W_MD"].shape[0])) + 0.5}


def dora_constant_norm(d: Draw) -> Problem:
    """`dora_linear` with its own norms given as constants."""
    p = dora_linear(d)
    return p | {"norm_M": row_norm(p["W_MD"] + p["s"] * p["B_MR"] @ p["A_RD"])}
