"""Kullback–Leibler divergence of two rows of logits: distillation, virtual adversaries.

N rows · V classes
"""

from collections.abc import Container

from lora_np.backend import Array, get_xp, row_sum
from lora_np.functional.contract import (
    ALL,
    differentiable,
    expect_float,
    expect_shape,
)
from lora_np.functional.softmax import shifted_exp


def _log_softmax(z_NV: Array) -> tuple[Array, Array]:
    """(p, ln p) of each row."""
    xp = get_xp(z_NV)
    e_NV = shifted_exp(z_NV)
    total_N1 = row_sum(e_NV)
    top_N1 = z_NV.real.max(axis=-1, keepdims=True)
    return e_NV / total_N1, z_NV - top_N1 - xp.log(total_N1)


@differentiable("z", "w")
def kl_divergence(
    z_NV: Array, w_NV: Array, reduction: str = "mean", *, needs: Container[str] = ALL
) -> tuple[Array, tuple]:
    """L = (1/N) Σ_n Σ_v p_nv (ln p_nv - ln q_nv),   p = softmax(z), q = softmax(w)

    In nats; z are the teacher's (or the clean) logits, w those that should follow.
    reduction "mean" divides by the rows, "sum" does not.  Returns a 0-d array.
    Raises ValueError for another reduction, a mean over no row or other shapes.

    >>> import numpy as np
    >>> float(kl_divergence(np.zeros((1, 2)), np.zeros((1, 2)))[0])
    0.0
    """
    expect_float(z=z_NV, w=w_NV)
    expect_shape("z_NV", z_NV, (None, None))
    expect_shape("w_NV", w_NV, tuple(z_NV.shape), "the same classes for both")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
    if z_NV.shape[0] == 0 and reduction == "mean":
        raise ValueError("the mean over no row is undefined")
    if z_NV.size == 0:
        kept = [a if n in needs else None for n, a in (("z", z_NV), ("w", w_NV))]
        return (z_NV + w_NV).sum(), (*kept, 1.0)
    p_NV, log_p = _log_softmax(z_NV)
    q_NV, log_q = _log_softmax(w_NV)
    ratio_NV = log_p - log_q
    loss_N1 = row_sum(p_NV * ratio_NV)
    n = float(z_NV.shape[0]) if reduction == "mean" else 1.0
    slope_NV = p_NV * (ratio_NV - loss_N1) if "z" in needs else None
    pull_NV = q_NV - p_NV if "w" in needs else None
    return loss_N1.sum() / n, (slope_NV, pull_NV, n)


def kl_divergence_backward(dy: Array, cache: tuple) -> tuple:
    """dz = dy p (ln p - ln q - L_n) / N;   dw = dy (q - p) / N

    Indices: ∂p_i/∂z_j = p_i (δ_ij - p_j) and Σ_i p_i ∂(ln p_i)/∂z_j = 0, so
    dz_j = Σ_i p_i (δ_ij - p_j)(ln p_i - ln q_i); and ∂(-Σ_i p_i ln q_i)/∂w_j =
    q_j - p_j: cross-entropy's gradient with p for the one-hot.  Returns (dz, dw).

    >>> import numpy as np
    >>> _, c = kl_divergence(np.array([[0.0, 0.0]]), np.array([[np.log(3.0), 0.0]]))
    >>> kl_divergence_backward(1.0, c)[1]
    array([[ 0.25, -0.25]])
    """
    slope_NV, pull_NV, n = cache
    return (
        None if slope_NV is None else slope_NV * (dy / n),
        None if pull_NV is None else pull_NV * (dy / n),
    )
