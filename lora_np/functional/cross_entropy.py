"""Cross-entropy from logits, alone and fused with the output head.

N rows · D width · V vocabulary
"""

from collections.abc import Container

from lora_np.backend import Array, get_xp, row_sum, to_host
from lora_np.functional.contract import (
    ALL,
    differentiable,
    expect_float,
    expect_shape,
)

IGNORE = -100  # the field's usual mark for a position that is not counted


def counted_targets(
    target_N: Array, vocabulary: int, ignore_index: int, reduction: str
) -> tuple[Array, Array, float]:
    """(ids with the ignored ones set to 0, 0/1 mask of the counted ones, divisor).

    Raises ValueError for another reduction or a mean over nothing, IndexError for a
    target outside the vocabulary, TypeError for targets that are no integers.

    >>> import numpy as np
    >>> counted_targets(np.array([2, -100]), 3, -100, "mean")
    (array([2, 0]), array([ True, False]), 1.0)
    """
    if target_N.dtype.kind not in "iu":
        raise TypeError(f"target_N must be integers, got {target_N.dtype}")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
    keep_N = target_N != ignore_index
    ids_N = get_xp(target_N).where(keep_N, target_N, 0 * target_N)
    if ids_N.size:
        low, high = int(to_host(ids_N.min())), int(to_host(ids_N.max()))
        if low < 0 or high >= vocabulary:
            bad = low if low < 0 else high
            raise IndexError(
                f"targets must lie in 0 ... {vocabulary - 1} or be {ignore_index} "
                f"(not counted), got {bad}"
            )
    count = int(to_host(keep_N.sum()))
    if reduction == "mean" and count == 0:
        raise ValueError(
            "the mean over no counted position is undefined: every target equals "
            f"ignore_index = {ignore_index}, or there are no rows"
        )
    return ids_N, keep_N, float(count) if reduction == "mean" else 1.0


def _loss_and_slope(
    z_NV: Array, ids_N: Array, keep_N: Array, want: bool
) -> tuple[Array, Array | None]:
    """Summed loss of the counted rows and, if wanted, p - one-hot for them."""
    xp = get_xp(z_NV)
    rows = xp.arange(z_NV.shape[0])
    top_N1 = z_NV.real.max(axis=-1, keepdims=True)
    e_NV = z_NV - top_N1
    picked_N = e_NV[rows, ids_N]
    e_NV = xp.exp(e_NV, out=e_NV)
    total_N1 = row_sum(e_NV)
    loss_N = xp.log(total_N1[:, 0]) - picked_N
    loss = xp.where(keep_N, loss_N, xp.zeros_like(loss_N)).sum()
    if not want:
        return loss, None
    e_NV *= keep_N[:, None] / total_N1
    e_NV[rows, ids_N] -= keep_N
    return loss, e_NV


@differentiable("z")
def cross_entropy(
    z_NV: Array,
    target_N: Array,
    ignore_index: int = IGNORE,
    reduction: str = "mean",
    *,
    needs: Container[str] = ALL,
) -> tuple[Array, Array | None]:
    """L = (1/n) Σ_i [ln Σ_v exp(z_iv) - z_i,target],  over the n counted rows, in nats

    Args: logits z_NV; target_N integers, `ignore_index` for rows that do not count;
    reduction "mean" (divide by n) or "sum".  Returns a 0-d array.
    Raises: ValueError (mean over nothing, shapes), IndexError, TypeError.

    >>> import numpy as np
    >>> loss = cross_entropy(np.zeros((1, 10)), np.array([3]))[0]
    >>> round(float(loss), 4)   # ln 10
    2.3026
    """
    expect_float(z=z_NV)
    expect_shape("z_NV", z_NV, (None, None))
    expect_shape("target_N", target_N, (z_NV.shape[0],), "one target a row")
    ids_N, keep_N, n = counted_targets(target_N, z_NV.shape[1], ignore_index, reduction)
    if z_NV.shape[0] == 0:
        return z_NV.sum(), z_NV if "z" in needs else None
    loss, dz_NV = _loss_and_slope(z_NV, ids_N, keep_N, "z" in needs)
    if dz_NV is not None and n != 1.0:
        dz_NV *= 1.0 / n
    return loss / n, dz_NV


