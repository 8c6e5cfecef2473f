"""DoRA: magnitude and direction of the adapted weight, apart.

N rows · D inputs · M outputs · R rank;  m (M,) the trained row lengths
V = W + s B A;  n_i = ‖V_i‖ (row i: one output);  U = diag(m/n) V;  y = x Uᵀ + b
"""

from collections.abc import Container

from lora_np.backend import Array, column_sum, get_xp, row_sum
from lora_np.functional.contract import (
    ALL,
    differentiable,
    expect_float,
    expect_shape,
)
from lora_np.lora.linear import check_factors


def row_norm(V_MD: Array) -> Array:
    """n_i = √(Σ_d V_id²), without conjugation (a complex step passes through).

    >>> import numpy as np
    >>> row_norm(np.array([[3.0, 4.0]]))
    array([5.])
    """
    return get_xp(V_MD).sqrt(row_sum(V_MD * V_MD)[:, 0])


@differentiable("x", "b", "A", "B", "m")
def dora_linear(
    x_ND: Array,
    W_MD: Array,
    b_M: Array | None,
    A_RD: Array,
    B_MR: Array,
    m_M: Array,
    s: float,
    norm_M: Array | None = None,
    *,
    needs: Container[str] = ALL,
) -> tuple[Array, tuple]:
    """y = x (diag(m/n) (W + s B A))ᵀ + b        Liu et al. 2024 (2402.09353), eq. 5

    At the start m = row_norm(W) makes y = x Wᵀ + b. The paper prints column norms of a
    (in, out) matrix; W here is (out, in), so these are its rows, as in PEFT.

    norm_M: None, n is a function of A and B and the derivative is the full one. Given,
    n is this constant: section 4.3 of the paper and PEFT, `norm_M=row_norm(W + s B A)`,
    which is then *not* the derivative of the full function.
    A row with n_i = 0 has no direction: its output is b_i and its gradients are 0.

    >>> import numpy as np
    >>> W, A, B = np.array([[3.0, 4.0]]), np.ones((1, 2)), np.zeros((1, 1))
    >>> dora_linear(np.ones((1, 2)), W, None, A, B, row_norm(W), s=1.0)[0]
    array([[7.]])
    """
    expect_float(x=x_ND, W=W_MD, b=b_M, m=m_M, norm=norm_M)
    expect_shape("x_ND", x_ND, (None, None), "flatten batch and time to rows first")
    expect_shape("W_MD", W_MD, (None, x_ND.shape[1]), "W is stored (out, in)")
    check_factors(A_RD, B_MR, x_ND.shape[1], W_MD.shape[0])
    expect_shape("m_M", m_M, (W_MD.shape[0],), "one magnitude an output")
    xp = get_xp(x_ND, W_MD)
    s = float(s)  # a NumPy float64 scalar would promote float32
    V_MD = W_MD + s * (B_MR @ A_RD)
    n_M = row_norm(V_MD) if norm_M is None else norm_M
    expect_shape("norm_M", n_M, m_M.shape)
    length = xp.where(n_M == 0, xp.ones_like(n_M), n_M)
    inverse_M = xp.where(n_M == 0, xp.zeros_like(n_M), 1.0 / length)
    v_MD = inverse_M[:, None] * V_MD
    y_NM = x_ND @ (m_M[:, None] * v_MD).T
    if b_M is not None:
        expect_shape("b_M", b_M, m_M.shape)
        y_NM = y_NM + b_M
    wanted = [n in needs for n in ("x", "b", "A", "B", "m")]
    wanted[1] = wanted[1] and b_M is not None
    return y_NM, (x_ND, v_MD, inverse_M, m_M, A_RD, B_MR, s, norm_M is None, wanted)


def dora_linear_backward(dy_NM: Array, cache: tuple) -> tuple:
    """dV_i = (m_i/n_i)(g_i - (g_i·v_i) v_i), v = V/n;  dm_i = g_i·v_i,  g = dyᵀ x

    Indices: U_id = m_i V_id/n_i and ∂n_i/∂V_id = v_id, so with g = dL/dU
      dL/dV_id = (m_i/n_i) g_id - (m_i/n_i²) (Σ_e g_ie V_ie) v_id,
    the part of g_i along V_i taken away: turning changes U, stretching does not. With a
    constant norm the second term is absent. Then dB = s dV Aᵀ, dA = s Bᵀ dV, dx = dy U.
    Returns (dx, db, dA, dB, dm).

    >>> import numpy as np
    >>> W, A, B = np.array([[3.0, 4.0]]), np.ones((1, 2)), np.zeros((1, 1))
    >>> _, c = dora_linear(np.ones((1, 2)), W, None, A, B, row_norm(W), s=1.0)
    >>> bool(abs(dora_linear_backward(np.ones((1, 1)), c)[4] - 1.4).max() < 1e-15)
    True
    """
    x_ND, v_MD, inverse_M, m_M, A_RD, B_MR, s, full, (wx, wb, wA, wB, wm) = cache
    db_M = column_sum(dy_NM) if wb else None
    dx_ND = dy_NM @ (m_M[:, None] * v_MD) if wx else None
    dA_RD = dB_MR = dm_M = None
    if wA or wB or wm:
        g_MD = dy_NM.T @ x_ND
        along_M1 = row_sum(g_MD * v_MD)
        dm_M = along_M1[:, 0] if wm else None
    if wA or wB:
        turn_MD = g_MD - along_M1 * v_MD if full else g_MD
        dV_MD = (m_M * inverse_M)[:, None] * turn_MD
        dA_RD = s * (B_MR.T @ dV_MD) if wA else None
        dB_MR = s * (dV_MD @ A_RD.T) if wB else None
    return dx_ND, db_M, dA_RD, dB_MR, dm_M
