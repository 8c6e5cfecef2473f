"""Find the bug: a batch with a different adapter for each row."""

import numpy as np

from lora_np import lora as L
from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes


def mixed_batch(x, W, As, Bs, s, task):
    """y_n = x_n Wᵀ + s (x_n A_jᵀ) B_jᵀ with j = task[n].

    x: (N, D)   W: (M, D)   As: (J, r, D)   Bs: (J, M, r)   s: a number
    task: (N,) integers below J   Returns y: (N, M).
    """
    y = x @ W.T
    for j in np.unique(task):
        rows = task == j
        y[rows] += s * (x[rows] @ As[j].T @ Bs[j].T)
    return y


def mixed_batch_as_found(x, W, As, Bs, s, task):
    """y_n = x_n Wᵀ + s (x_n A_jᵀ) B_jᵀ with j = task[n].

    x: (N, D)   W: (M, D)   As: (J, r, D)   Bs: (J, M, r)   s: a number
    task: (N,) integers below J   Returns y: (N, M).
    """
    order = np.argsort(task, kind="stable")  # rows of a task side by side
    x, task = x[order], task[order]
    y = x @ W.T
    for j in np.unique(task):
        first, last = np.searchsorted(task, [j, j + 1])
        y[first:last] += s * (x[first:last] @ As[j].T @ Bs[j].T)
    return y[order]


def problem(d):
    N, D, M, r, J = d.sizes(5)
    if d.rng is not None:
        N = 7
        task = np.array([2, 0, 1, 0, 2, 1, 0]) % J
    else:
        task = d.ids(N, J)
    return {
        "x": d.array(N, D),
        "W": d.array(M, D),
        "As": d.array(J, r, D),
        "Bs": d.array(J, M, r),
        "s": d.scale(),
        "task": task,
    }


def wanted(case):
    """Row by row."""
    rows = [
        L.lora_linear(
            x[None], case["W"], None, case["As"][j], case["Bs"][j], case["s"]
        )[0]
        for x, j in zip(case["x"], case["task"], strict=True)
    ]
    return np.concatenate(rows)


def by_einsum(c):
    low = np.einsum("nd,nrd->nr", c.x, c.As[c.task])
    return c.x @ c.W.T + c.s * np.einsum("nr,nmr->nm", low, c.Bs[c.task])


def sorted_and_back(c):
    order = np.argsort(c.task, kind="stable")
    y = np.empty((len(c.x), len(c.W)), c.x.dtype)
    y[order] = np.concatenate(
        [
            c.x[n : n + 1] @ (c.W + c.s * (c.Bs[c.task[n]] @ c.As[c.task[n]])).T
            for n in order
        ]
    )
    return y


EXERCISE = Exercise(
    id="e31",
    title="answers for the wrong customer",
    kind="find the bug",
    minutes=10,
    difficulty=2,
    needs=("e16",),
    ask="""
    A server answers requests for several adapters in one batch. Tests with two requests
    pass; in production customers sometimes get each other's answers. Find the fault and
    repair it.
    """,
    functions=(mixed_batch,),
    found=(mixed_batch_as_found,),
    returns=("y",),
    want=wanted,
    laws=(
        Law(
            "{arrays} of a mixed batch is not what each row gives alone.", problem, True
        ),
    ),
    mistakes=mistakes(
        mixed_batch,
        ("y",),
        mistake(
            "not_sorted_back",
            "rows in the order of their tasks: they were not put back",
            lambda c: mixed_batch(c.x, c.W, c.As, c.Bs, c.s, c.task)[
                np.argsort(c.task, kind="stable")
            ],
        ),
        mistake(
            "first_task",
            "the adapter of the first row for all rows",
            lambda c: c.x @ c.W.T + c.s * (c.x @ c.As[c.task[0]].T @ c.Bs[c.task[0]].T),
        ),
    ),
    others=(
        by_einsum,
        sorted_and_back,
        lambda c: np.stack(
            [
                x @ c.W.T + c.s * (c.Bs[j] @ (c.As[j] @ x))
                for x, j in zip(c.x, c.task, strict=True)
            ]
        ),
    ),
    hints=(
        "The law: a mixed batch equals row by row. Try three rows of three tasks.",
        "y[order] of a sorted y sorts once more. For which permutations does that undo "
        "the first?",
        "    back = np.empty_like(y); back[____] = y",
    ),
    why="""
    y[order] applies the permutation a second time. What undoes it is its inverse:
    back[order] = y, or y[np.argsort(order)]. A permutation of two rows is its own
    inverse, so tests with two rows pass.
    """,
    follow_ups=(
        (
            "Why sort at all?",
            "One product a task instead of one a row; the frozen product is one for "
            "all.",
        ),
        (
            "Which permutations are their own inverse?",
            "Those made of exchanges of two: a third row can break them.",
        ),
    ),
    read="lora_np/lora/tasks.py; chapter 08",
)
