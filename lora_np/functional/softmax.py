"""Softmax over the last axis, and what stays stable about it.

... any leading axes · V entries
"""

from collections.abc import Container

from lora_np.backend import Array, get_xp, row_sum
from lora_np.functional.contract import ALL, differentiable, expect_float


def shifted_exp(z: Array) -> Array:
    """exp(z - max z) along the last axis; a row of -inf alone gives zeros.

    The shift is by the real part's maximum, so that a complex step passes through.

    >>> import numpy as np
    >>> shifted_exp(np.array([[1000.0, 1000.0]]))
    array([[1., 1.]])
    """
    xp = get_xp(z)
    if z.shape[-1] == 0:
        return z
    top = z.real.max(axis=-1, keepdims=True)
    top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    e = z - top
    return xp.exp(e, out=e)


@differentiable("z")
def softmax(z: Array, *, needs: Container[str] = ALL) -> tuple[Array, Array | None]:
    """p_i = exp(z_i) / Σ_j exp(z_j)

    Any leading axes.  Raises ValueError for an empty last axis.

    >>> import numpy as np
    >>> softmax(np.array([[0.0, 0.0]]))[0]
    array([[0.5, 0.5]])
    """
    expect_float(z=z)
    if z.ndim == 0 or z.shape[-1] == 0:
        raise ValueError(f"softmax needs at least one entry a row, got {z.shape}")
    p = shifted_exp(z)
    p = p / row_sum(p) if p.ndim > 1 else p / p.sum()
    return p, p if "z" in needs else None


def softmax_backward(dp: Array, cache: Array | None) -> tuple:
    """dz = p · (dp - Σ_j dp_j p_j)

    Indices: ∂p_i/∂z_j = p_i (δ_ij - p_j), so dz_j = Σ_i dp_i p_i (δ_ij - p_j);
    matrix form: (diag(p) - p pᵀ) dp.  Returns (dz,).

    >>> import numpy as np
    >>> softmax_backward(np.array([[1.0, 0.0]]), softmax(np.zeros((1, 2)))[1])[0]
    array([[ 0.25, -0.25]])
    """
    if cache is None:
        return (None,)
    p = cache
    inner = dp * p
    total = row_sum(inner) if p.ndim > 1 else inner.sum()
    return (inner - p * total,)
