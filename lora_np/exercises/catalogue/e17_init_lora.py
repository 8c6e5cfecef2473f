"""How A and B start."""

import numpy as np

from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes
from lora_np.exercises.worker import Made


def init_lora(rng, inputs, outputs, r):
    """The factors of LoRA before the first step, as PEFT and loralib start them.

    rng: a NumPy Generator   inputs, outputs, r: sizes
    Returns (A, B): A (r, inputs) uniform between -1/sqrt(inputs) and 1/sqrt(inputs),
    B (outputs, r) zero, so that the model is unchanged.
    """
    bound = 1 / np.sqrt(inputs)
    return rng.uniform(-bound, bound, (r, inputs)), np.zeros((outputs, r))


def small(d):
    inputs, outputs, r = d.sizes(3)
    rng = Made("rng", d.integers(0, 99))
    return {"rng": rng, "inputs": inputs, "outputs": outputs, "r": r}


def wide(d):
    inputs = d.choice([400, 900, 1600])
    rng = Made("rng", d.integers(0, 99))
    return {
        "rng": rng,
        "inputs": inputs,
        "outputs": d.choice([30, 20]),
        "r": d.choice([8, 16, 4]),
    }


def judge(case, got):
    """Shapes, B = 0, A within its bound; spread out, where it has many numbers."""
    A, B = (np.asarray(x) for x in got)
    D, M, r = case["inputs"], case["outputs"], case["r"]
    if A.shape != (r, D):
        return f"A must be (r, inputs) = {(r, D)}, got {A.shape}"
    if B.shape != (M, r):
        return f"B must be (outputs, r) = {(M, r)}, got {B.shape}"
    if B.any():
        return "B is not 0: the model's output changes before the first step"
    if not A.any():
        return "A and B are both 0: no gradient ever reaches either"
    bound, largest = 1 / np.sqrt(D), float(np.abs(A).max())
    if largest > bound * (1 + 1e-12):
        return f"an entry of A is {largest:.3g}; 1/sqrt(inputs) is {bound:.3g}"
    if A.size < 1000:
        return ""
    if largest < 0.98 * bound:
        return (
            f"the largest of {A.size} entries of A is {largest:.3g}, far below the "
            f"bound {bound:.3g}"
        )
    spread = float(A.std() * np.sqrt(3) / bound)
    if not 0.95 < spread < 1.05 or abs(A.mean()) > 0.05 * bound:
        return (
            f"A is not uniform: mean {A.mean():.2g}, standard deviation "
            f"{A.std():.3g} instead of {bound / np.sqrt(3):.3g}"
        )
    return ""


def same_seed(case):
    return dict(case)


def other_seed(case):
    return {**case, "rng": Made("rng", case["rng"].values + 100)}


def repeated(case, got, again):
    """The same seed gives the same A."""
    if np.array_equal(got[0], again[0]):
        return judge(case, got)
    return (
        "the same seed gave two different A: something other than rng was drawn from "
        "(np.random, or a generator of your own)"
    )


def varied(case, got, again):
    """Two seeds give two different A."""
    if not np.array_equal(got[0], again[0]):
        return judge(case, got)
    return "two seeds of rng gave the same A: A does not come from rng"


def by_hand(c, A):
    return A.reshape(c.r, c.inputs), np.zeros((c.outputs, c.r))


def drawn(c, bound, shape=None):
    A = c.rng.uniform(-bound, bound, shape or (c.r, c.inputs))
    return A, np.zeros((c.outputs, c.r))


def bound(c):
    return 1 / np.sqrt(c.inputs)


def normal(c, std):
    return c.rng.normal(0, std, (c.r, c.inputs)), np.zeros((c.outputs, c.r))


def kaiming(c):
    """torch's kaiming_uniform_(a=√5): gain √(2/(1+5)), bound gain √(3/fan_in)."""
    gain = np.sqrt(2 / (1 + 5))
    limit = gain * np.sqrt(3 / c.inputs)
    return (2 * c.rng.random((c.r, c.inputs)) - 1) * limit, np.zeros((c.outputs, c.r))


