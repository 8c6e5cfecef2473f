"""LoRA and other methods.  Question 2 of the second article."""

from lora_np.exercises.exercise import Exercise, Number
from lora_np.lora import lora_parameters

D, LAYERS, R, PREFIX, NECK, CLASSES = 768, 12, 8, 20, 32, 2
SHAPES = [(D, D)] * (2 * LAYERS)


def biases() -> int:
    """All biases of linear layers: q, k, v, o (D each), MLP (4 D and D)."""
    return LAYERS * (4 * D + 4 * D + D)


EXERCISE = Exercise(
    id="e40",
    title="LoRA and the other methods",
    kind="explain",
    minutes=10,
    difficulty=2,
    needs=("e38",),
    ask="""
    The article's question 2: "How does LoRA differ from other methods
    (distillation, transfer learning)?" It answers: "the others may have to train
    from scratch, or use many parameters". Compare LoRA with full fine-tuning
    and with six others: training the head only (the last layer); BitFit (the biases
    only); prompt tuning (vectors put before the input's embeddings); prefix tuning
    (keys and values put before those of every attention layer); bottleneck adapters
    (small two-layer networks inserted in series after the layers); distillation (a
    smaller model is trained to imitate the large one). What is trained, what does it
    cost at inference, what can be merged?

    Then count, for an encoder of 12 layers and width 768 whose layers have the
    linear maps q, k, v, o (768 to 768), MLP up (768 to 3072) and MLP down (3072 to
    768), all with biases.
    """,
    numbers=(
        Number(
            "lora",
            "LoRA of rank 8 on q and v of every layer: how many numbers?",
            lambda: lora_parameters(SHAPES, R),
            {
                "that is half: q alone, or A alone": lambda: R * 2 * D * LAYERS,
                "that is all four of q, k, v, o": lambda: R * 2 * D * 4 * LAYERS,
            },
        ),
        Number(
            "bitfit",
            "BitFit: all biases of the linear maps?",
            biases,
            {
                "MLP up has 3072 biases, not 768": lambda: LAYERS * 6 * D,
                "that leaves the MLP out": lambda: LAYERS * 4 * D,
                "that is one layer": lambda: 9 * D,
            },
        ),
        Number(
            "prefix",
            "Prefix tuning with 20 positions: a key and a value of width 768 for each "
            "position and layer?",
            lambda: LAYERS * 2 * PREFIX * D,
            {
                "that is keys alone": lambda: LAYERS * PREFIX * D,
                "that is prompt tuning: at the input only": lambda: PREFIX * D,
            },
        ),
    ),
    rubric=(
        "transfer learning and distillation start from trained models; nobody trains "
        "from scratch there",
        "prompt tuning, BitFit and head-only have fewer parameters than LoRA: few "
        "parameters alone do not set LoRA apart",
        "nor does a free inference: BitFit and head-only cost nothing either, as they "
        "change numbers that are there. What does: an update of whole weight matrices, "
        "of a rank of choice, that is kept apart and exchanged, or merged",
        "adapters add layers in series, prefixes use up context: both stay at "
        "inference",
        "distillation makes the model itself smaller, which LoRA does not",
    ),
    hints=(
        "For each method: which numbers are trained, and are they still there at "
        "inference?",
        "A linear map has as many biases as outputs.",
        "    bitfit = 12 * (4 * 768 + ____ + 768)",
    ),
    why="""
    The table of methods with counts and losses on a real text is claim D1.4. The
    article's answer would not set LoRA apart from what existed before it.
    """,
    follow_ups=(
        (
            "Which of them can serve ten tasks in one batch?",
            "LoRA unmerged, prefixes and prompts (per row); merged LoRA and full "
            "fine-tuning cannot.",
        ),
        (
            "When would you not use LoRA?",
            "When the model must become smaller or faster, or when the task needs a "
            "change of high rank (much new knowledge, another language).",
        ),
    ),
    read="chapter 07; python -m lora_np documents --only D1.4",
)
