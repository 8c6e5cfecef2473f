"""Features forced to rank k: truncated SVD and a projection, as layers with a gradient.

… leading axes · N rows · D columns · K kept directions · R the rest
"""

from collections.abc import Container

from lora_np.backend import Array, get_xp, to_host
from lora_np.functional.contract import (
    ALL,
    differentiable,
    expect_float,
    expect_shape,
)

NEAR = 64  # singular values closer than NEAR · eps · σ_1 count as equal


def _check_rank(x: Array, k: int) -> None:
    if x.ndim < 2:
        raise ValueError(f"x must be a matrix (..., N, D), got shape {x.shape}")
    most = min(x.shape[-2:])
    whole = hasattr(k, "__index__") and not isinstance(k, bool)
    if not whole or not 1 <= k <= most:
        raise ValueError(
            f"rank k must be an integer in 1 ... {most} for matrices of "
            f"{x.shape[-2]} x {x.shape[-1]}, got {k}"
        )


def _check_gap(sigma: Array, k: int) -> None:
    """Raise ValueError where σ_k = σ_k+1: the truncation has no derivative there."""
    if k == sigma.shape[-1] or sigma.size == 0:
        return
    each = to_host(sigma).reshape(-1, sigma.shape[-1])
    eps = NEAR * float(get_xp(sigma).finfo(each.dtype).eps)
    bad = each[:, k - 1] - each[:, k] <= eps * each[:, 0]
    if bad.any():
        at = int(bad.argmax())
        one, where = each[at], f" in matrix {at}" if len(each) > 1 else ""
        raise ValueError(
            f"singular values {k} and {k + 1} coincide ({one[k - 1]:.6g} and "
            f"{one[k]:.6g}{where}): the truncation to rank "
            f"{k} has no derivative there; choose another k"
            + (", x has a rank below it" if one[k - 1] <= eps * one[0] else "")
        )


@differentiable("x")
def truncated_svd(
    x: Array, k: int, *, needs: Container[str] = ALL
) -> tuple[Array, tuple | None]:
    """y = U_k Σ_k V_kᵀ: the best approximation of x of rank k (Eckart & Young 1936)

    x is (..., N, D), every matrix truncated by itself.
    Raises ValueError for k outside 1 … min(N, D), and, where a gradient is wanted, for
    σ_k = σ_k+1 (there it jumps from one pair of singular vectors to the other).

    >>> import numpy as np
    >>> truncated_svd(np.diag([3.0, 2.0]), 1)[0]
    array([[3., 0.],
           [0., 0.]])
    """
    expect_float(x=x)
    _check_rank(x, k)
    if x.dtype.itemsize == 2:
        raise TypeError(f"an SVD needs float32 or float64, got {x.dtype}")
    xp = get_xp(x)
    if not xp.isfinite(x).all():
        raise ValueError("x is not finite: an SVD of it does not exist")
    U, sigma, Vt = xp.linalg.svd(x, full_matrices=False)
    y = (U[..., :k] * sigma[..., None, :k]) @ Vt[..., :k, :]
    if "x" not in needs:
        return y, None
    _check_gap(sigma, k)
    return y, (U, sigma, Vt, k)


def _swap(a: Array) -> Array:
    return a.swapaxes(-1, -2)


