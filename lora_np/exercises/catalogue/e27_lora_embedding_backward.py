"""The backward of LoRA on an embedding."""

import numpy as np

from lora_np import lora as L
from lora_np.exercises.exercise import Exercise, Law, derivative, mistake, mistakes


def lora_embedding_backward(dy, ids, A, B, s):
    """The backward of y_n = E[ids_n] + s B A[:, ids_n] with E frozen.

    dy: (N, D) = dL/dy   ids: (N,) integers below V, which may repeat   A: (r, V)
    B: (D, r)   s: a number   Returns (dA, dB).
    """
    dA = np.zeros_like(A)
    np.add.at(dA.T, ids, s * (dy @ B))
    return dA, s * (dy.T @ A[:, ids].T)


def problem(d):
    N, V, D, r = d.sizes(4)
    return {
        "dy": d.array(N, D),
        "ids": d.ids(N, V),
        "A": d.array(r, V),
        "B": d.array(D, r),
        "s": d.scale(),
        "E": d.array(V, D),
    }


def one_hot(c):
    return (c.ids[:, None] == np.arange(c.A.shape[1])).astype(c.A.dtype)


def low(c):
    return c.s * (c.dy @ c.B)


def last_wins(c):
    dA = np.zeros_like(c.A)
    dA[:, c.ids] = low(c).T
    return dA


def counts(c):
    return np.maximum(1, np.bincount(c.ids, minlength=c.A.shape[1])).astype(c.A.dtype)


def loop(c):
    dA, dB = np.zeros_like(c.A), np.zeros_like(c.B)
    for g, i in zip(c.dy, c.ids, strict=True):
        dA[:, i] += c.s * (g @ c.B)
        dB += c.s * np.outer(g, c.A[:, i])
    return dA, dB


def all_columns(c):
    """As if every id occurred once, in order: dB with A's first columns."""
    once = np.unique(c.ids)
    first = [int(np.flatnonzero(c.ids == i)[0]) for i in once]
    return c.s * c.dy[first].T @ c.A[:, once].T


EXERCISE = Exercise(
    id="e27",
    title="an embedding, and ids that repeat",
    kind="derive",
    minutes=10,
    difficulty=2,
    needs=("e19",),
    ask="""
    An embedding looks rows up: y_n = E[ids_n] + s B A[:, ids_n]. Derive dA and dB. A
    token that occurs three times in a batch has three gradients.
    """,
    functions=(lora_embedding_backward,),
    returns=("dA", "dB"),
    want=derivative(
        lambda c: L.lora_embedding(c.ids, c.E, c.A, c.B, c.s)[0],
        {"dA": "A", "dB": "B"},
        method="exact",
    ),
    laws=(
        Law("{arrays} is not the derivative of the loss sum(dy * y).", problem, True),
    ),
    mistakes=mistakes(
        lora_embedding_backward,
        ("dA", "dB"),
        mistake(
            "repeats_lost",
            "dA[:, ids] = ... or += ...: of a repeated id the last "
            "occurrence wins; np.add.at adds them all",
            dA=last_wins,
        ),
        mistake(
            "repeats_averaged",
            "the mean over the occurrences of an id, not the sum",
            dA=lambda c: (low(c).T @ one_hot(c)) / counts(c),
        ),
        mistake(
            "dA_not_scaled",
            "dA without the factor s",
            dA=lambda c: (c.dy @ c.B).T @ one_hot(c),
        ),
        mistake(
            "dB_not_scaled",
            "dB without the factor s",
            dB=lambda c: c.dy.T @ c.A[:, c.ids].T,
        ),
        mistake(
            "dA_transposed",
            "dA as (V, r): the transpose",
            dA=lambda c: one_hot(c).T @ low(c),
        ),
        mistake(
            "dB_transposed",
            "dB as (r, D): the transpose",
            dB=lambda c: c.s * c.A[:, c.ids] @ c.dy,
        ),
        mistake(
            "dA_mean",
            "dA divided by the number of tokens",
            dA=lambda c: low(c).T @ one_hot(c) / len(c.ids),
        ),
        mistake(
            "dB_mean",
            "dB divided by the number of tokens",
            dB=lambda c: c.s * c.dy.T @ c.A[:, c.ids].T / len(c.ids),
        ),
        mistake("dB_once", "dB from the first occurrence of each id", dB=all_columns),
        mistake(
            "rows_only",
            "dA as (r, N), one column a token: sum them into the columns of their ids",
            dA=lambda c: low(c).T,
        ),
    ),
    others=(
        lambda c: (low(c).T @ one_hot(c), c.s * c.dy.T @ one_hot(c) @ c.A.T),
        loop,
        lambda c: (
            np.stack([np.bincount(c.ids, w, c.A.shape[1]) for w in low(c).T]).astype(
                c.A.dtype
            ),
            np.einsum("nd,rn->dr", c.dy, c.A[:, c.ids]) * c.s,
        ),
    ),
    hints=(
        "A lookup is a product with one-hot rows: y = onehot(ids) (E + s (B A)ᵀ).",
        "With u_n = A[:, ids_n]: dB = s Σ dy_n u_nᵀ, and s Bᵀ dy_n goes to column "
        "ids_n.",
        "    np.add.at(dA.T, ids, ____)",
    ),
    why="""
    dA = (s dy B)ᵀ onehot(ids): columns of tokens that do not occur are 0, those
    that occur twice get two terms. NumPy's dA[:, ids] += ... evaluates the right
    side once and writes each column once, so repeated ids lose; np.add.at, or a
    product with the one-hot matrix, does not.
    """,
    follow_ups=(
        (
            "Why is A = 0 and B random the usual start here?",
            "Then a token that never occurs keeps its embedding exactly: its column "
            "of A stays 0.",
        ),
        (
            "The head is tied to the embedding. What changes?",
            "E + s (B A)ᵀ is used twice: dA and dB are the sums over both uses.",
        ),
    ),
    read="lora_np/lora/embedding.py; chapter 04",
)
