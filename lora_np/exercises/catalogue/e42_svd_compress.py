"""An adapter out of a difference of weights."""

import numpy as np

from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes


def compress(delta, r):
    """The adapter (A, B) of rank r, used with scale 1, closest to an update delta.

    delta: (M, D)   r: at most min(M, D)
    Returns A: (r, D) and B: (M, r), with B A the best approximation of rank r.
    """
    u, sigma, vt = np.linalg.svd(delta, full_matrices=False)
    return vt[:r], u[:, :r] * sigma[:r]


def problem(d):
    D, M = d.sizes(2)
    r = d.integers(1, min(D, M)) if d.rng is None else min(D, M) - 1 or 1
    return {"delta": d.array(M, D) + np.diag(np.arange(9.0))[:M, :D], "r": r}


def judge(case, got):
    """B A misses delta by no more than the singular values that are cut off."""
    A, B = (np.asarray(x) for x in got)
    delta, r = case["delta"], case["r"]
    M, D = delta.shape
    if A.shape != (r, D) or B.shape != (M, r):
        return f"A must be {(r, D)} and B {(M, r)}, got {A.shape} and {B.shape}"
    sigma = np.linalg.svd(delta, compute_uv=False)
    best = float(np.sqrt((sigma[r:] ** 2).sum()))
    error = float(np.sqrt(((B @ A - delta) ** 2).sum()))
    if error <= best * (1 + 1e-9) + 1e-9 * max(1.0, sigma[0]):
        return ""
    return (
        f"B A misses delta by {error:.6g} in the Frobenius norm; the best of rank {r} "
        f"misses it by {best:.6g}"
    )


def usv(c):
    return np.linalg.svd(c.delta, full_matrices=False)


def by_eigenvectors(c):
    """From the eigenvectors of deltaᵀ delta: B is delta's projection."""
    _, vectors = np.linalg.eigh(c.delta.T @ c.delta)
    A = vectors[:, ::-1][:, : c.r].T
    return A, c.delta @ A.T


def root_split(c):
    u, s, vt = usv(c)
    root = np.sqrt(s[: c.r])
    return root[:, None] * vt[: c.r], u[:, : c.r] * root


def rotated(c):
    """The same product in other coordinates: (B Q)(Qᵀ A)."""
    A, B = compress(c.delta, c.r)
    Q = np.linalg.qr(
        np.arange(c.r * c.r, dtype=A.dtype).reshape(c.r, c.r)
        + np.eye(c.r, dtype=A.dtype)
    )[0]
    return Q.T @ A, B @ Q


def smallest(c):
    u, s, vt = usv(c)
    return vt[-c.r :], u[:, -c.r :] * s[-c.r :]


EXERCISE = Exercise(
    id="e42",
    title="an adapter by singular values",
    kind="implement",
    minutes=8,
    difficulty=2,
    needs=("e22", "e26"),
    ask="""
    Somebody has fine-tuned all weights; you want to store the change as an adapter.
    Or two adapters were summed to rank 2r and shall have rank r again. Return the
    factors of the best approximation of rank r (any split between A and B is
    right).
    """,
    functions=(compress,),
    returns=("A", "B"),
    want=None,
    laws=(Law("B A is not the best approximation of rank r.", problem, judge=judge),),
    view=lambda got: (got[1] @ got[0],),
    mistakes=mistakes(
        compress,
        ("A", "B"),
        mistake(
            "sigma_dropped",
            "U Vᵀ: the singular values are left out",
            lambda c: (usv(c)[2][: c.r], usv(c)[0][:, : c.r]),
        ),
        mistake(
            "sigma_twice",
            "U Σ² Vᵀ: the singular values are in both factors",
            lambda c: (
                usv(c)[1][: c.r, None] * usv(c)[2][: c.r],
                usv(c)[0][:, : c.r] * usv(c)[1][: c.r],
            ),
        ),
        mistake(
            "one_root",
            "U √Σ Vᵀ: the root of the singular values in one factor alone",
            lambda c: (
                usv(c)[2][: c.r],
                usv(c)[0][:, : c.r] * np.sqrt(usv(c)[1][: c.r]),
            ),
        ),
        mistake("smallest", "the r smallest singular values", smallest),
        mistake(
            "one_less",
            "r - 1 directions and one of zeros",
            lambda c: (
                usv(c)[2][: c.r],
                usv(c)[0][:, : c.r] * usv(c)[1][: c.r] * (np.arange(c.r) < c.r - 1),
            ),
        ),
        mistake(
            "v_for_vt",
            "columns of numpy's third factor: svd returns Vᵀ, whose rows are wanted",
            lambda c: (
                (
                    usv(c)[2].T[: c.r, : c.delta.shape[1]],
                    usv(c)[0][:, : c.r] * usv(c)[1][: c.r],
                )
                if len(usv(c)[2]) == c.delta.shape[1]
                else (
                    np.resize(usv(c)[2].T, (c.r, c.delta.shape[1])),
                    usv(c)[0][:, : c.r] * usv(c)[1][: c.r],
                )
            ),
        ),
        mistake(
            "largest_twice",
            "the largest singular value for every direction",
            lambda c: (usv(c)[2][: c.r], usv(c)[0][:, : c.r] * usv(c)[1][0]),
        ),
        mistake(
            "rows_cut",
            "the first r rows of delta, kept as they are",
            lambda c: (c.delta[: c.r].copy(), np.eye(len(c.delta), c.r)),
        ),
    ),
    others=(by_eigenvectors, root_split, rotated),
    hints=(
        "The best approximation keeps the r largest singular values with their "
        "vectors.",
        "numpy's svd returns U, the singular values in falling order, and Vᵀ.",
        "    return vt[:r], u[:, :r] * ____",
    ),
    why="""
    By Eckart and Young the truncated SVD is best in the Frobenius and in the
    spectral norm, and the error is what the other singular values say. A and B are
    not unique: any (M A, B M⁻¹) makes the same update.
    """,
    follow_ups=(
        (
            "How do you compress a sum of two adapters without forming delta?",
            "QR of the stacked B and of the stacked Aᵀ, then an SVD of a 2r x 2r "
            "matrix.",
        ),
        (
            "Is the best approximation of the weight the best one for the loss?",
            "No: what matters is the error on the inputs, |X ΔWᵀ|.",
        ),
    ),
    read="lora_np/functional/low_rank.py, documents/compress.py; chapter 09",
)
