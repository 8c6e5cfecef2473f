"""LoRA+: two learning rates."""

import numpy as np

from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes


def lora_plus_step(A, B, dA, dB, lr, ratio):
    """One step of gradient descent in which B learns `ratio` times as fast as A.

    A, dA: (r, D)   B, dB: (M, r)   lr: A's learning rate   ratio: a number
    Returns the new (A, B).
    """
    return A - lr * dA, B - lr * ratio * dB


def problem(d):
    D, M, r = d.sizes(3)
    return {
        "A": d.array(r, D),
        "B": d.array(M, r),
        "dA": d.array(r, D),
        "dB": d.array(M, r),
        "lr": d.choice([0.5, 0.25]),
        "ratio": d.choice([16.0, 4.0]),
    }


def wanted(c):
    """Entry by entry."""
    A, B = c["A"].copy(), c["B"].copy()
    for i in np.ndindex(A.shape):
        A[i] = A[i] - c["lr"] * c["dA"][i]
    for i in np.ndindex(B.shape):
        B[i] = B[i] - c["ratio"] * c["lr"] * c["dB"][i]
    return A, B


def stepped(c, a, b):
    return c.A - a * c.dA, c.B - b * c.dB


EXERCISE = Exercise(
    id="e33",
    title="LoRA+: two learning rates",
    kind="implement",
    minutes=3,
    difficulty=1,
    needs=("e19",),
    ask="""
    LoRA+ (Hayou et al. 2024) gives the two factors different learning rates:
    loraplus_lr_ratio = rate of B / rate of A, 16 for instance. Write one step of plain
    gradient descent with it.
    """,
    functions=(lora_plus_step,),
    returns=("A", "B"),
    want=wanted,
    laws=(
        Law(
            "{arrays} did not move by minus its rate times its gradient.", problem, True
        ),
    ),
    mistakes=mistakes(
        lora_plus_step,
        ("A", "B"),
        mistake(
            "ratio_on_A",
            "the large rate for A: it is B's",
            lambda c: stepped(c, c.lr * c.ratio, c.lr),
        ),
        mistake(
            "ratio_on_both",
            "the large rate for A as well: it is B's alone",
            lambda c: stepped(c, c.lr * c.ratio, c.lr * c.ratio),
        ),
        mistake(
            "ratio_ignored",
            "A's rate for B too: the ratio is not used",
            lambda c: stepped(c, c.lr, c.lr),
        ),
        mistake(
            "divided", "lr / ratio for B", lambda c: stepped(c, c.lr, c.lr / c.ratio)
        ),
        mistake(
            "A_slowed",
            "lr for B and lr / ratio for A: the ratio is right, the "
            "meaning of lr is not",
            lambda c: stepped(c, c.lr / c.ratio, c.lr),
        ),
        mistake(
            "ascent",
            "plus the gradient: that climbs",
            lambda c: stepped(c, -c.lr, -c.lr * c.ratio),
        ),
        mistake(
            "A_kept",
            "A as it came in: it takes a step too",
            lambda c: stepped(c, 0.0, c.lr * c.ratio),
        ),
        mistake(
            "ratio_for_rate",
            "the ratio itself as B's rate",
            lambda c: stepped(c, c.lr, c.ratio),
        ),
    ),
    others=(
        lambda c: stepped(c, c.lr, c.lr * c.ratio),
        lambda c: tuple(
            np.subtract(x, k * g)
            for x, g, k in ((c.A, c.dA, c.lr), (c.B, c.dB, c.ratio * c.lr))
        ),
        lambda c: (c.A + (-c.lr) * c.dA, c.B + np.multiply(c.dB, -c.lr * c.ratio)),
    ),
    hints=(
        "Two parameters, two rates, one formula.",
        "A's rate is lr. B's is lr times the ratio.",
        "    return A - lr * dA, B - ____ * dB",
    ),
    why="""
    B starts at 0 and A does not: for wide layers the same rate lets B move too slowly
    against A. The ratio repairs that with no other change to the method.
    """,
    follow_ups=(
        (
            "Why not give B a larger initial value instead?",
            "Then the model's output would change before the first step.",
        ),
        (
            "How is it done with a real optimizer?",
            "Two parameter groups; the decay of B is usually kept apart as well.",
        ),
    ),
    read="lora_np/training/optim.py; Hayou et al. 2024 (2402.12354)",
)
