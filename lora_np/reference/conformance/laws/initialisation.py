"""How an adapter starts."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from lora_np.reference.conformance.case import Case
from lora_np.reference.conformance.check import UNIT, Check, close, law, whole
from lora_np.reference.conformance.laws.common import larger, outputs

GROUP = "initialisation"


@law(
    GROUP,
    "A fresh adapter leaves the output as it was.",
    "Hu et al. 2021, section 4.1: ΔW = BA is zero at the beginning of training. For "
    "the methods that take W apart, base and update add up to W.",
)
def starts_as_the_base(s: Any, c: Case) -> Iterator[Check]:
    """Every initialisation that claims it. Those that compute in float32 (an SVD of W)
    are held to 64 roundings of the largest output."""
    for init in s.initialisations(c):
        layer = s.fresh(c, init, 0)
        for got, want in zip(outputs(layer.forward(*c.inputs)), c.base(), strict=True):
            size = np.abs(want).max() + np.abs(c.W).max() * terms_of(c)
            svd = init not in (True, "gaussian")  # those are taken in float32
            unit = max(UNIT["float32"] if svd else 0.0, UNIT[c.dtype])
            limit = 0.0 if not svd and whole(c) else 64 * unit * size
            yield Check(f"init_lora_weights={init!r}: y", got, want, limit)


def terms_of(c: Case) -> float:
    """The largest sum of inputs that one output can meet."""
    x = c.given.get("x", c.given.get("h"))
    return 1.0 if x is None else float(np.abs(x).sum())


@law(
    GROUP,
    "A fresh adapter can learn: some factor has a gradient that is not zero.",
    "With A = 0 and B = 0 both gradients are zero for ever (dA has a factor B, dB a "
    "factor A).",
)
def not_dead(s: Any, c: Case) -> Iterator[Check]:
    """One step's gradients, unless input and cotangent hide them."""
    for init in s.initialisations(c):
        layer = s.fresh(c, init, 0)
        grads = layer.gradients(c.cast_all(c.dy), *c.inputs)
        alive = any(np.any(grads.get(n)) for n in c.factors if grads.get(n) is not None)
        found = "a gradient" if alive or hidden(c) else "all gradients are 0"
        yield Check(f"init_lora_weights={init!r}", found, "a gradient")


def hidden(c: Case) -> bool:
    """Whether input and cotangent alone make every gradient zero: with random factors
    there is none either."""
    rng = np.random.default_rng(0)
    random = {n: rng.normal(size=a.shape) for n, a in c.factors.items()}
    grads = c.with_factors(**random).want(dy=c.dy)
    return not any(np.any(grads["d" + n]) for n in c.factors)


@law(
    GROUP,
    "A is drawn from ±1/√in, B is 0; for an embedding A is 0, B normal.",
    "What init_lora_weights=True means in loralib and PEFT: kaiming_uniform_(a=√5), "
    "bound 1/√fan_in. Stored (in, r) the initialiser reads fan_in = r, and A is "
    "√(in/r) times too large.",
    layers=("linear", "embedding"),
    options=("plain", "rslora", "dora", "fan_in_fan_out", "dropout"),
    examples=1,
)
def default_bounds(s: Any, c: Case) -> Iterator[Check]:
    """On 64 inputs, 48 outputs and rank 8; 512 draws leave little to luck."""
    if True not in s.initialisations(c):
        return
    big = larger(c)
    start = s.fresh(big, True, 0).factors()
    zero, drawn = ("A", "B") if c.layer == "embedding" else ("B", "A")
    yield Check(zero, start[zero], np.zeros_like(big.factors[zero]))
    top = float(np.abs(start[drawn]).max())
    if c.layer == "embedding":
        spread = float(np.std(start[drawn]))
        yield Check("standard deviation of B", spread, 1.0, 0.2)  # 384 draws: 5 sigma
    else:
        yield Check("max |A| · √in", top * 8.0, 1.0 - 0.01, 0.02)


@law(
    GROUP,
    "Base and update of a fresh adapter add up to the weight.",
    "The methods that split W (PiSSA and its kin) must put back what they take.",
)
def split_adds_up(s: Any, c: Case) -> Iterator[Check]:
    """weight() + delta() against W."""
    for init in s.initialisations(c):
        layer = s.fresh(c, init, 0)
        total = layer.weight() + layer.delta()
        unit = max(UNIT["float32"], UNIT[c.dtype])
        limit = 64 * unit * (np.abs(c.W).max() + np.abs(layer.delta()).max())
        yield Check(f"init_lora_weights={init!r}: weight", total, c.W, limit)


@law(
    GROUP,
    "Two fresh adapters with the same seed are the same, with others not.",
    "A hidden seed makes every experiment repeat one draw; none makes it unrepeatable.",
    layers=("linear",),
    options=("plain",),
    examples=1,
)
def seeded(s: Any, c: Case) -> Iterator[Check]:
    """On the first initialisation that is offered."""
    init = s.initialisations(c)[0]
    first, again, other = (
        s.fresh(larger(c), init, n).factors()["A"] for n in (1, 1, 2)
    )
    yield close("A with the same seed", again, first, c)
    differs = "differs" if np.any(other != first) else "the same"
    yield Check("A with another seed", differs, "differs")
