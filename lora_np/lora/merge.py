"""Merging: W' = W + ΔW, back again, and how far rounding can take either.

u = half the spacing of the stored dtype relative to 1 (2⁻¹¹, 2⁻²⁴, 2⁻⁵³ for float16,
float32, float64). Sums are formed in float64 and rounded once to the stored dtype.
"""

import numpy as np

from lora_np.backend import Array, get_xp
from lora_np.functional.contract import expect_float, expect_shape
from lora_np.lora.linear import check_factors


def delta_weight(A: Array, B: Array, s: float, groups: int = 1) -> Array:
    """ΔW = s B A, in float64; for a convolution, group by group in W's shape.

    A (r, in) and B (out, r); or A (r, in/g, k…) and B (out, r/g, 1…).
    For an embedding ΔE = delta_weight(A, B, s).T, as A is (r, vocabulary) there.

    >>> delta_weight(np.ones((1, 2)), np.array([[1.0], [3.0]]), s=0.5)
    array([[0.5, 0.5],
           [1.5, 1.5]])
    """
    xp = get_xp(A, B)
    A64, B64 = A.astype(xp.float64), B.astype(xp.float64)
    if A.ndim == 2:
        check_factors(A, B, A.shape[1], B.shape[0])
        return s * (B64 @ A64)
    if A.shape[0] % groups or B.shape[0] % groups:
        raise ValueError(
            f"r = {A.shape[0]} and out = {B.shape[0]} must be multiples of "
            f"the {groups} groups"
        )
    per_group = A.shape[0] // groups
    expect_shape("B", B, (B.shape[0], per_group) + (1,) * (A.ndim - 2))
    A_gRQ = A64.reshape(groups, per_group, -1)
    B_gMR = B64.reshape(groups, B.shape[0] // groups, per_group)
    return s * (B_gMR @ A_gRQ).reshape(B.shape[0], *A.shape[1:])


def _rounded(exact: Array, dtype: np.dtype) -> Array:
    xp = get_xp(exact)
    limit = float(xp.finfo(dtype).max)
    if exact.size and float(xp.abs(exact).max()) > limit:
        raise OverflowError(
            f"the merged weight exceeds what {dtype} holds ({limit:.4g}); "
            "merge into a wider dtype"
        )
    return exact.astype(dtype)


def merge(W: Array, delta: Array) -> Array:
    """W' = W + ΔW in W's dtype; W itself is not changed.

    Raises OverflowError when W' does not fit (float16 ends at 65504), ValueError.

    >>> merge(np.ones((1, 2), np.float16), np.array([[0.5, 0.25]])).dtype
    dtype('float16')
    """
    expect_float(W=W, delta=delta)
    expect_shape("delta", delta, tuple(W.shape))
    return _rounded(W + delta, W.dtype)


def unmerge(W: Array, delta: Array) -> Array:
    """W' - ΔW in W's dtype: the base again, up to `round_trip_bound`.

    >>> unmerge(merge(np.ones((1, 1)), np.ones((1, 1)) * 0.1), np.ones((1, 1)) * 0.1)
    array([[1.]])
    """
    return merge(W, -delta)


def merge_bound(
    W: Array, A: Array, B: Array, s: float, groups: int = 1, transposed: bool = False
) -> Array:
    """An upper bound of |merge(W, ΔW) - (W + s B A)|, entry by entry.

    ≤ u |W + ΔW| + η  (one rounding to the stored dtype, η for subnormal results)
      + 2⁻⁵³ |W + ΔW| + (r + 2) 2⁻⁵³ |s| |B| |A|  (the float64 sums).
    Source: Higham 2002, section 3.1.

    >>> W, A, B = np.ones((1, 2), np.float32), np.ones((1, 2)), np.ones((1, 1))
    >>> merge_bound(W, A, B, s=0.1).shape
    (1, 2)
    """
    xp = get_xp(W, A, B)
    delta = delta_weight(A, B, s, groups)
    size = delta_weight(xp.abs(A), xp.abs(B), abs(s), groups)
    if transposed:  # an embedding: W is (vocabulary, width), A (r, vocabulary)
        delta, size = delta.T, size.T
    expect_shape("W", W, tuple(delta.shape), "for an embedding pass transposed=True")
    info = xp.finfo(W.dtype)
    sums = 2.0**-53 * (xp.abs(W + delta) + (A.shape[0] + 2) * size)
    stored = 0.5 * float(info.eps) * (xp.abs(W + delta) + sums)
    return stored + sums + 0.5 * float(info.smallest_subnormal)


def round_trip_bound(
    W: Array, A: Array, B: Array, s: float, groups: int = 1, transposed: bool = False
) -> Array:
    """An upper bound of |unmerge(merge(W)) - W|: merging's, and one rounding more.

    In float16 this is about 10⁻³ of the larger of |W| and |W + ΔW|: keep the base if it
    must come back bit for bit.

    >>> W, A, B = np.ones((1, 2), np.float32), np.ones((1, 2)), np.ones((1, 1))
    >>> bool((round_trip_bound(W, A, B, 0.1) > merge_bound(W, A, B, 0.1)).all())
    True
    """
    xp = get_xp(W, A, B)
    there = merge_bound(W, A, B, s, groups, transposed)
    info = xp.finfo(W.dtype)
    back = xp.abs(W) + 2.0 * there
    return 2.0 * there + 0.5 * float(info.eps) * back + float(info.smallest_subnormal)
