"""A simple LoRA model, compared.  Question 4 of the second article."""

import numpy as np

from lora_np.exercises.exercise import Exercise, Number

TARGET = np.diag([4.0, 2.0, 1.0])  # the change that the task wants, from W = 0


def best_loss(r):
    """Half the squared error that is left at rank r, for white inputs."""
    sigma = np.linalg.svd(TARGET, compute_uv=False)
    return float((sigma[r:] ** 2).sum() / 2)


EXERCISE = Exercise(
    id="e43",
    title="build one and compare it",
    kind="explain",
    minutes=10,
    difficulty=2,
    needs=("e19", "e42"),
    ask="""
    The article's question 4: "Implement a simple LoRA model and compare its
    performance with the original one." Its answer names frameworks. Say how you
    would do it so that the comparison means something: data, baselines, what is
    kept equal, what is measured.

    A case that can be computed: a linear layer whose task wants the change diag(4,
    2, 1) of its weight. Inputs are white (uncorrelated, variance 1), the loss is
    half the squared error a row. Before training it is (16 + 4 + 1) / 2 = 10.5.
    """,
    numbers=(
        Number(
            "loss_r1",
            "The lowest loss that LoRA of rank 1 can reach?",
            lambda: best_loss(1),
            {
                "the squares count": lambda: 1.5,
                "the loss has the factor 1/2": lambda: 5.0,
                "that is what rank 1 gains": lambda: 8.0,
            },
            tolerance=1e-9,
        ),
        Number(
            "loss_r2",
            "And of rank 2?",
            lambda: best_loss(2),
            {
                "the loss has the factor 1/2": lambda: 1.0,
                "the change has rank 3": lambda: 0.0,
            },
            tolerance=1e-9,
        ),
        Number(
            "loss_full",
            "And full fine-tuning?",
            lambda: best_loss(3),
            {"all of W can move: every change can be reached": lambda: 0.5},
            tolerance=0.0,
        ),
    ),
    rubric=(
        "the same base, data, tokens and held-out set; several seeds",
        "each method at its own best learning rate, searched with equal effort",
        "baselines: the untouched model, head-only, full fine-tuning",
        "report loss (and a task measure), trained numbers, memory, time, and what is "
        "forgotten of the old text",
        "check the layer first: output unchanged at the start, gradients certified, "
        "merged equals unmerged",
    ),
    hints=(
        "What is the best matrix of rank 1 for diag(4, 2, 1)?",
        "With white inputs the loss is half the squared Frobenius distance of the "
        "weights.",
        "    loss_r1 = (____ + 1**2) / 2",
    ),
    why="""
    With a planted change the answer is known in advance: the loss falls with r
    until r reaches the rank of the change, and not after (a knee). On real text
    there is no such knee (claim D4.8), so one computed case and one real one teach
    different things.
    """,
    follow_ups=(
        (
            "Why search a learning rate for each method?",
            "The best rates differ by a factor of ten or more; with one rate for all "
            "you compare rates, not methods.",
        ),
        (
            "Your LoRA beats full fine-tuning. What do you check?",
            "The learning rate of full fine-tuning, overfitting on small data, the "
            "seeds.",
        ),
    ),
    read="chapters 05 and 10; python -m lora_np documents --only D4.8",
)
