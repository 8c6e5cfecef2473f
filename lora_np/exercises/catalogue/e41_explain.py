"""What LoRA saves and what it does not.  Question 7 of the second article."""

from lora_np.exercises.exercise import Exercise, Number
from lora_np.lora import full_step_flops, lora_step_flops

SHAPES, R = [(768, 768)], 8
BASE, TRAINED = 7_000_000_000, 20_000_000


EXERCISE = Exercise(
    id="e41",
    title="what is saved",
    kind="explain",
    minutes=10,
    difficulty=2,
    needs=("e39", "e40"),
    ask="""
    The article's question 7: "Describe the advantages of LoRA." It answers: "few
    parameters, fast adaptation, most of the performance; so it is good where
    resources are scarce". Elsewhere it says that the model gets smaller and
    inference easier. Say which of these hold, for what.

    Numbers: a base of 7 billion weights in 2 bytes; 20 million trained in 4 bytes,
    with Adam. And a single 768 x 768 matrix with rank 8: floating-point operations
    of a step, by the usual convention: a product with a matrix of P numbers takes 2P
    for each token (a multiplication and an addition each), forward 2P, backward 2P for
    dx and 2P for dW. The adapter's two factors, A and B, are matrices too.
    """,
    numbers=(
        Number(
            "optimizer_megabytes",
            "Adam's two means for the trained numbers, in MB (10^6 bytes)?",
            lambda: 2 * 4 * TRAINED / 1e6,
            {
                "Adam keeps two numbers for each": lambda: 4 * TRAINED / 1e6,
                "that is for the whole base": lambda: 2 * 4 * BASE / 1e6,
                "those are the gradients and weights too": lambda: 16 * TRAINED / 1e6,
            },
            tolerance=1e-3,
        ),
        Number(
            "step_ratio",
            "Operations of a LoRA step over those of full fine-tuning, for the matrix?",
            lambda: lora_step_flops(SHAPES, R) / full_step_flops(SHAPES),
            {
                "the adapter's own operations are missing": lambda: 2 / 3,
                "that is the share of the numbers": lambda: 2 * R / 768,
                "the adapter needs its weight gradients too": lambda: (
                    2 / 3 + 2 * R / 768 * 2 / 3
                ),
            },
            tolerance=2e-3,
        ),
        Number(
            "merged_ratio",
            "Operations at inference after merging, over those of the base?",
            lambda: 1.0,
            {
                "that is unmerged": lambda: 1 + 2 * R / 768,
                "the base is not made smaller": lambda: 2 * R / 768,
            },
            tolerance=1e-9,
        ),
    ),
    rubric=(
        "trained numbers, gradients and optimizer state shrink, and so does a "
        "checkpoint",
        "the model does not: all its weights are needed; inference costs the same "
        "merged, a little more unmerged",
        "a step needs about two thirds of the operations, not one hundredth: dx goes "
        "through the whole model",
        "performance is near full fine-tuning on many tasks, below it where much "
        "must be learnt; measure",
        "the base comes back exactly when the adapter is removed",
    ),
    hints=(
        "Four things to tell apart: trained numbers, optimizer state, the model, "
        "inference.",
        "Full fine-tuning: 2P forward, 2P for dx, 2P for dW. LoRA: no dW, and 6 r "
        "(in + out) for the adapter.",
        "    step_ratio = (4 * 768**2 + ____) / (6 * 768**2)",
    ),
    why="""
    Without dW a frozen matrix costs 4P of 6P. The adapter adds 6 · 2 d r: together
    0.6875 at d = 768 and r = 8. "Few parameters" says nothing about inference.
    """,
    follow_ups=(
        (
            "So why do people report that LoRA trains three times faster?",
            "Less memory lets them use larger batches or fewer machines; the "
            "operations of a token fall by a third only.",
        ),
        (
            "Does LoRA forget less?",
            "At the same learning progress not here (claim D4.9); it often learns "
            "less, and the base can be restored.",
        ),
    ),
    read="lora_np/lora/counts.py; python -m lora_np documents --only D0.10",
)
