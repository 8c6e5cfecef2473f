"""Linear, embedding, tied head, tasks and DoRA through the dense ΔW.

N rows · D inputs · M outputs · R rank · V vocabulary · J tasks
"""

import math
from typing import Any

import numpy as np

Array = np.ndarray
Result = dict[str, Any]


def scale(lora_alpha: float, r: int, use_rslora: bool = False) -> float:
    """α / r (2106.09685, section 4.1), or α / √r (2312.03732).

    >>> scale(6, 4), scale(6, 4, use_rslora=True)
    (1.5, 3.0)
    """
    return lora_alpha / (math.sqrt(r) if use_rslora else r)


def wide(*arrays: Any) -> list[Any]:
    """Every array as float64; None stays None.

    >>> wide(np.ones(1, np.float32), None)[0].dtype
    dtype('float64')
    """
    return [None if a is None else np.asarray(a, np.float64) for a in arrays]


def product(A: Array, B: Array, s: float) -> Array:
    """ΔW_md = s Σ_r B_mr A_rd, summed rank by rank.

    >>> product(np.array([[1.0, 2.0]]), np.array([[3.0]]), 0.5)
    array([[1.5, 3. ]])
    """
    delta = np.zeros((B.shape[0], A.shape[1]))
    for r in range(A.shape[0]):
        delta += s * np.outer(B[:, r], A[r])
    return delta


def factors(D: Array, A: Array, B: Array, s: float) -> tuple[Array, Array]:
    """(dA, dB) = (s Bᵀ D, s D Aᵀ), D the gradient of the dense update.

    >>> factors(np.ones((1, 2)), np.array([[1.0, 2.0]]), np.array([[3.0]]), 0.5)
    (array([[1.5, 1.5]]), array([[1.5]]))
    """
    return s * (B.T @ D), s * (D @ A.T)


def linear(
    x: Array, W: Array, A: Array, B: Array, s: float, b: Array | None = None,
    mask: Array | None = None, p: float = 0.0, dy: Array | None = None,
) -> Result:  # fmt: skip
    """y = x Wᵀ + x_d ΔWᵀ + b        Hu et al. 2021 (2106.09685), eq. 3

    x (N,D)  W (M,D)  A (R,D)  B (M,R)  b (M,)  dy (N,M); mask (N,D) of 0 and 1 makes
    x_d = x · mask / (1 - p). Returns y, delta, merged (M,D) and with dy dx, db, dA, dB.

    >>> one = np.ones((1, 1))
    >>> linear(one, one, one, one, s=3.0)["y"].item()
    4.0
    """
    x, W, A, B, b, dy = wide(x, W, A, B, b, dy)
    delta = product(A, B, s)
    keep = np.ones_like(x) if mask is None else np.asarray(mask, np.float64) / (1 - p)
    y = np.einsum("nd,md->nm", x, W) + np.einsum("nd,nd,md->nm", x, keep, delta)
    out: Result = {"y": y if b is None else y + b, "delta": delta, "merged": W + delta}
    if dy is not None:
        out["dA"], out["dB"] = factors(np.einsum("nm,nd->md", dy, x * keep), A, B, s)
        out["dx"] = np.einsum("nm,md->nd", dy, W)
        out["dx"] = out["dx"] + keep * np.einsum("nm,md->nd", dy, delta)
        out["db"] = None if b is None else np.einsum("nm->m", dy)
    return out


def embedding(
    ids: Array, E: Array, A: Array, B: Array, s: float, dy: Array | None = None,
) -> Result:  # fmt: skip
    """y = one-hot(ids) (E + ΔE),  ΔE = s (B A)ᵀ

    ids (N,)  E (V,D)  A (R,V)  B (D,R)  dy (N,D).
    Returns y, delta, merged (V,D), dA, dB.

    >>> embedding(np.array([0]), np.ones((1, 1)), np.ones((1, 1)),
    ...                 np.ones((1, 1)), s=3.0)["y"].item()
    4.0
    """
    E, A, B, dy = wide(E, A, B, dy)
    hot = np.eye(E.shape[0])[ids]
    delta = product(A, B, s).T
    out: Result = {"y": hot @ (E + delta), "delta": delta, "merged": E + delta}
    if dy is not None:
        out["dA"], out["dB"] = factors((hot.T @ dy).T, A, B, s)
    return out