def truncated_svd_backward(dy: Array, cache: tuple | None) -> tuple:
    """dx = P dy + dy Q - P dy Q + U_k E V_rᵀ + U_r Fᵀ V_kᵀ

    with P = U_k U_kᵀ, Q = V_k V_kᵀ, g = Uᵀ dy V and, for kept i and other j,
    E_ij = σ_j (σ_j g_ij + σ_i g_ji) / (σ_i² - σ_j²),
    F_ij = σ_j (σ_j g_ji + σ_i g_ij) / (σ_i² - σ_j²).

    Derivation: write dX in the bases, X + dX = U (Σ + m) Vᵀ with m = Uᵀ dX V. For i
    kept and j not, first-order perturbation turns the kept pair i towards j, so that
    dY_ij = σ_i (σ_i m_ij + σ_j m_ji) / (σ_i² - σ_j²), and dY_ji the same with m_ij and
    m_ji exchanged; inside the kept block dY_ij = m_ij, elsewhere 0. The map m → dY is
    symmetric, so the gradient is the same map applied to dy; σ_i² / (σ_i² - σ_j²) =
    1 + σ_j² / (σ_i² - σ_j²) separates the projection on the tangent space of the rank-k
    matrices (first three terms) from its curvature (last two). Equal singular values
    *inside* the kept block do no harm: no difference of two of them occurs. In a
    general SVD backward, which derives U and V by themselves, they do.  Returns (dx,).

    >>> import numpy as np
    >>> _, c = truncated_svd(np.diag([3.0, 2.0]), 1)
    >>> truncated_svd_backward(np.array([[1.0, 1.0], [0.0, 1.0]]), c)[0]
    array([[1. , 1.8],
           [1.2, 0. ]])
    """
    if cache is None:
        return (None,)
    U, sigma, Vt, k = cache
    Uk, Ur, Vk, Vr = U[..., :k], U[..., k:], Vt[..., :k, :], Vt[..., k:, :]
    kept, rest = sigma[..., :k, None], sigma[..., None, k:]
    left = _swap(Uk) @ dy  # (K, D)
    right = dy @ _swap(Vk)  # (N, K)
    core = left @ _swap(Vk)  # g for kept i and kept j
    dx = Uk @ (left - core @ Vk) + right @ Vk
    if rest.shape[-1]:
        c_KR = rest / (kept * kept - rest * rest)
        g_KR, h_KR = left @ _swap(Vr), _swap(_swap(Ur) @ right)
        dx = dx + Uk @ (c_KR * (rest * g_KR + kept * h_KR)) @ Vr
        dx = dx + Ur @ _swap(c_KR * (rest * h_KR + kept * g_KR)) @ Vk
    return (dx,)


@differentiable("x", "P")
def projection(
    x_ND: Array, P_DK: Array, *, needs: Container[str] = ALL
) -> tuple[Array, tuple]:
    """y = (x P) Pᵀ: down to K numbers a row and back up

    P with entries N(0, 1/K) is the random projection of Johnson & Lindenstrauss 1984:
    x P keeps distances up to about √(2/K), and E[P Pᵀ] = 1, but y is no approximation
    of x: its squared error is about (D/K) |x|². P with orthonormal columns gives the
    orthogonal projector.

    >>> import numpy as np
    >>> projection(np.array([[3.0, 4.0]]), np.array([[1.0], [0.0]]))[0]
    array([[3., 0.]])
    """
    expect_float(x=x_ND, P=P_DK)
    expect_shape("x_ND", x_ND, (None, None), "flatten batch and time to rows first")
    expect_shape("P_DK", P_DK, (x_ND.shape[1], None))
    u_NK = x_ND @ P_DK
    return u_NK @ P_DK.T, (x_ND, u_NK, P_DK, "x" in needs, "P" in needs)


def projection_backward(dy_ND: Array, cache: tuple) -> tuple:
    """dx = (dy P) Pᵀ;  dP = xᵀ (dy P) + dyᵀ (x P): P is used twice, so two terms add

    Indices: y_nd = Σ_ek x_ne P_ek P_dk, so
    dP_ek = Σ_nd dy_nd x_ne P_dk + Σ_nd dy_ne x_nd P_dk.  Returns (dx, dP).

    >>> import numpy as np
    >>> _, c = projection(np.array([[3.0, 4.0]]), np.array([[1.0], [0.0]]))
    >>> projection_backward(np.array([[1.0, 0.0]]), c)[1]
    array([[6.],
           [4.]])
    """
    x_ND, u_NK, P_DK, want_x, want_P = cache
    v_NK = dy_ND @ P_DK
    dx_ND = v_NK @ P_DK.T if want_x else None
    dP_DK = x_ND.T @ v_NK + dy_ND.T @ u_NK if want_P else None
    return dx_ND, dP_DK
