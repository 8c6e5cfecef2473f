"""Many tasks on one frozen layer: each row of the batch takes its own task's adapter.

N rows · D inputs · M outputs · R rank · J tasks
W (M,D) shared and frozen   A (J,R,D)   B (J,M,R)   c (J,M) a bias a task
"""

from collections.abc import Container

from lora_np.backend import Array, add_to, get_xp
from lora_np.functional.contract import (
    ALL,
    differentiable,
    expect_float,
    expect_ids,
    expect_shape,
)


@differentiable("x", "A", "B", "c")
def lora_linear_tasks(
    x_ND: Array,
    W_MD: Array,
    b_M: Array | None,
    A_JRD: Array,
    B_JMR: Array,
    c_JM: Array | None,
    task_N: Array,
    s: float,
    *,
    needs: Container[str] = ALL,
) -> tuple[Array, tuple]:
    """y_n = x_n Wᵀ + b + s (x_n A_jᵀ) B_jᵀ + c_j,  with j = task_n

    The frozen product is one for all rows; only the thin ones are grouped by task.
    b is the base's own bias, frozen as well; c may be None.
    Raises ValueError for shapes, IndexError for a task that does not exist, TypeError.

    >>> import numpy as np
    >>> x, W = np.ones((2, 2)), np.zeros((1, 2))
    >>> A, B = np.ones((2, 1, 2)), np.array([[[1.0]], [[10.0]]])
    >>> lora_linear_tasks(x, W, None, A, B, None, np.array([1, 0]), 0.5)[0]
    array([[10.],
           [ 1.]])
    """
    expect_float(x=x_ND, W=W_MD, b=b_M, A=A_JRD, B=B_JMR, c=c_JM)
    expect_shape("x_ND", x_ND, (None, None), "flatten batch and time to rows first")
    (N, D), M = x_ND.shape, W_MD.shape[0]
    expect_shape("W_MD", W_MD, (None, D), "W is stored (out, in)")
    expect_shape("A_JRD", A_JRD, (None, None, D))
    J, R = A_JRD.shape[:2]
    expect_shape("B_JMR", B_JMR, (J, M, R), "one B a task, each (out, r)")
    expect_shape("task_N", task_N, (N,), "one task a row: repeat it over time")
    expect_ids("task_N", task_N, J)
    s = float(s)  # a NumPy float64 scalar would promote float32
    y_NM = x_ND @ W_MD.T
    if b_M is not None:
        expect_shape("b_M", b_M, (M,))
        y_NM = add_to(y_NM, b_M)
    if c_JM is not None:
        expect_shape("c_JM", c_JM, (J, M))
        y_NM = add_to(y_NM, c_JM[task_N])
    xp = get_xp(x_ND, W_MD)
    y_NM = y_NM.astype(xp.result_type(y_NM, A_JRD, B_JMR), copy=False)
    groups = [(j, xp.nonzero(task_N == j)[0]) for j in range(J)]
    for j, rows in groups:
        y_NM[rows] += (s * (x_ND[rows] @ A_JRD[j].T)) @ B_JMR[j].T
    wanted = {n for n in lora_linear_tasks.wrt if n in needs}  # type: ignore[attr-defined]
    if c_JM is None:
        wanted.discard("c")
    return y_NM, (x_ND, W_MD, A_JRD, B_JMR, groups, s, wanted)


def lora_linear_tasks_backward(dy_NM: Array, cache: tuple) -> tuple:
    """For each task on its own rows as `lora_linear`; a task without rows gets zeros.

    dB_j = s dy_jᵀ (x_j A_jᵀ);  dA_j = s (dy_j B_j)ᵀ x_j;  dc_j = Σ of its rows of dy;
    dx = dy W + s (dy_n B_j) A_j row by row.  Returns (dx, dA, dB, dc).

    >>> import numpy as np
    >>> x, W = np.ones((2, 2)), np.zeros((1, 2))
    >>> A, B = np.ones((2, 1, 2)), np.array([[[1.0]], [[10.0]]])
    >>> _, k = lora_linear_tasks(x, W, None, A, B, None, np.array([1, 1]), 0.5)
    >>> lora_linear_tasks_backward(np.ones((2, 1)), k)[2].ravel()
    array([0., 2.])
    """
    x_ND, W_MD, A_JRD, B_JMR, groups, s, wanted = cache
    xp = get_xp(dy_NM)
    dx_ND = dy_NM @ W_MD if "x" in wanted else None
    dA = xp.zeros_like(A_JRD) if "A" in wanted else None
    dB = xp.zeros_like(B_JMR) if "B" in wanted else None
    dc = None
    if "c" in wanted:
        dc = xp.stack([dy_NM[rows].sum(axis=0) for _, rows in groups])
    for j, rows in groups:
        dy, x = dy_NM[rows], x_ND[rows]
        if dB is not None:
            dB[j] = dy.T @ (s * (x @ A_JRD[j].T))
        v = s * (dy @ B_JMR[j])
        if dA is not None:
            dA[j] = v.T @ x
        if dx_ND is not None:
            dx_ND[rows] += v @ A_JRD[j]
    return dx_ND, dA, dB, dc