def tied(
    ids: Array, h: Array, E: Array, A: Array, B: Array, s: float,
    dy: tuple[Array, Array] | None = None,
) -> Result:  # fmt: skip
    """y0 = one-hot(ids) E',  y1 = h E'ᵀ,  E' = E + s B A: one matrix, used twice

    ids (N,)  h (P,D)  E (V,D)  A (R,D)  B (V,R)  dy ((N,D), (P,V)).
    Returns y0, y1, delta, merged (V,D), dh, dA, dB.

    >>> one = np.ones((1, 1))
    >>> tied(np.array([0]), one, one, one, one, s=3.0)["y1"].item()
    4.0
    """
    h, E, A, B = wide(h, E, A, B)
    hot, delta = np.eye(E.shape[0])[ids], product(A, B, s)
    whole = E + delta
    out: Result = {
        "y0": hot @ whole,
        "y1": h @ whole.T,
        "delta": delta,
        "merged": whole,
    }
    if dy is not None:
        looked_up, scores = wide(*dy)
        out["dh"] = scores @ whole
        out["dA"], out["dB"] = factors(hot.T @ looked_up + scores.T @ h, A, B, s)
    return out


def tasks(
    x: Array, W: Array, A: Array, B: Array, task: Array, s: float,
    b: Array | None = None, c: Array | None = None, dy: Array | None = None,
) -> Result:  # fmt: skip
    """y_n = x_n (W + ΔW_j)ᵀ + b + c_j,  j = task_n; row by row

    x (N,D)  W (M,D)  A (J,R,D)  B (J,M,R)  task (N,)  c (J,M)  dy (N,M).
    Returns y, delta and merged (J,M,D), dx, dA, dB, dc.

    >>> one = np.ones((1, 1))
    >>> tasks(one, one, one[None], one[None], np.array([0]), s=3.0)["y"].item()
    4.0
    """
    x, W, A, B, b, c, dy = wide(x, W, A, B, b, c, dy)
    delta = np.stack([product(a, f, s) for a, f in zip(A, B, strict=True)])
    y = np.stack([(W + delta[j]) @ row for row, j in zip(x, task, strict=True)])
    y = y if b is None else y + b
    y = y if c is None else y + c[task]
    out: Result = {"y": y, "delta": delta, "merged": W + delta}
    if dy is None:
        return out
    dense = np.zeros_like(delta)
    for row, g, j in zip(x, dy, task, strict=True):
        dense[j] += np.outer(g, row)
    pairs = [factors(*parts, s) for parts in zip(dense, A, B, strict=True)]
    out["dA"], out["dB"] = (np.stack(part) for part in zip(*pairs, strict=True))
    out["dx"] = np.stack([g @ (W + delta[j]) for g, j in zip(dy, task, strict=True)])
    out["dc"] = None if c is None else np.stack(
        [dy[task == j].sum(0) for j in range(len(c))]
    )  # fmt: skip
    return out


def dora(
    x: Array, W: Array, A: Array, B: Array, m: Array, s: float,
    b: Array | None = None, norm: Array | None = None, dy: Array | None = None,
) -> Result:  # fmt: skip
    """y = x Uᵀ + b,  U_i = m_i V_i / n_i,  V = W + ΔW        Liu et al. 2024, eq. 5

    As `linear`, with m (M,). norm (M,): None differentiates n_i = ‖V_i‖ as well; given,
    it is a constant (2402.09353, section 4.3; PEFT). A row of length 0 gives 0.
    Returns y, delta = U - W, merged = U, dx, db, dA, dB, dm.

    >>> one = np.ones((1, 1))
    >>> dora(one, one, one, one, np.array([5.0]), s=3.0)["y"].item()
    5.0
    """
    x, W, A, B, m, b, dy, norm = wide(x, W, A, B, m, b, dy, norm)
    V = W + product(A, B, s)
    n = np.sqrt(np.einsum("md,md->m", V, V)) if norm is None else norm
    U = np.array([m[i] * V[i] / n[i] if n[i] else 0 * V[i] for i in range(len(V))])
    y = np.einsum("nd,md->nm", x, U)
    out: Result = {"y": y if b is None else y + b, "delta": U - W, "merged": U}
    if dy is None:
        return out
    G = np.einsum("nm,nd->md", dy, x)
    dV, dm = np.zeros_like(V), np.zeros_like(m)
    for i in range(len(V)):
        if n[i]:
            v = V[i] / n[i]
            jacobian = np.eye(len(v)) * (m[i] / n[i])
            if norm is None:
                jacobian -= np.outer(v, v) * (m[i] / n[i])
            dV[i], dm[i] = jacobian @ G[i], G[i] @ v
    out["dA"], out["dB"] = factors(dV, A, B, s)
    out["dx"], out["dm"] = dy @ U, dm
    out["db"] = None if b is None else dy.sum(0)
    return out
