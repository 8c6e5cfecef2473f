"""How is the low-rank decomposition obtained?  Question 3 of the second article."""

import numpy as np

from lora_np.exercises.exercise import Exercise, Number

W = np.diag([5.0, 4.0, 3.0, 2.0])


def lost(r):
    """Relative Frobenius error of W's best rank-r approximation."""
    sigma = np.linalg.svd(W, compute_uv=False)
    return float(np.sqrt((sigma[r:] ** 2).sum() / (sigma**2).sum()))


EXERCISE = Exercise(
    id="e26",
    title="where do A and B come from?",
    kind="explain",
    minutes=6,
    difficulty=2,
    needs=("e18",),
    ask="""
    The article's question 3: "How is LoRA's low-rank decomposition implemented?" It
    answers: "by a singular value decomposition of W, into a low-rank and a Gaussian
    matrix, then training the low-rank one." Say what is wrong with that, and where
    A and B really come from.

    Then the price of decomposing W itself. Every matrix is U diag(σ) Vᵀ with
    orthonormal columns in U and V (the singular value decomposition, SVD); its best
    approximation of rank r keeps the r largest σ; and its Frobenius norm |W|, the root
    of the sum of its squared entries, is also the root of the sum of the σ². A weight
    has the singular values 5, 4, 3, 2 and is replaced by its best approximation of
    rank 2.
    """,
    numbers=(
        Number(
            "relative_error",
            "Which part of W is lost, as |W - W_2| / |W| in the Frobenius norm?",
            lambda: lost(2),
            {
                "that is the part that is kept": lambda: (41 / 54) ** 0.5,
                "norms add in squares: take the root": lambda: 13 / 54,
                "singular values do not add, their squares do": lambda: 5 / 14,
                "that is rank 1": lambda: lost(1),
                "that is rank 3": lambda: lost(3),
            },
            tolerance=5e-3,
        ),
        Number(
            "rank_of_update",
            "LoRA of rank 2 on the same W: of which rank can W + s B A be at most, if "
            "W is 4 x 4?",
            lambda: 4,
            {
                "that bounds the update; W keeps its own rank": lambda: 2,
                "ranks add, but a 4 x 4 matrix has rank 4 at most": lambda: 6,
            },
        ),
    ),
    rubric=(
        "nothing is decomposed: A is drawn, B is 0, both are trained",
        "an SVD gives singular vectors, not a Gaussian matrix: the two sentences "
        "exclude each other",
        "a fixed Gaussian factor with the other one trained is a method of its own: "
        "LoRA-FA freezes A and trains B, as an update beside W. (VeRA freezes both "
        "random factors and trains two vectors that scale them)",
        "an SVD has its place elsewhere: PiSSA, a variant of LoRA, starts A and B from "
        "W's largest singular vectors and subtracts them from W; compression replaces "
        "W",
    ),
    hints=(
        "The best rank-r approximation keeps the r largest singular values "
        "(Eckart and Young).",
        "The squared error is the sum of the squares of the others.",
        "    relative_error = ((3**2 + 2**2) / ____) ** 0.5",
    ),
    why="""
    LoRA's factors are parameters of an update that does not exist before training:
    there is nothing to decompose. What an SVD of W gives is a compressed W, and at
    the ranks of LoRA most of W is lost.
    """,
    follow_ups=(
        (
            "PiSSA starts A and B from an SVD of W. What does that change?",
            "The start: A and B hold W's leading part, W the rest. Output unchanged, "
            "faster first steps; the stored adapter is useless without the original "
            "W.",
        ),
        (
            "Can a finished full fine-tuning be turned into an adapter?",
            "Yes: truncated SVD of W' - W. How much is lost is what its singular "
            "values say.",
        ),
    ),
    read="lora_np/documents/d1.py; chapter 07; python -m lora_np documents --only D1.2",
)
