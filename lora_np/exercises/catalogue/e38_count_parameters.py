"""Counting trained parameters."""

from lora_np import lora as L
from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes


def count_parameters(shapes, r, train_bias):
    """How many numbers LoRA trains.

    shapes: list of (outputs, inputs) of the adapted matrices   r: the rank
    train_bias: True if each layer's bias (one number an output) is trained too
    Returns an integer.
    """
    return sum(r * (M + D) + (M if train_bias else 0) for M, D in shapes)


def problem(d):
    count = d.choice([1, 2, 3])
    if d.rng is not None:
        shapes = [(40 + 3 * i + d.integers(0, 9), 90 - 7 * i) for i in range(count)]
        return {
            "shapes": shapes,
            "r": d.choice([8, 4, 5]),
            "train_bias": d.choice([True, False]),
        }
    shapes = [(d.integers(1, 6), d.integers(1, 6)) for _ in range(count)]
    return {
        "shapes": shapes,
        "r": d.integers(1, 4),
        "train_bias": d.choice([False, True]),
    }


def total(c, one):
    return sum(one(M, D) for M, D in c.shapes)


def bias(c, M):
    return M if c.train_bias else 0


EXERCISE = Exercise(
    id="e38",
    title="counting parameters",
    kind="implement",
    minutes=4,
    difficulty=1,
    needs=("e16",),
    ask="""
    The first question of every interview on LoRA. Matrices need not be square (an
    MLP's are 4 : 1, keys with grouped heads are narrow), and bias="lora_only"
    trains the biases of the adapted layers too.
    """,
    functions=(count_parameters,),
    returns=("count",),
    want=lambda c: (
        L.lora_parameters(c["shapes"], c["r"])
        + (sum(M for M, _ in c["shapes"]) if c["train_bias"] else 0)
    ),
    laws=(Law("{arrays} is not what LoRA of this rank trains.", problem, True),),
    mistakes=mistakes(
        count_parameters,
        ("count",),
        mistake(
            "square_assumed",
            "2 r inputs for each matrix: B has outputs times r",
            lambda c: total(c, lambda M, D: 2 * c.r * D + bias(c, M)),
        ),
        mistake(
            "A_only",
            "r inputs for each matrix: B is missing",
            lambda c: total(c, lambda M, D: c.r * D + bias(c, M)),
        ),
        mistake(
            "B_only",
            "r outputs for each matrix: A is missing",
            lambda c: total(c, lambda M, D: c.r * M + bias(c, M)),
        ),
        mistake(
            "full",
            "the numbers of the frozen weights",
            lambda c: total(c, lambda M, D: M * D + bias(c, M)),
        ),
        mistake(
            "product",
            "r times outputs times inputs",
            lambda c: total(c, lambda M, D: c.r * M * D + bias(c, M)),
        ),
        mistake(
            "bias_forgotten",
            "the factors alone: the trained biases are missing",
            lambda c: total(c, lambda M, D: c.r * (M + D)),
        ),
        mistake(
            "bias_of_inputs",
            "a bias with one number an input; it has one an output",
            lambda c: total(c, lambda M, D: c.r * (M + D) + bias(c, D)),
        ),
        mistake(
            "bias_always",
            "biases also where they are frozen",
            lambda c: total(c, lambda M, D: c.r * (M + D) + M),
        ),
        mistake(
            "first_matrix",
            "the first matrix alone",
            lambda c: c.r * sum(c.shapes[0]) + bias(c, c.shapes[0][0]),
        ),
    ),
    others=(
        lambda c: total(c, lambda M, D: M * c.r + c.r * D + bias(c, M)),
        lambda c: (
            c.r * sum(M + D for M, D in c.shapes)
            + int(c.train_bias) * sum(s[0] for s in c.shapes)
        ),
        lambda c: (
            sum(len(range(c.r)) * (M + D) for M, D in c.shapes)
            + (sum(M for M, _ in c.shapes) if c.train_bias else 0)
        ),
    ),
    hints=(
        "A is (r, inputs), B is (outputs, r).",
        "r (inputs + outputs) for each matrix, and outputs more for a trained bias.",
        "    return sum(r * (____) + (M if train_bias else 0) for M, D in shapes)",
    ),
    why="""
    Each matrix trains r (M + D) numbers instead of M D. For GPT-3's W_q and W_v at
    rank 1 that is 4,718,592: the paper's 4.7M.
    """,
    follow_ups=(
        (
            "From which rank on does LoRA train more than W has?",
            "r > M D / (M + D): half the width for a square matrix.",
        ),
        ("What does DoRA add?", "One magnitude an output: M."),
    ),
    read="lora_np/lora/counts.py; chapter 05",
)
