"""How are the factors trained?  Question 6 of the second article."""

import numpy as np

from lora_np import lora as L
from lora_np.exercises.exercise import Exercise, Number

X, W = np.array([[1.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
A, B, S = np.array([[1.0, -1.0]]), np.zeros((3, 1)), 2.0
G = np.array([[1.0, 2.0, -1.0]])


def gradients(B=B, s=S):
    y, cache = L.lora_linear(X, W, None, A, B, s)
    return L.lora_linear_backward(G, cache)


def after_step(lr):
    """The change of the first output after one step of gradient descent."""
    _, _, dA, dB = gradients()
    before = L.lora_linear(X, W, None, A, B, S)[0]
    after = L.lora_linear(X, W, None, A - lr * dA, B - lr * dB, S)[0]
    return float((after - before)[0, 0])


EXERCISE = Exercise(
    id="e35",
    title="the first step",
    kind="explain",
    minutes=8,
    difficulty=2,
    needs=("e19", "e32"),
    ask="""
    The article's question 6: "How is the low-rank matrix R optimised?" It answers: "by
    gradient descent or other methods". Say more: which gradients there are at the first
    step, what the optimizer holds, and which choices differ from full fine-tuning.

    Compute one step by hand: x = [1, 2], A = [1, -1], B = [0, 0, 0]ᵀ, s = 2, r = 1, and
    dL/dy = [1, 2, -1]. Plain gradient descent with the learning rate 0.1.
    """,
    numbers=(
        Number(
            "dB_0",
            "The first entry of dB?",
            lambda: float(gradients()[3][0, 0]),
            {
                "the factor s is missing": lambda: -1.0,
                "x Aᵀ = 1·1 + 2·(-1) = -1 belongs to it": lambda: 2.0,
            },
        ),
        Number(
            "dA_0",
            "The first entry of dA?",
            lambda: float(gradients()[2][0, 0]),
            {"dA has B as a factor": lambda: 2.0},
        ),
        Number(
            "change_of_y_0",
            "By how much does the first output change through the step?",
            lambda: after_step(0.1),
            {
                "both factors s are missing, that in dB and that in the forward": (
                    lambda: -0.1
                ),
                "mind the sign: a step goes down": lambda: 0.4,
                "that is the change of B": lambda: 0.2,
                "s acts in dB and again in the forward: one of the two is missing": (
                    lambda: -0.2
                ),
            },
            tolerance=1e-9,
        ),
    ),
    rubric=(
        "dA = s (dy B)ᵀ x is 0 at the first step because B = 0; dB is not",
        "any first-order optimizer; W has no gradient and no optimizer state",
        "the learning rate is usually ten times that of full fine-tuning or more, "
        "and is searched for",
        "s acts twice under SGD (in the gradient and in the forward), once under Adam",
        "optional: B faster than A (LoRA+), decay on A and B only",
    ),
    hints=(
        "dB = s dyᵀ (x Aᵀ) and dA = s (dy B)ᵀ x.",
        "x Aᵀ is one number here. After the step B = -0.1 dB, and y changes by "
        "s (x Aᵀ) Bᵀ.",
        "    dB_0 = 2 * 1 * (1 * 1 + 2 * ____)",
    ),
    why="""
    x Aᵀ = -1, so dB = 2 · dyᵀ · (-1) = [-2, -4, 2]ᵀ and dA = 0. After the step B =
    [0.2, 0.4, -0.2]ᵀ, and y changes by s (x Aᵀ) Bᵀ = -2 B ᵀ: the first output by -0.4,
    against its gradient of +1.
    """,
    follow_ups=(
        (
            "By how much does the loss change, to first order?",
            "dy · Δy = 1·(-0.4) + 2·(-0.8) + (-1)·0.4 = -2.4 = -lr |dB|².",
        ),
        ("When does A begin to move?", "At the second step, because B is then not 0."),
    ),
    read="lora_np/lora/linear.py; chapters 01 and 05",
)
