"""LoRA on a linear layer: the method itself.

N rows (batch · time) · D inputs · M outputs · R rank
x (N,D)   W (M,D) frozen   b (M,)   A (R,D)   B (M,R)   s = α/r or α/√r
"""

from collections.abc import Container

from lora_np.backend import Array, add_to, column_sum
from lora_np.functional.contract import (
    ALL,
    differentiable,
    expect_float,
    expect_shape,
)
from lora_np.functional.dropout import dropout, dropout_backward


def check_factors(A: Array, B: Array, inputs: int, outputs: int, to: str = "") -> None:
    """Raise ValueError unless A is (r, inputs) and B (outputs, r) with r ≥ 1.

    >>> import numpy as np
    >>> check_factors(np.ones((2, 3)), np.ones((2, 5)), 3, 5)
    Traceback (most recent call last):
    ...
    ValueError: B_MR must be (5, 2), got (2, 5); did you pass B.T?
    """
    expect_float(**{f"A{to}": A, f"B{to}": B})
    slip = f"did you pass A{to}.T?" if A.shape[0] == inputs != A.shape[-1] else ""
    expect_shape(f"A{to}_RD", A, (None, inputs), slip)
    if A.shape[0] == 0:
        raise ValueError(f"A{to}_RD has rank 0: r must be 1 or more")
    expect_shape(f"B{to}_MR", B, (outputs, A.shape[0]))


@differentiable("x", "b", "A", "B")
def lora_linear(
    x_ND: Array,
    W_MD: Array,
    b_M: Array | None,
    A_RD: Array,
    B_MR: Array,
    s: float,
    mask_ND: Array | None = None,
    p: float = 0.0,
    *,
    needs: Container[str] = ALL,
) -> tuple[Array, tuple]:
    """y = x Wᵀ + b + s (x_d Aᵀ) Bᵀ        Hu et al. 2021 (2106.09685), eq. 3

    x_d = x · mask / (1 - p) is x after dropout, on the low-rank path only (as loralib
    and PEFT do; the paper does not say where); x_d = x without a mask.
    Indices: y_nm = Σ_d x_nd W_md + b_m + s Σ_r B_mr Σ_d A_rd x_d,nd.

    Raises: ValueError for shapes that do not fit or p = 1, TypeError for integers.

    >>> import numpy as np
    >>> x, W, A, B = np.ones((1, 2)), np.ones((1, 2)), np.ones((1, 2)), np.ones((1, 1))
    >>> lora_linear(x, W, None, A, B, s=0.5)[0]
    array([[3.]])
    """
    expect_float(x=x_ND, W=W_MD, b=b_M)
    expect_shape("x_ND", x_ND, (None, None), "flatten batch and time to rows first")
    expect_shape("W_MD", W_MD, (None, x_ND.shape[1]), "W is stored (out, in)")
    check_factors(A_RD, B_MR, x_ND.shape[1], W_MD.shape[0])
    xd_ND, dropped = x_ND, None
    if mask_ND is not None:
        xd_ND, dropped = dropout(x_ND, mask_ND, p, needs=needs)
    s = float(s)  # a NumPy float64 scalar would promote float32
    su_NR = s * (xd_ND @ A_RD.T)  # s x_d Aᵀ, so that dB needs no further s
    y_NM = add_to(x_ND @ W_MD.T, su_NR @ B_MR.T)
    if b_M is not None:
        expect_shape("b_M", b_M, (W_MD.shape[0],))
        y_NM = add_to(y_NM, b_M)
    return y_NM, (
        xd_ND if "A" in needs else None,
        su_NR if "B" in needs else None,
        (W_MD, A_RD) if "x" in needs else None,
        B_MR,
        s,
        dropped,
        b_M is not None and "b" in needs,
    )


def lora_linear_backward(dy_NM: Array, cache: tuple) -> tuple:
    """dB = s dyᵀ (x_d Aᵀ);  dA = s (dy B)ᵀ x_d;  dx = dy W + s ((dy B) A) · mask/(1-p)

    Indices, with G = dy:
      dB_mr = Σ_n G_nm · s Σ_d A_rd x_nd        = s (Gᵀ x Aᵀ)_mr
      dA_rd = Σ_nm G_nm · s B_mr x_nd           = s (Bᵀ Gᵀ x)_rd
      dx_nd = Σ_m G_nm W_md + s Σ_mr G_nm B_mr A_rd
    W is frozen: dW = Gᵀ x is never formed, which is the saving. If it were, then
    dA = s Bᵀ dW and dB = s dW Aᵀ.  db_m = Σ_n G_nm where the bias is trained.
    Returns (dx, db, dA, dB), None for those that `needs` left out.

    >>> import numpy as np
    >>> x, W, A, B = np.ones((1, 2)), np.ones((1, 2)), np.ones((1, 2)), np.ones((1, 1))
    >>> _, c = lora_linear(x, W, None, A, B, s=0.5)
    >>> dx, db, dA, dB = lora_linear_backward(np.array([[10.0]]), c)
    >>> dA, dB
    (array([[5., 5.]]), array([[10.]]))
    """
    xd_ND, su_NR, frozen, B_MR, s, dropped, has_b = cache
    db_M = column_sum(dy_NM) if has_b else None
    dB_MR = None if su_NR is None else dy_NM.T @ su_NR
    dA_RD = dx_ND = None
    if xd_ND is not None or frozen is not None:
        v_NR = s * (dy_NM @ B_MR)  # the gradient that reaches x_d Aᵀ
    if xd_ND is not None:
        dA_RD = v_NR.T @ xd_ND
    if frozen is not None:
        W_MD, A_RD = frozen
        low_ND = v_NR @ A_RD
        if dropped is not None:
            low_ND = dropout_backward(low_ND, dropped)[0]
        dx_ND = add_to(dy_NM @ W_MD, low_ND)
    return dx_ND, db_M, dA_RD, dB_MR
