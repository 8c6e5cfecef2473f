"""Find the bug: an initialiser and a transposed factor."""

import numpy as np

from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes
from lora_np.exercises.worker import Made


def new_A(rng, inputs, r):
    """A stored as (inputs, r), for y = x W + s (x A) B.

    Uniform between -1/sqrt(inputs) and 1/sqrt(inputs), as PEFT and loralib start it.
    """
    bound = 1 / np.sqrt(inputs)
    return rng.uniform(-bound, bound, (inputs, r))


def new_A_as_found(rng, inputs, r):
    """A stored as (inputs, r), for y = x W + s (x A) B.

    Uniform between -1/sqrt(inputs) and 1/sqrt(inputs), as PEFT and loralib start it.
    """

    def kaiming_uniform(shape):
        """As torch.nn.init.kaiming_uniform_ with a = sqrt(5)."""
        fan_in = shape[1]
        bound = np.sqrt(3) * np.sqrt(2 / (1 + 5)) / np.sqrt(fan_in)
        return rng.uniform(-bound, bound, shape)

    return kaiming_uniform((inputs, r))


def problem(d):
    inputs, r = d.choice([768, 400, 900]), d.choice([16, 8])
    return {"rng": Made("rng", d.integers(0, 99)), "inputs": inputs, "r": r}


def judge(case, got):
    """Shape, and a spread between ±1/sqrt(inputs) that fills the range."""
    A, D, r = np.asarray(got[0]), case["inputs"], case["r"]
    if A.shape != (D, r):
        return f"A must have the shape (inputs, r) = {(D, r)}, got {A.shape}"
    ratio = float(np.abs(A).max() * np.sqrt(D))
    if not 0.98 <= ratio <= 1 + 1e-12:
        return (
            f"the largest entry of A is {ratio:.3g} times 1/sqrt(inputs), for "
            f"inputs = {D} and r = {r}"
        )
    spread = float(A.std() * np.sqrt(3 * D))
    return "" if 0.95 < spread < 1.05 else f"A is not uniform: spread {spread:.3g}"


EXERCISE = Exercise(
    id="e25",
    title="training that starts too wild",
    kind="find the bug",
    minutes=6,
    difficulty=1,
    needs=("e17",),
    ask="""
    "Rank 4 diverges with our usual learning rate, rank 64 is fine." This code
    stores A as (inputs, r) and starts it with a faithful copy of torch's
    initialiser. Find the fault and repair it.
    """,
    functions=(new_A,),
    found=(new_A_as_found,),
    returns=("A",),
    laws=(Law("A is too large or too small.", problem, judge=judge),),
    mistakes=mistakes(
        new_A,
        ("A",),
        mistake(
            "transposed_result",
            "A as (r, inputs): the layer expects (inputs, r)",
            lambda c: new_A(c.rng, c.inputs, c.r).T,
        ),
        mistake(
            "scaled_by_r",
            "the old numbers divided by r: right for one r only",
            lambda c: new_A(c.rng, c.inputs, c.r) * (c.inputs / c.r) ** 0.5 / c.r,
        ),
    ),
    others=(
        lambda c: c.rng.uniform(-1, 1, (c.r, c.inputs)).T / np.sqrt(c.inputs),
        lambda c: (2 * c.rng.random((c.inputs, c.r)) - 1) * c.inputs**-0.5,
    ),
    hints=(
        "The bound of A is a function of the number of inputs. Of what is it here?",
        "torch's weights are (out, in), so its initialiser reads the number of "
        "inputs from axis 1. Which number stands there?",
        "        fan_in = ____",
    ),
    why="""
    fan_in is r for an A stored as (in, r): the bound is 1/sqrt(r), which is
    sqrt(inputs / r) times too large: 6.9 at 768 and r = 16. Nothing raises, B = 0
    hides it at the start, and it looks like a matter of the learning rate. Seen in
    two public teaching codes.
    """,
    follow_ups=(
        (
            "How would a test find it?",
            "By comparing max|A| sqrt(inputs) with 1, for inputs far from r.",
        ),
        (
            "And if only the square case is tested?",
            "inputs = r: then both bounds are the same.",
        ),
    ),
    read="lora_np/lora/init.py (kaiming_uniform); chapter 01",
)
