"""W ≈ A B of rank r three ways: truncated SVD, alternating least squares, gradients.

M rows · D columns · R rank.  All three minimise ½‖W - A B‖² (Frobenius).
"""

import numpy as np


def check_rank_of(W_MD: np.ndarray, r: int) -> None:
    """Raise ValueError unless 1 ≤ r ≤ min(M, D).

    >>> check_rank_of(np.ones((2, 3)), 2)
    """
    if int(r) != r or not 1 <= r <= min(W_MD.shape):
        raise ValueError(
            f"rank r must be an integer in 1 ... {min(W_MD.shape)} for a matrix of "
            f"{W_MD.shape[0]} x {W_MD.shape[1]}, got {r}"
        )


def by_svd(W_MD: np.ndarray, r: int) -> tuple[np.ndarray, np.ndarray]:
    """A = U_r Σ_r, B = V_rᵀ: the best of rank r (Eckart & Young 1936).

    Raises ValueError for a rank that W cannot have.

    >>> A, B = by_svd(np.diag([3.0, 1.0]), 1)
    >>> abs(A @ B)
    array([[3., 0.],
           [0., 0.]])
    """
    check_rank_of(W_MD, r)
    U, sigma, Vt = np.linalg.svd(W_MD, full_matrices=False)
    return U[:, :r] * sigma[:r], Vt[:r]


def by_alternating(
    W_MD: np.ndarray, r: int, rounds: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Solve for A with B fixed, then for B with A fixed, `rounds` times.

    Each half is linear least squares: (AB - W) Bᵀ = 0, then Aᵀ (AB - W) = 0.

    >>> W = np.outer([1.0, 2.0], [1.0, 3.0])
    >>> A, B = by_alternating(W, 1, 3, np.random.default_rng(0))
    >>> bool(np.allclose(A @ B, W))
    True
    """
    check_rank_of(W_MD, r)
    B = rng.normal(size=(r, W_MD.shape[1]))
    A = np.zeros((W_MD.shape[0], r))
    for _ in range(rounds):
        A = np.linalg.lstsq(B.T, W_MD.T, rcond=None)[0].T
        B = np.linalg.lstsq(A, W_MD, rcond=None)[0]
    return A, B


def by_gradients(
    W_MD: np.ndarray, r: int, steps: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient descent with momentum 0.9: dA = (AB - W) Bᵀ, dB = Aᵀ (AB - W).

    The step is 0.05 / σ_1; the largest curvature near the solution is about 2 σ_1.

    >>> W = np.outer([1.0, 2.0], [1.0, 3.0])
    >>> A, B = by_gradients(W, 1, 400, np.random.default_rng(0))
    >>> bool(np.allclose(A @ B, W))
    True
    """
    check_rank_of(W_MD, r)
    top = float(np.linalg.norm(W_MD, 2))
    A = rng.normal(size=(W_MD.shape[0], r)) * (top / W_MD.shape[0]) ** 0.5
    B = rng.normal(size=(r, W_MD.shape[1])) * (top / W_MD.shape[1]) ** 0.5
    vA, vB = np.zeros_like(A), np.zeros_like(B)
    for _ in range(steps):
        residual = A @ B - W_MD
        vA, vB = 0.9 * vA + residual @ B.T, 0.9 * vB + A.T @ residual
        A, B = A - 0.05 / top * vA, B - 0.05 / top * vB
    return A, B


def residual(W_MD: np.ndarray, factors: tuple[np.ndarray, np.ndarray]) -> float:
    """‖W - A B‖ / ‖W‖.

    >>> residual(np.diag([4.0, 3.0]), by_svd(np.diag([4.0, 3.0]), 1))
    0.6
    """
    A, B = factors
    return float(np.linalg.norm(W_MD - A @ B) / np.linalg.norm(W_MD))
