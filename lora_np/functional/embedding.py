"""Rows of a table, looked up by id.

N tokens · V vocabulary · D width
"""

from collections.abc import Container

from lora_np.backend import Array, get_xp, scatter_add
from lora_np.functional.contract import (
    ALL,
    differentiable,
    expect_float,
    expect_ids,
    expect_shape,
)


@differentiable("E")
def embedding(
    ids_N: Array, E_VD: Array, *, needs: Container[str] = ALL
) -> tuple[Array, tuple]:
    """y_n = E[ids_n]

    The same as one-hot(ids) E, without the product with zeros.

    Args: ids_N integers in 0 … V-1, E_VD.
    Raises: IndexError for an id out of range (host arrays), TypeError, ValueError.

    >>> import numpy as np
    >>> embedding(np.array([1, 1]), np.array([[1.0], [2.0]]))[0]
    array([[2.],
           [2.]])
    """
    expect_float(E=E_VD)
    expect_shape("ids_N", ids_N, (None,), "flatten batch and time to one axis")
    expect_shape("E_VD", E_VD, (None, None))
    expect_ids("ids_N", ids_N, E_VD.shape[0])
    return E_VD[ids_N], (ids_N if "E" in needs else None, E_VD.shape)


def embedding_backward(dy_ND: Array, cache: tuple) -> tuple:
    """dE[v] = Σ over the n with ids_n = v of dy_n: repeated ids add up.

    Indices: y_nd = Σ_v 1[ids_n = v] E_vd, so dE_vd = Σ_n 1[ids_n = v] dy_nd
    = (one-hotᵀ dy)_vd.  Returns (dE,).

    >>> import numpy as np
    >>> _, c = embedding(np.array([1, 1]), np.zeros((2, 1)))
    >>> embedding_backward(np.array([[1.0], [2.0]]), c)[0]
    array([[0.],
           [3.]])
    """
    ids_N, shape = cache
    if ids_N is None:
        return (None,)
    dE_VD = get_xp(dy_ND).zeros(shape, dtype=dy_ND.dtype)
    scatter_add(dE_VD, ids_N, dy_ND)
    return (dE_VD,)
