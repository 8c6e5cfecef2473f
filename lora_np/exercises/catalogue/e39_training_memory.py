"""Counting bytes."""

from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes


def training_bytes(frozen, trained, frozen_bytes, trained_bytes):
    """Memory of weights, gradients and Adam's state while LoRA trains.

    frozen: numbers that are not trained   trained: numbers in A and B
    frozen_bytes: bytes a frozen number   trained_bytes: bytes of each number that
    belongs to A and B: weight, gradient, Adam's two means   Returns an integer.
    """
    return frozen * frozen_bytes + trained * 4 * trained_bytes


def problem(d):
    if d.rng is not None:
        frozen, trained = 1000 + d.integers(0, 999), 50 + d.integers(0, 49)
        small, large = d.choice([2, 1]), 4
    else:
        frozen, trained = d.integers(1, 9), d.integers(1, 9)
        small, large = d.choice([2, 1, 4]), d.choice([4, 2])
    return {
        "frozen": frozen,
        "trained": trained,
        "frozen_bytes": small,
        "trained_bytes": large,
    }


def by_purpose(c):
    weights = c.frozen * c.frozen_bytes + c.trained * c.trained_bytes
    gradients = c.trained * c.trained_bytes
    adam = 2 * c.trained * c.trained_bytes
    return weights + gradients + adam


def total(c, of_frozen=1, of_trained=4):
    return (
        of_frozen * c.frozen * c.frozen_bytes + of_trained * c.trained * c.trained_bytes
    )


EXERCISE = Exercise(
    id="e39",
    title="counting bytes",
    kind="implement",
    minutes=4,
    difficulty=1,
    needs=("e32", "e38"),
    ask="""
    "Will it fit?" Count the bytes of weights, gradients and optimizer state when
    LoRA is trained with Adam. (Activations come on top; they depend on batch and
    length.)
    """,
    functions=(training_bytes,),
    returns=("bytes",),
    want=lambda c: (
        sum([c["frozen_bytes"]] * c["frozen"])
        + sum([c["trained_bytes"]] * 4 * c["trained"])
    ),
    laws=(Law("{arrays} is not what training holds.", problem, True),),
    mistakes=mistakes(
        training_bytes,
        ("bytes",),
        mistake(
            "full_fine_tuning",
            "gradients and means for the frozen numbers too: that is what LoRA saves",
            lambda c: total(c, of_frozen=4),
        ),
        mistake(
            "frozen_gradient",
            "a gradient for the frozen numbers too",
            lambda c: total(c, of_frozen=2),
        ),
        mistake(
            "one_mean", "one of Adam's two means", lambda c: total(c, of_trained=3)
        ),
        mistake(
            "no_optimizer",
            "weights and gradients without Adam's state",
            lambda c: total(c, of_trained=2),
        ),
        mistake("weights_only", "the weights alone", lambda c: total(c, of_trained=1)),
        mistake(
            "frozen_forgotten",
            "the trained numbers alone: the base is in memory too",
            lambda c: total(c, of_frozen=0),
        ),
        mistake(
            "one_precision",
            "the trained numbers in the base's precision",
            lambda c: c.frozen_bytes * (c.frozen + 4 * c.trained),
        ),
        mistake("bits", "bits, not bytes", lambda c: 8 * total(c)),
        mistake("numbers", "numbers, not bytes", lambda c: c.frozen + 4 * c.trained),
    ),
    others=(
        by_purpose,
        lambda c: c.frozen_bytes * c.frozen + (c.trained_bytes * c.trained << 2),
        lambda c: sum(
            n * b
            for n, b in (
                (c.frozen, c.frozen_bytes),
                *[(c.trained, c.trained_bytes)] * 4,
            )
        ),
    ),
    hints=(
        "What is kept for a number that is trained, and what for one that is not?",
        "Trained: weight, gradient, mean, mean of squares. Frozen: the weight.",
        "    return frozen * frozen_bytes + trained * ____ * trained_bytes",
    ),
    why="""
    Adam in one precision holds four numbers for each trained one. A frozen base
    needs no gradient and no state, and may be stored coarser (2 bytes, or half a
    byte in QLoRA). The base itself stays: LoRA does not make the model smaller.
    """,
    follow_ups=(
        (
            "Does LoRA reduce the memory of activations?",
            "Partly: a frozen linear layer need not keep its input, but the path "
            "down to the first adapter is still walked, and A's input is kept.",
        ),
        (
            "7 billion numbers in 16 bit, 20 million trained in 32 bit: how much?",
            "14 GB + 0.32 GB, against 56 GB or more for full fine-tuning.",
        ),
    ),
    read="lora_np/lora/counts.py (memory); chapter 05",
)
