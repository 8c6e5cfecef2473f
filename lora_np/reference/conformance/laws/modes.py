"""Training and evaluation mode, dropout, and batches of mixed adapters."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from lora_np.reference.conformance.case import Case
from lora_np.reference.conformance.check import ORDER, UNIT, Check, close, law
from lora_np.reference.conformance.laws.common import named, outputs, same_outputs

GROUP = "modes"
DROPOUT = {"layers": ("linear",), "options": ("dropout",)}
MASKS = 400


@law(
    GROUP,
    "The mean over dropout masks is evaluation mode.",
    "Srivastava et al. 2014, inverted dropout: kept entries grow by 1/(1-p), so that "
    "merging needs no rescaling.",
    **DROPOUT,
    examples=2,
)
def mean_over_masks(s: Any, c: Case) -> Iterator[Check]:
    """400 seeds: mean and variance of each entry within 8 standard errors. With
    a_d = x_d ΔW_md the masks' variance is p/(1-p) Σ a_d², which is also what tells
    dropout on x from dropout after A, and one rate from another."""
    layer = s.layer(c)
    seen = np.stack([layer.forward_training(n, *c.inputs) for n in range(MASKS)])
    variance, fourth = moments(c)
    want, tiny = c.want()["y"], 1e-12 * np.abs(c.want()["y"]).max()
    yield Check("mean of y", seen.mean(0), want, 8 * np.sqrt(variance / MASKS) + tiny)
    doubt = 8 * np.sqrt((fourth - variance**2) / MASKS)
    yield Check("variance of y", seen.var(0), variance, doubt + tiny)


def moments(c: Case) -> tuple[np.ndarray, np.ndarray]:
    """Variance and fourth central moment of each output over independent masks.

    One kept entry, 1/(1-p) with probability 1-p, has variance v = p/(1-p) and fourth
    central moment m = (1-p) v⁴ + p; a sum with factors a_d has v Σ a_d² and
    (m - 3 v²) Σ a_d⁴ + 3 v² (Σ a_d²)².
    """
    a = c.given["x"][:, None, :] * c.want()["delta"][None]
    squares, fourths = (a**2).sum(-1), (a**4).sum(-1)
    v = c.p / (1 - c.p)
    m = (1 - c.p) * v**4 + c.p
    return v * squares, (m - 3 * v**2) * fourths + 3 * v**2 * squares**2


@law(
    GROUP,
    "Dropout is on the low-rank path only.",
    "loralib, PEFT: the frozen path sees x as it is. With B = 0 training mode is the "
    "base.",
    **DROPOUT,
)
def base_path_kept(s: Any, c: Case) -> Iterator[Check]:
    """B = 0."""
    silent = c.with_factors(B=0 * c.factors["B"])
    y = s.layer(silent).forward_training(3, *c.inputs)
    yield from same_outputs(y, c.base(), c)


@law(
    GROUP,
    "In training mode the gradient is that of the masked forward.",
    "Catches x before dropout in dA, and a mask that does not come back in dx.",
    **DROPOUT,
    examples=3,
)
def masked_gradient(s: Any, c: Case) -> Iterator[Check]:
    """For one seed: the forward's own differences with step 1, in A, B and x."""
    layer = s.layer(c)
    grads = named(layer.gradients_training(5, c.dy, *c.inputs))
    for name, at in {**c.factors, "x": c.given["x"]}.items():
        if name not in grads:
            continue
        want = np.zeros_like(at)
        for place in np.ndindex(at.shape):
            ends = []
            for sign in (1.0, -1.0):
                moved = at.copy()
                moved[place] += sign
                there = c.with_factors(**{name: moved}) if name in c.factors else c
                x = (moved,) if name == "x" else c.inputs
                y = np.asarray(s.layer(there).forward_training(5, *x))
                ends.append((y * c.dy).sum())
            want[place] = (ends[0] - ends[1]) / 2
        yield close("d" + name, grads[name], want, c, scale=1.0)


@law(
    GROUP,
    "Evaluation mode drops nothing and is the same every time.",
    "A layer left in training mode, or dropout that ignores the mode.",
    layers=("linear", "embedding", "conv1d", "conv2d", "qkv"),
)
def evaluation(s: Any, c: Case) -> Iterator[Check]:
    """Twice, against the oracle."""
    layer = s.layer(c)
    layer.forward(*c.inputs)
    yield from same_outputs(layer.forward(*c.inputs), c.outputs(c.want()), c)


@law(
    GROUP,
    "In a mixed batch each row is as it would be alone.",
    "Serving many adapters at once: rows must not meet each other's adapter.",
    layers=("linear", "embedding", "tasks"),
)
def mixed_batch(s: Any, c: Case) -> Iterator[Check]:
    """Row n with adapter n mod 3 - 1: the base, the first, the second."""
    if len(c.adapters) < 2:
        return
    rows = len(c.inputs[0])
    which = np.arange(rows) % 3 - 1
    answers = [c.base()[0], c.outputs(c.want(0))[0], c.outputs(c.want(1))[0]]
    want = np.stack([answers[which[n] + 1][n] for n in range(rows)])
    got = s.layer(c, 2).mixed(which, *c.inputs)
    size = max(float(np.abs(a).max()) for a in answers)
    unit = ORDER if c.dtype == "float64" else 64 * UNIT[c.dtype]
    yield Check("y", outputs(got)[0], want, unit * size)
