"""Several adapters of one layer as one.

A_i (r_i, in), B_i (out, r_i), s_i; w_i the wanted weights: Σ w_i s_i B_i A_i.
"""

from collections.abc import Sequence

from lora_np.backend import Array, get_xp
from lora_np.lora.linear import check_factors

WAYS = ("cat", "svd", "linear")


def combine(
    adapters: Sequence[tuple[Array, Array, float]], weights: Sequence[float],
    how: str = "cat", r: int | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """(A, B) of one adapter, to be used with s = 1.

    how: "cat", [w₁s₁A₁; w₂s₂A₂] and [B₁ B₂], of rank Σ r_i: exactly the sum. "svd", the
    best approximation of the sum of rank r (the largest r_i), exact where that is
    enough. "linear", Σ √(w s) A and Σ √(w s) B as PEFT's: for one adapter itself, for
    several *not* the sum (it has the cross terms B₁A₂); a negative w changes A's sign.
    Raises ValueError for another way, no adapters, or ranks that do not fit.

    >>> import numpy as np
    >>> a = np.array([[1.0, 2.0]]), np.array([[1.0], [0.0]]), 0.5
    >>> A, B = combine([a, a], [1.0, 3.0])
    >>> B @ A
    array([[2., 4.],
           [0., 0.]])
    """
    if how not in WAYS:
        raise ValueError(f"how must be one of {WAYS}, got {how!r}")
    if not adapters or len(adapters) != len(weights):
        raise ValueError(
            f"{len(weights)} weights for {len(adapters)} adapters; give one each"
        )
    for A, B, _ in adapters:
        check_factors(A, B, adapters[0][0].shape[1], adapters[0][1].shape[0])
    xp = get_xp(*(A for A, _, _ in adapters))
    scales = [
        float(w) * float(s) for w, (_, _, s) in zip(weights, adapters, strict=True)
    ]
    if how == "cat":
        rows = [c * A for c, (A, _, _) in zip(scales, adapters, strict=True)]
        return xp.concatenate(rows), xp.concatenate([B for _, B, _ in adapters], axis=1)
    if how == "linear":
        return _linear(adapters, scales)
    total = sum(c * (B @ A) for c, (A, B, _) in zip(scales, adapters, strict=True))
    r = r or max(A.shape[0] for A, _, _ in adapters)
    exact = total.astype(xp.float64)  # there is no SVD in float16
    U, sigma, Vt = xp.linalg.svd(exact, full_matrices=False)
    kept = min(r, len(sigma))
    A = xp.zeros((r, total.shape[1]), total.dtype)
    B = xp.zeros((total.shape[0], r), total.dtype)
    A[:kept], B[:, :kept] = Vt[:kept], U[:, :kept] * sigma[:kept]
    return A, B


def _linear(adapters: Sequence, scales: list[float]) -> tuple[Array, Array]:
    ranks = {A.shape[0] for A, _, _ in adapters}
    if len(ranks) > 1:
        raise ValueError(
            f"'linear' adds factors of one rank, got ranks {sorted(ranks)}; use 'cat'"
        )
    roots = [abs(c) ** 0.5 for c in scales]
    signs = [-1.0 if c < 0 else 1.0 for c in scales]
    A = sum(g * q * a for g, q, (a, _, _) in zip(signs, roots, adapters, strict=True))
    B = sum(q * b for q, (_, b, _) in zip(roots, adapters, strict=True))
    return A, B