def cross_entropy_backward(dy: Array, cache: Array | None) -> tuple:
    """dz_i = dy (softmax(z_i) - one-hot(target_i)) / n; zero in rows not counted.

    Indices: ∂(ln Σ_v exp z_iv)/∂z_ij = p_ij and ∂z_i,t/∂z_ij = δ_tj.  Returns (dz,).

    >>> import numpy as np
    >>> c = cross_entropy(np.zeros((1, 2)), np.array([1]))[1]
    >>> cross_entropy_backward(1.0, c)[0]
    array([[ 0.5, -0.5]])
    """
    return (None if cache is None else cache * dy,)


@differentiable("h", "W")
def linear_cross_entropy(
    h_ND: Array,
    W_VD: Array,
    target_N: Array,
    ignore_index: int = IGNORE,
    reduction: str = "mean",
    piece: int = 256,
    *,
    needs: Container[str] = ALL,
) -> tuple[Array, tuple]:
    """L = cross_entropy(h Wᵀ, target), `piece` rows at a time

    The logits of all rows never exist together, and because the loss is a scalar its
    gradients are formed on the way, so the logits are not computed twice.

    Args: hidden h_ND, head W_VD (out, in), the rest as `cross_entropy`.

    >>> import numpy as np
    >>> t = np.array([0, 2, 1]); h = np.ones((3, 2)); W = np.eye(4, 2)
    >>> a = linear_cross_entropy(h, W, t, piece=2)[0]
    >>> bool(abs(a - cross_entropy(h @ W.T, t)[0]) < 1e-15)
    True
    """
    expect_float(h=h_ND, W=W_VD)
    expect_shape("h_ND", h_ND, (None, None))
    expect_shape("W_VD", W_VD, (None, h_ND.shape[1]), "W is stored (out, in)")
    expect_shape("target_N", target_N, (h_ND.shape[0],), "one target a row")
    if piece < 1:
        raise ValueError(f"piece must be 1 row or more, got {piece}")
    ids_N, keep_N, n = counted_targets(target_N, W_VD.shape[0], ignore_index, reduction)
    xp = get_xp(h_ND, W_VD)
    dtype = xp.result_type(h_ND.dtype, W_VD.dtype)
    dh_ND = xp.empty(h_ND.shape, dtype=dtype) if "h" in needs else None
    dW_VD = xp.zeros(W_VD.shape, dtype=dtype) if "W" in needs else None
    want = dh_ND is not None or dW_VD is not None
    loss = xp.zeros((), dtype=dtype)
    for start in range(0, h_ND.shape[0], piece):
        part = slice(start, start + piece)
        z_PV = h_ND[part] @ W_VD.T
        loss_part, dz_PV = _loss_and_slope(z_PV, ids_N[part], keep_N[part], want)
        loss = loss + loss_part
        if dz_PV is not None:
            dz_PV *= 1.0 / n
        if dh_ND is not None:
            dh_ND[part] = dz_PV @ W_VD
        if dW_VD is not None and dz_PV is not None:
            dW_VD += dz_PV.T @ h_ND[part]
    return loss / n, (dh_ND, dW_VD)


def linear_cross_entropy_backward(dy: Array, cache: tuple) -> tuple:
    """dh = dz W,  dW = dzᵀ h  with dz from `cross_entropy_backward`, times dy.

    The chain through z = h Wᵀ is `linear_backward`'s; the sum over rows in dW is the
    sum over pieces.  Returns (dh, dW).

    >>> import numpy as np
    >>> c = linear_cross_entropy(np.ones((1, 1)), np.zeros((2, 1)), np.array([1]))[1]
    >>> linear_cross_entropy_backward(1.0, c)[1]
    array([[ 0.5],
           [-0.5]])
    """
    return tuple(None if d is None else d * dy for d in cache)
