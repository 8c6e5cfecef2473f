"""LoRA on an embedding, and on a matrix used both as embedding and as output head.

N tokens · P rows of hidden states · V vocabulary · D width · R rank
"""

from collections.abc import Container

from lora_np.backend import Array, add_to, get_xp, scatter_add
from lora_np.functional.contract import (
    ALL,
    differentiable,
    expect_float,
    expect_ids,
    expect_shape,
)
from lora_np.lora.linear import check_factors


@differentiable("A", "B")
def lora_embedding(
    ids_N: Array,
    E_VD: Array,
    A_RV: Array,
    B_DR: Array,
    s: float,
    *,
    needs: Container[str] = ALL,
) -> tuple[Array, tuple]:
    """y_n = E[id_n] + s B A[:, id_n]        i.e. E + s (B A)ᵀ, looked up

    A (R, V) has a column for each token, B is (D, R): the shapes of loralib and PEFT.

    >>> import numpy as np
    >>> A, B = np.array([[0.0, 2.0]]), np.array([[1.0], [10.0]])
    >>> lora_embedding(np.array([1]), np.zeros((2, 2)), A, B, s=0.5)[0]
    array([[ 1., 10.]])
    """
    expect_float(E=E_VD)
    expect_shape("ids_N", ids_N, (None,), "flatten batch and time to one axis")
    expect_ids("ids_N", ids_N, E_VD.shape[0])
    check_factors(A_RV, B_DR, E_VD.shape[0], E_VD.shape[1])
    s = float(s)  # a NumPy float64 scalar would promote float32
    su_NR = s * A_RV.T[ids_N]
    y_ND = add_to(E_VD[ids_N], su_NR @ B_DR.T)
    saved_B = B_DR if "A" in needs else None
    return y_ND, (ids_N, su_NR if "B" in needs else None, saved_B, s, E_VD.shape[0])


def lora_embedding_backward(dy_ND: Array, cache: tuple) -> tuple:
    """dB = s Σ_n dy_n a_nᵀ (a_n = A[:, id_n]);  dA[:, v] = s Σ_{n: id_n = v} Bᵀ dy_n

    As `lora_linear` with one-hot rows: dA = s (dy B)ᵀ one-hot(ids), so repeated ids add
    and a token that does not occur gets zero.  Returns (dA, dB).

    >>> import numpy as np
    >>> _, c = lora_embedding(np.array([1, 1]), np.zeros((2, 1)), np.ones((1, 2)),
    ...                       np.ones((1, 1)), s=0.5)
    >>> lora_embedding_backward(np.ones((2, 1)), c)[0]
    array([[0., 1.]])
    """
    ids_N, su_NR, B_DR, s, V = cache
    dB_DR = None if su_NR is None else dy_ND.T @ su_NR
    dA_RV = None
    if B_DR is not None:
        v_NR = s * (dy_ND @ B_DR)
        dA_VR = get_xp(v_NR).zeros((V, B_DR.shape[1]), dtype=v_NR.dtype)
        scatter_add(dA_VR, ids_N, v_NR)
        dA_RV = dA_VR.T
    return dA_RV, dB_DR


@differentiable("h", "A", "B")
def lora_tied(
    ids_N: Array,
    h_PD: Array,
    E_VD: Array,
    A_RD: Array,
    B_VR: Array,
    s: float,
    *,
    needs: Container[str] = ALL,
) -> tuple[tuple[Array, Array], tuple]:
    """x = (E + s B A)[ids]  and  z = h (E + s B A)ᵀ, one adapter for both uses

    E (V, D) is embedding and output head at once, so the same ΔE enters both; merging
    changes both (merging one use only would leave the other at the base). A (R, D) and
    B (V, R) are named as on the head; seen as an embedding they are B and A transposed.
    Returns (x (N, D), z (P, V)).

    >>> import numpy as np
    >>> E, A, B = np.zeros((2, 1)), np.ones((1, 1)), np.array([[1.0], [3.0]])
    >>> (x, z), _ = lora_tied(np.array([1]), np.ones((1, 1)), E, A, B, s=1.0)
    >>> x, z
    (array([[3.]]), array([[1., 3.]]))
    """
    expect_float(h=h_PD, E=E_VD)
    expect_shape("ids_N", ids_N, (None,), "flatten batch and time to one axis")
    expect_ids("ids_N", ids_N, E_VD.shape[0])
    expect_shape("h_PD", h_PD, (None, E_VD.shape[1]))
    check_factors(A_RD, B_VR, E_VD.shape[1], E_VD.shape[0])
    s = float(s)  # a NumPy float64 scalar would promote float32
    sb_NR = s * B_VR[ids_N]
    su_PR = s * (h_PD @ A_RD.T)
    x_ND = add_to(E_VD[ids_N], sb_NR @ A_RD)
    z_PV = add_to(h_PD @ E_VD.T, su_PR @ B_VR.T)
    wanted = tuple(n in needs for n in ("h", "A", "B"))
    return (x_ND, z_PV), (ids_N, h_PD, E_VD, A_RD, B_VR, s, sb_NR, su_PR, wanted)


def lora_tied_backward(dy: tuple, cache: tuple) -> tuple:
    """The sum of both paths, with dy = (dx, dz):

    dA = s Σ_n B[id_n]ᵀ dx_n + s (dz B)ᵀ h;  dB = dzᵀ s(h Aᵀ) + scatter of s dx Aᵀ;
    dh = dz E + s (dz B) A.  Returns (dh, dA, dB).

    >>> import numpy as np
    >>> E, A, B = np.zeros((2, 1)), np.ones((1, 1)), np.array([[1.0], [3.0]])
    >>> _, c = lora_tied(np.array([1]), np.ones((1, 1)), E, A, B, s=1.0)
    >>> lora_tied_backward((np.ones((1, 1)), np.ones((1, 2))), c)[1]   # 3 and 1 + 3
    array([[7.]])
    """
    dx_ND, dz_PV = dy
    ids_N, h_PD, E_VD, A_RD, B_VR, s, sb_NR, su_PR, (wh, wA, wB) = cache
    v_PR = s * (dz_PV @ B_VR)
    dh_PD = add_to(dz_PV @ E_VD, v_PR @ A_RD) if wh else None
    dA_RD = add_to(sb_NR.T @ dx_ND, v_PR.T @ h_PD) if wA else None
    dB_VR = None
    if wB:
        dB_VR = dz_PV.T @ su_PR
        scatter_add(dB_VR, ids_N, s * (dx_ND @ A_RD.T))
    return dh_PD, dA_RD, dB_VR
