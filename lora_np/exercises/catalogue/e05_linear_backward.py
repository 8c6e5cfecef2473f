"""The backward of a linear layer with a bias."""

import numpy as np

from lora_np import functional as F
from lora_np.exercises.exercise import Exercise, Law, derivative, mistake, mistakes


def linear_backward(dy, x, W):
    """The backward of y = x Wᵀ + b.

    dy: (N, M) = dL/dy   x: (N, D)   W: (M, D)
    Returns (dx, dW, db), of the shapes of x, W and b.
    """
    return dy @ W, dy.T @ x, dy.sum(axis=0)


def problem(d):
    N, D, M = d.sizes(3)
    return {
        "dy": d.array(N, M),
        "x": d.array(N, D),
        "W": d.array(M, D),
        "b": d.array(M),
    }


def loops(c):
    dx, dW = np.zeros_like(c.x), np.zeros_like(c.W)
    db = np.zeros_like(c.W[:, 0])
    for n, m in np.ndindex(c.dy.shape):
        dx[n] += c.dy[n, m] * c.W[m]
        dW[m] += c.dy[n, m] * c.x[n]
        db[m] += c.dy[n, m]
    return dx, dW, db


EXERCISE = Exercise(
    id="e05",
    title="the backward of a linear layer",
    kind="derive",
    minutes=8,
    difficulty=1,
    ask="""
    y = x Wᵀ + b for a batch of N rows, with W stored as (outputs, inputs). A loss sends
    back dy. Derive the gradients of x, W and b.
    """,
    functions=(linear_backward,),
    returns=("dx", "dW", "db"),
    want=derivative(
        lambda c: F.linear(c.x, c.W, c.b)[0],
        {"dx": "x", "dW": "W", "db": "b"},
        method="exact",
    ),
    laws=(
        Law("{arrays} is not the derivative of the loss sum(dy * y).", problem, True),
    ),
    mistakes=mistakes(
        linear_backward,
        ("dx", "dW", "db"),
        mistake(
            "dW_transposed",
            "dW = xᵀ dy, which is (D, M): the transpose",
            dW=lambda c: c.x.T @ c.dy,
        ),
        mistake(
            "dW_mean",
            "the mean over the rows in dW: each row adds to it, so it is a sum",
            dW=lambda c: c.dy.T @ c.x / len(c.x),
        ),
        mistake(
            "db_mean",
            "the mean over the rows in db: b enters every row, so it is a sum",
            db=lambda c: c.dy.mean(0),
        ),
        mistake(
            "both_mean",
            "means over the rows in dW and db where sums belong",
            dW=lambda c: c.dy.T @ c.x / len(c.x),
            db=lambda c: c.dy.mean(0),
        ),
        mistake(
            "db_not_summed",
            "db = dy, one gradient for each row: b is shared by the rows, sum them",
            db=lambda c: c.dy,
        ),
        mistake("db_first_row", "db from the first row alone", db=lambda c: c.dy[0]),
        mistake(
            "db_keeps_axis",
            "db with an axis of 1 in front; b has shape (M,)",
            db=lambda c: c.dy.sum(0, keepdims=True),
        ),
        mistake(
            "db_all",
            "db summed over the outputs too",
            db=lambda c: c.dy.sum() + 0 * c.W[:, 0],
        ),
        mistake(
            "dx_zero",
            "dx = 0: the layers below would learn nothing",
            dx=lambda c: 0 * c.x,
        ),
        mistake(
            "no_cotangent",
            "gradients of sum(y): dy was taken as all ones",
            lambda c: linear_backward(1 + 0 * c.dy, c.x, c.W),
        ),
        mistake(
            "dW_from_rows_of_W",
            "dW = dyᵀ dx: the gradient of x where x itself belongs",
            dW=lambda c: c.dy.T @ (c.dy @ c.W),
        ),
    ),
    others=(
        loops,
        lambda c: (
            np.einsum("nm,md->nd", c.dy, c.W),
            np.einsum("nm,nd->md", c.dy, c.x),
            np.einsum("nm->m", c.dy),
        ),
        lambda c: (
            (c.W.T @ c.dy.T).T,
            (c.x.T @ c.dy).T,
            (np.ones((1, len(c.dy)), c.dy.dtype) @ c.dy)[0],
        ),
    ),
    hints=(
        "Write y_nm = Σ_d x_nd W_md + b_m and differentiate for one x_nd, W_md, b_m.",
        "An index that the gradient does not have is summed over: n in dW and db, m in "
        "dx.",
        "    return dy @ W, dy.T @ x, ____",
    ),
    why="""
    L depends on W_md through y_nm for every n: dW_md = Σ_n dy_nm x_nd = (dyᵀ x)_md. In
    the same way dx_nd = Σ_m dy_nm W_md and db_m = Σ_n dy_nm. The gradient of a shared
    thing is the sum over its uses.
    """,
    follow_ups=(
        (
            "What does this layer have to remember from its forward?",
            "x for dW and W for dx. With W frozen, x need not be kept.",
        ),
        (
            "How many multiply-adds do forward and backward take?",
            "N M D forward, N M D for dx, N M D for dW.",
        ),
    ),
    read="lora_np/functional/linear.py; chapter 01",
)
