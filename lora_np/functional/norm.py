"""Layer norm and RMS norm over the last axis.

N rows · D width. Means over D are matrix products with a column of 1/D (speed).
"""

from collections.abc import Container

from lora_np.backend import Array, add_to, column_sum, get_xp, row_sum
from lora_np.functional.contract import (
    ALL,
    differentiable,
    expect_float,
    expect_shape,
)


def _check(x_ND: Array, eps: float, **vectors: Array | None) -> None:
    expect_float(x=x_ND, **vectors)
    expect_shape("x_ND", x_ND, (None, None), "flatten batch and time to rows first")
    for name, v in vectors.items():
        if v is not None:
            expect_shape(f"{name}_D", v, (x_ND.shape[1],))
    if eps < 0:
        raise ValueError(f"eps must be 0 or more, got {eps}")


def _mean(x_ND: Array) -> Array:
    return row_sum(x_ND) * (1.0 / x_ND.shape[-1])


@differentiable("x", "g", "b")
def layer_norm(
    x_ND: Array,
    g_D: Array,
    b_D: Array | None = None,
    eps: float = 1e-5,
    *,
    needs: Container[str] = ALL,
) -> tuple[Array, tuple]:
    """y = g · (x - μ) / √(σ² + eps) + b        Ba et al. 2016 (1607.06450)

    μ and σ² are the row's mean and biased variance; eps stands inside the root.
    Gain g, bias b (or None), both (D,).  Raises ValueError, TypeError.

    >>> import numpy as np
    >>> layer_norm(np.array([[1.0, 3.0]]), np.ones(2), np.zeros(2), eps=0.0)[0]
    array([[-1.,  1.]])
    """
    _check(x_ND, eps, g=g_D, b=b_D)
    centred_ND = x_ND - _mean(x_ND)
    rstd_N1 = 1.0 / get_xp(x_ND).sqrt(_mean(centred_ND * centred_ND) + eps)
    xhat_ND = centred_ND * rstd_N1
    y_ND = xhat_ND * g_D
    if b_D is not None:
        y_ND = add_to(y_ND, b_D)
    keep = "x" in needs or "g" in needs
    cache = (xhat_ND if keep else None, rstd_N1, g_D)
    return y_ND, cache + ("x" in needs, "g" in needs, b_D is not None and "b" in needs)


def layer_norm_backward(dy_ND: Array, cache: tuple) -> tuple:
    """dx = (u - mean(u) - x̂ · mean(u · x̂)) / √(σ² + eps),  u = g · dy

    Indices, for one row, with r = (σ²+eps)^(-1/2) and x̂_i = (x_i - μ) r:
      ∂μ/∂x_j = 1/D,  ∂r/∂x_j = -r² x̂_j / D  (the mean's own part sums to zero), so
      ∂x̂_i/∂x_j = r (δ_ij - 1/D - x̂_i x̂_j / D), and dx_j = Σ_i u_i ∂x̂_i/∂x_j.
    dg = Σ_n dy x̂,  db = Σ_n dy.  Returns (dx, dg, db).

    >>> import numpy as np
    >>> _, c = layer_norm(np.array([[1.0, 3.0, 8.0]]), np.ones(3))
    >>> dx = layer_norm_backward(np.array([[1.0, 2.0, 4.0]]), c)[0]
    >>> bool(abs(dx.sum()) < 1e-15)   # moving all of x together changes nothing
    True
    """
    xhat_ND, rstd_N1, g_D, need_x, need_g, need_b = cache
    db_D = column_sum(dy_ND) if need_b else None
    dg_D = column_sum(dy_ND * xhat_ND) if need_g else None
    dx_ND = None
    if need_x:
        u_ND = dy_ND * g_D
        dx_ND = u_ND - _mean(u_ND) - xhat_ND * _mean(u_ND * xhat_ND)
        dx_ND *= rstd_N1
    return dx_ND, dg_D, db_D


@differentiable("x", "g")
def rms_norm(
    x_ND: Array, g_D: Array, eps: float = 1e-5, *, needs: Container[str] = ALL
) -> tuple[Array, tuple]:
    """y = g · x / √(mean(x²) + eps)        Zhang & Sennrich 2019 (1910.07467)

    >>> import numpy as np
    >>> rms_norm(np.array([[3.0, 3.0]]), np.ones(2), eps=0.0)[0]
    array([[1., 1.]])
    """
    _check(x_ND, eps, g=g_D)
    rrms_N1 = 1.0 / get_xp(x_ND).sqrt(_mean(x_ND * x_ND) + eps)
    xhat_ND = x_ND * rrms_N1
    return xhat_ND * g_D, (xhat_ND, rrms_N1, g_D, "x" in needs, "g" in needs)


def rms_norm_backward(dy_ND: Array, cache: tuple) -> tuple:
    """dx = (u - x̂ · mean(u · x̂)) / √(mean(x²) + eps),  u = g · dy;  dg = Σ_n dy x̂

    Indices, with r = (mean x² + eps)^(-1/2): ∂r/∂x_j = -r² x̂_j / D, so
    ∂x̂_i/∂x_j = r (δ_ij - x̂_i x̂_j / D).  Returns (dx, dg).

    >>> import numpy as np
    >>> x = np.array([[3.0, 4.0]]); _, c = rms_norm(x, np.ones(2), eps=0.0)
    >>> dx, dg = rms_norm_backward(np.array([[1.0, 0.0]]), c)
    >>> bool(abs((dx * x).sum()) < 1e-15)   # scaling x changes nothing
    True
    """
    xhat_ND, rrms_N1, g_D, need_x, need_g = cache
    dg_D = column_sum(dy_ND * xhat_ND) if need_g else None
    dx_ND = None
    if need_x:
        u_ND = dy_ND * g_D
        dx_ND = (u_ND - xhat_ND * _mean(u_ND * xhat_ND)) * rrms_N1
    return dx_ND, dg_D
