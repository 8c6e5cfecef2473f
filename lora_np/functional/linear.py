"""The linear map with a bias.

N rows (batch and time flattened) · D inputs · M outputs
"""

from collections.abc import Container

from lora_np.backend import Array, add_to, column_sum
from lora_np.functional.contract import (
    ALL,
    differentiable,
    expect_float,
    expect_shape,
)


@differentiable("x", "W", "b")
def linear(
    x_ND: Array,
    W_MD: Array,
    b_M: Array | None = None,
    *,
    needs: Container[str] = ALL,
) -> tuple[Array, tuple]:
    """y = x Wᵀ + b

    Indices: y_nm = Σ_d x_nd W_md + b_m.

    Args: x_ND, W_MD (out, in), b_M or None; zero rows are allowed.
    Returns: y_NM and what the backward needs.
    Raises: ValueError for shapes that do not fit, TypeError for integer arrays.

    >>> import numpy as np
    >>> linear(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([0.5]))[0]
    array([[11.5]])
    """
    expect_float(x=x_ND, W=W_MD, b=b_M)
    expect_shape("x_ND", x_ND, (None, None), "flatten batch and time to rows first")
    expect_shape("W_MD", W_MD, (None, x_ND.shape[1]), "W is stored (out, in)")
    y_NM = x_ND @ W_MD.T
    if b_M is not None:
        expect_shape("b_M", b_M, (W_MD.shape[0],))
        y_NM = add_to(y_NM, b_M)
    saved_x = x_ND if "W" in needs else None  # a frozen W does not need x
    saved_W = W_MD if "x" in needs else None
    return y_NM, (saved_x, saved_W, b_M is not None and "b" in needs)


def linear_backward(dy_NM: Array, cache: tuple) -> tuple:
    """db = Σ_n dy_n,  dW = dyᵀ x,  dx = dy W

    With G = dL/dy, from dL = Σ_nm G_nm dy_nm:
      dL/db_m  = Σ_n G_nm
      dL/dW_md = Σ_n G_nm x_nd        = (Gᵀ x)_md
      dL/dx_nd = Σ_m G_nm W_md        = (G W)_nd
    Returns (dx, dW, db); None where `needs` left one out.

    >>> import numpy as np
    >>> _, c = linear(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]))
    >>> linear_backward(np.array([[10.0]]), c)[:2]
    (array([[30., 40.]]), array([[10., 20.]]))
    """
    x_ND, W_MD, has_b = cache
    db_M = column_sum(dy_NM) if has_b else None
    dW_MD = None if x_ND is None else dy_NM.T @ x_ND
    dx_ND = None if W_MD is None else dy_NM @ W_MD
    return dx_ND, dW_MD, db_M
