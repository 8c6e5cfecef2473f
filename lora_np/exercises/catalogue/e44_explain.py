"""LoRA on other models.  Question 5 of the second article."""

from lora_np.exercises.exercise import Exercise, Number
from lora_np.lora import lora_parameters

D, H, R = 300, 512, 4


def both(gates=4):
    """LoRA on the input and the recurrent matrix of an LSTM with fused gates."""
    return lora_parameters([(gates * H, D), (gates * H, H)], R)


def per_gate():
    return lora_parameters([(H, D), (H, H)] * 4, R)


EXERCISE = Exercise(
    id="e44",
    title="not only transformers",
    kind="explain",
    minutes=8,
    difficulty=2,
    needs=("e28", "e38"),
    ask="""
    The article's question 5: "Does LoRA suit all kinds of pretrained models?" It
    answers: "Transformers, because they can be decomposed; for recurrent networks
    other methods may be needed." Say where LoRA can be applied and why, and where
    it cannot.

    Count for an LSTM with 300 inputs and 512 hidden units. Its four gates are fused
    in two matrices, (4·512, 300) for the input and (4·512, 512) for the hidden
    state.
    """,
    numbers=(
        Number(
            "fused",
            "LoRA of rank 4, one adapter on each of the two fused matrices: "
            "how many numbers?",
            both,
            {
                "that is one for each gate": per_gate,
                "the four gates make 2048 rows": lambda: both(1),
                "that is the input matrix alone": lambda: lora_parameters(
                    [(4 * H, D)], R
                ),
            },
        ),
        Number(
            "per_gate",
            "And one of rank 4 for each gate of each matrix?",
            per_gate,
            {"A is not shared between gates now": both},
        ),
    ),
    rubric=(
        "any linear map can have a low-rank update beside it: RNN gates, convolutions, "
        "embeddings, MLPs",
        "LoRA on the gates of an LSTM passes the same gradient check as on attention "
        "(claim D1.5)",
        "nothing is decomposed, so no 'decomposability' is needed",
        "where there is no matrix (norms, biases, activations) there is nothing to "
        "factor: train those numbers themselves",
        "a recurrent matrix is used at every step: its adapter's gradient is a sum "
        "over time",
    ),
    hints=(
        "What does LoRA need of a layer? A product with a matrix.",
        "r (inputs + outputs) for each adapted matrix; fused gates are one matrix.",
        "    fused = 4 * (300 + 2048) + 4 * (____)",
    ),
    why="""
    y = x Wᵀ + s (x Aᵀ) Bᵀ asks for nothing but a product. In a fused matrix one adapter
    has one A for four gates, so the four updates share their inputs' directions; one
    adapter a gate has four A's and more numbers.
    """,
    follow_ups=(
        (
            "What must be certified when a matrix is used at every time step?",
            "That gradients add over the steps: backpropagation through time.",
        ),
        (
            "Would you put LoRA on a 10 x 10 matrix?",
            "No: rank 5 has as many numbers as the matrix. Train it whole.",
        ),
    ),
    read="lora_np/lora/lstm.py; python -m lora_np documents --only D1.5",
)
