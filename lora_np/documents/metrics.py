"""Accuracy, precision, recall and F1 from labels; a paired test of two classifiers.

C classes.  A class that is never predicted has precision 0, one that never occurs has
recall 0 and F1 0, as scikit-learn with zero_division=0.
"""

from math import comb

import numpy as np


def confusion(truth: np.ndarray, guess: np.ndarray, classes: int) -> np.ndarray:
    """Counts (C, C): rows are true classes, columns predicted ones.

    Raises ValueError for different lengths, no label or labels outside 0 … C-1.

    >>> confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), 2)
    array([[1, 0],
           [1, 1]])
    """
    truth, guess = np.asarray(truth), np.asarray(guess)
    if truth.shape != guess.shape or truth.ndim != 1 or not truth.size:
        raise ValueError(
            "need two lists of labels of one length, got shapes "
            f"{truth.shape} and {guess.shape}"
        )
    for name, labels in (("truth", truth), ("guess", guess)):
        if labels.min() < 0 or labels.max() >= classes:
            raise ValueError(f"{name} must lie in 0 ... {classes - 1}, got "
                             f"{labels.min()} ... {labels.max()}")  # fmt: skip
    return np.bincount(truth * classes + guess, minlength=classes**2).reshape(
        classes, classes
    )


def scores(truth: np.ndarray, guess: np.ndarray, classes: int) -> dict:
    """accuracy; precision, recall and f1 for each class (C,); their means "macro_…".

    precision = right / predicted, recall = right / occurring, F1 their harmonic mean.

    >>> s = scores(np.array([0, 1, 1]), np.array([0, 0, 1]), 2)
    >>> s["recall"], round(s["accuracy"], 3)
    (array([1. , 0.5]), 0.667)
    """
    table = confusion(truth, guess, classes)
    right = np.diag(table).astype(float)
    predicted, occurring = table.sum(axis=0), table.sum(axis=1)
    precision = right / np.maximum(predicted, 1)
    recall = right / np.maximum(occurring, 1)
    f1 = 2 * right / np.maximum(predicted + occurring, 1)
    each = {"precision": precision, "recall": recall, "f1": f1}
    means = {f"macro_{k}": float(v.mean()) for k, v in each.items()}
    return {"accuracy": float(right.sum() / table.sum())} | each | means


def sign_test(one: np.ndarray, two: np.ndarray) -> float:
    """How likely so uneven a split is if two classifiers are equally good (two-sided).

    one, two: which of the same examples each has right. Only those count that exactly
    one of them has right: each falls to either with probability 1/2 (McNemar, exact).
    Raises ValueError for different lengths.

    >>> sign_test(np.array([1, 1, 1, 1, 0]) > 0, np.array([0, 0, 0, 0, 0]) > 0)
    0.125
    """
    one, two = np.asarray(one, bool), np.asarray(two, bool)
    if one.shape != two.shape:
        raise ValueError(f"need the same examples, got {one.shape} and {two.shape}")
    n, fewer = int((one != two).sum()), int(min((one & ~two).sum(), (two & ~one).sum()))
    return min(1.0, 2 * sum(comb(n, k) for k in range(fewer + 1)) / 2**n)