EXERCISE = Exercise(
    id="e17",
    title="how A and B start",
    kind="implement",
    minutes=5,
    difficulty=1,
    needs=("e16",),
    ask="""
    Draw A uniformly between -1/sqrt(inputs) and 1/sqrt(inputs) (what
    kaiming_uniform_ with a = sqrt(5) comes to) and set B to zero. All randomness
    comes from rng.
    """,
    functions=(init_lora,),
    returns=("A", "B"),
    want=None,
    laws=(
        Law("A and B do not start as they should.", small, judge=judge),
        Law("A and B do not start as they should.", wide, judge=judge),
        Law("all randomness comes from rng.", small, judge=repeated, again=same_seed),
        Law("all randomness comes from rng.", small, judge=varied, again=other_seed),
    ),
    mistakes=mistakes(
        init_lora,
        ("A", "B"),
        mistake(
            "B_random",
            "a random B as well: B A is not 0, so the output changes",
            lambda c: (
                c.rng.uniform(-bound(c), bound(c), (c.r, c.inputs)),
                c.rng.uniform(-bound(c), bound(c), (c.outputs, c.r)),
            ),
        ),
        mistake(
            "both_zero",
            "zeros for both: dA needs B and dB needs A, so neither moves",
            lambda c: (np.zeros((c.r, c.inputs)), np.zeros((c.outputs, c.r))),
        ),
        mistake(
            "fan_in_r",
            "the bound 1/sqrt(r): an initialiser that took r for the number "
            "of inputs (A stored as (in, r))",
            lambda c: drawn(c, 1 / np.sqrt(c.r)),
        ),
        mistake(
            "kaiming_relu",
            "the bound sqrt(6/inputs), Kaiming's for a ReLU: 2.4 times too wide",
            lambda c: drawn(c, np.sqrt(6 / c.inputs)),
        ),
        mistake(
            "xavier",
            "the bound sqrt(6/(inputs + r)), Xavier's",
            lambda c: drawn(c, np.sqrt(6 / (c.inputs + c.r))),
        ),
        mistake(
            "standard_normal",
            "normal numbers of standard deviation 1",
            lambda c: normal(c, 1.0),
        ),
        mistake(
            "normal",
            "normal numbers of standard deviation 1/sqrt(inputs): the bound "
            "is meant, not the deviation",
            lambda c: normal(c, bound(c)),
        ),
        mistake(
            "one_sided",
            "numbers between 0 and the bound: the mean is not 0",
            lambda c: (
                c.rng.uniform(0, bound(c), (c.r, c.inputs)),
                np.zeros((c.outputs, c.r)),
            ),
        ),
        mistake(
            "by_inputs",
            "the bound 1/inputs: the root is missing",
            lambda c: drawn(c, 1 / c.inputs),
        ),
        mistake(
            "own_seed",
            "A from a generator of its own, default_rng(0): the same at every call, "
            "whatever rng is",
            lambda c: by_hand(
                c,
                np.random.default_rng(0).uniform(-bound(c), bound(c), (c.r, c.inputs)),
            ),
        ),
        mistake(
            "not_random",
            "evenly spaced numbers: nothing is drawn from rng",
            lambda c: by_hand(c, np.linspace(-bound(c), bound(c), c.r * c.inputs)),
        ),
        mistake(
            "A_transposed",
            "A as (inputs, r): the transpose",
            lambda c: drawn(c, bound(c), (c.inputs, c.r)),
        ),
    ),
    others=(
        kaiming,
        lambda c: (
            bound(c) * (1 - 2 * c.rng.random((c.r, c.inputs))),
            np.full((c.outputs, c.r), 0.0),
        ),
        lambda c: (
            np.stack([c.rng.uniform(-1, 1, c.inputs) for _ in range(c.r)]) * bound(c),
            np.zeros((c.r, c.outputs)).T,
        ),
    ),
    hints=(
        "The product B A must be 0 at the start, but not both factors.",
        "rng.uniform(low, high, shape); the bound depends on the number of inputs.",
        "    bound = 1 / np.sqrt(____)",
    ),
    why="""
    With B = 0 the first step starts from the pretrained model. dB = s dyᵀ (x Aᵀ)
    needs A ≠ 0; dA = s (dy B)ᵀ x is 0 until B has moved. With A = 0 and B random it
    would work too (the embedding does that), with both zero nothing ever moves.
    """,
    follow_ups=(
        (
            "The paper says A is Gaussian. Which is it?",
            "loralib and PEFT draw uniformly for linear layers; the paper's text says "
            "Gaussian. State which you use: the variances differ.",
        ),
        (
            "What happens if A is stored as (in, r) and passed to the same "
            "initialiser?",
            "It takes r for the number of inputs: 6.9 times too large at 768 and r = "
            "16.",
        ),
    ),
    read="lora_np/lora/init.py; chapter 01",
)
