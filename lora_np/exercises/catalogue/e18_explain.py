"""What is LoRA?  The first of seven questions of the second article."""

from lora_np.exercises.exercise import Exercise, Number
from lora_np.lora import lora_parameters

D, LAYERS, R = 12288, 96, 8  # GPT-3 175B, Hu et al. 2021, table 4
SHAPES = [(D, D)] * (2 * LAYERS)  # W_q and W_v of each layer

EXERCISE = Exercise(
    id="e18",
    title="what is LoRA?",
    kind="explain",
    minutes=8,
    difficulty=1,
    needs=("e16", "e17"),
    ask="""
    An article (D1, question 1) answers: "LoRA decomposes the input vector and the
    weight matrix into a low-rank matrix and a Gaussian matrix, W = R G, and trains
    R." Say what LoRA really is: what is kept, what is trained, from where it
    starts, how the scale stands, and what is left of it at inference.

    Then count. GPT-3 has 96 layers and square projections of width 12288. LoRA of
    rank 8 adapts the query and the value projection of each layer.
    """,
    numbers=(
        Number(
            "trainable",
            "How many numbers are trained?",
            lambda: lora_parameters(SHAPES, R),
            {
                "half: one factor of two, or one projection of two": lambda: (
                    R * D * 2 * LAYERS
                ),
                "you counted all four projections": lambda: 2 * R * D * 4 * LAYERS,
                "that is one layer": lambda: 4 * R * D,
                "that is the number of frozen weights": lambda: 2 * LAYERS * D * D,
            },
        ),
        Number(
            "frozen_to_trainable",
            "How many frozen numbers of the adapted matrices stand against each "
            "trained one?",
            lambda: D / (2 * R),
            {
                "that leaves one factor out: r (in + out)": lambda: D / R,
                "turn the fraction round": lambda: 2 * R / D,
            },
            tolerance=1e-3,
        ),
    ),
    rubric=(
        "W stays, frozen; an update is added: y = x Wᵀ + s (x Aᵀ) Bᵀ (not W = R G)",
        "only A (r, in) and B (out, r) are trained; r is small against in and out",
        "it starts at the pretrained model exactly, because B = 0 (A is random)",
        "s = lora_alpha / r; the input is never decomposed",
        "after training W + s B A is one matrix: no cost at inference",
    ),
    hints=(
        "Which matrix does the article replace, and which does LoRA add?",
        "Count r times (inputs + outputs) for one matrix; then how many matrices?",
        "    trainable = 2 * 96 * ____",
    ),
    why="""
    W = R G would replace the pretrained weight by a matrix of rank r: at rank 8 nearly
    everything that was learnt is lost (claim D1.1 computes how much). LoRA keeps W and
    restricts the change to rank r.
    """,
    follow_ups=(
        (
            "Why can the change be of low rank when W is not?",
            "It is an observation, not a theorem: fine-tuning moves W mostly along few "
            "directions. A task that needs more rank is fitted worse (claim D4.8).",
        ),
        (
            "What is lost if both factors start random?",
            "The start: s B A is then added to every output before the first step.",
        ),
    ),
    read="chapters 01 and 07; python -m lora_np documents --only D1.1",
)
