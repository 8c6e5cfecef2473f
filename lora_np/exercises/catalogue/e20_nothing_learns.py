"""Find the bug: the adapter does not learn."""

import numpy as np

from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes
from lora_np.exercises.worker import Made


def new_adapter(rng, inputs, outputs, r):
    """Factors A (r, inputs), B (outputs, r) of a new adapter.

    The model's output must be the same as before, and training must be able to start.
    """
    A = rng.normal(0, 1 / np.sqrt(inputs), (r, inputs))
    B = np.zeros((outputs, r))
    return A, B


def new_adapter_as_found(rng, inputs, outputs, r):
    """Factors A (r, inputs), B (outputs, r) of a new adapter.

    The model's output must be the same as before, and training must be able to start.
    """
    A = rng.normal(0, 1 / np.sqrt(inputs), (r, inputs))
    B = np.empty((outputs, r))
    for factor in (A, B):  # reset_parameters: the update starts at zero
        factor[...] = 0
    return A, B


def problem(d):
    inputs, outputs, r = d.sizes(3)
    rng = Made("rng", d.integers(0, 99))
    return {"rng": rng, "inputs": inputs, "outputs": outputs, "r": r}


def judge(case, got):
    """B A = 0, and one factor is not 0 in any of its r directions."""
    A, B = (np.asarray(x) for x in got)
    D, M, r = case["inputs"], case["outputs"], case["r"]
    if A.shape != (r, D) or B.shape != (M, r):
        return f"A must be {(r, D)} and B {(M, r)}, got {A.shape} and {B.shape}"
    if (B @ A).any():
        return "B A is not 0: the output changes before training"
    if not A.any() and not B.any():
        return (
            "after any number of steps the loss is where it was: A and B do not move, "
            "although their gradients were computed rightly"
        )
    full = np.linalg.matrix_rank(A) == min(r, D) or np.linalg.matrix_rank(B) == min(
        r, M
    )
    if not full:
        return (
            "the r directions are not independent: with factors of lower rank some "
            "move together or never, and the update has not the rank that r allows"
        )
    if np.abs(A).max() > 20 or np.abs(B).max() > 20:
        return "an entry is larger than 20: the first step would be wild"
    return ""


EXERCISE = Exercise(
    id="e20",
    title="an adapter that does not learn",
    kind="find the bug",
    minutes=5,
    difficulty=1,
    needs=("e17", "e19"),
    ask="""
    An adapter was attached, the optimizer runs, the gradients of A and B are computed
    rightly, and the loss stays where it was to the last digit. Find out why, and repair
    it. The output of the model must still be unchanged before the first step.
    """,
    functions=(new_adapter,),
    found=(new_adapter_as_found,),
    returns=("A", "B"),
    want=None,
    laws=(Law("the adapter must be able to learn.", problem, judge=judge),),
    mistakes=mistakes(
        new_adapter,
        ("A", "B"),
        mistake(
            "both_random",
            "two random factors",
            lambda c: (
                c.rng.normal(size=(c.r, c.inputs)),
                c.rng.normal(size=(c.outputs, c.r)),
            ),
        ),
        mistake(
            "rank_one",
            "an A whose rows are multiples of one another: the r directions are one",
            lambda c: (
                np.ones((c.r, c.inputs)) * (1 + np.arange(c.r))[:, None] / c.r,
                np.zeros((c.outputs, c.r)),
            ),
        ),
        mistake(
            "one_direction",
            "one direction of r that can move",
            lambda c: (
                np.zeros((c.r, c.inputs)),
                np.eye(c.outputs, c.r) * (np.arange(c.r) == 0),
            ),
        ),
    ),
    others=(
        lambda c: (c.rng.uniform(-1, 1, (c.r, c.inputs)), np.zeros((c.outputs, c.r))),
        lambda c: (np.zeros((c.r, c.inputs)), c.rng.normal(size=(c.outputs, c.r))),
        lambda c: (
            np.eye(c.r, c.inputs),
            np.zeros((c.outputs, c.r)),
        ),
    ),
    hints=(
        "Write down dA and dB at the first step for this start.",
        "dA contains B as a factor, dB contains A. What are they if both are 0? Which "
        "of the lines touch both factors?",
        "    for factor in (____,):  # what must be 0 for B A to be 0?",
    ),
    why="""
    dA = s (dy B)ᵀ x and dB = s dyᵀ (x Aᵀ): with both factors 0 both gradients are
    0, for ever. A was drawn, and then a reset that runs over all factors set it to 0
    too: in public code such a reset is called a second time, after the initialisation
    was right. One factor must be 0 for the start to be unchanged, the other
    must not.
    """,
    follow_ups=(
        (
            "Which of the two should be random?",
            "Either works. A random is usual; the embedding has A = 0 and B random, "
            "so that unseen tokens stay as they were.",
        ),
        (
            "How do you notice this fault in a run?",
            "By the norm of the gradients: exactly 0 at step 2 is a fault, at step 1 "
            "for A it is as it should be.",
        ),
    ),
    read="lora_np/lora/init.py; chapter 05",
)
