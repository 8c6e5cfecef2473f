"""The scale of rsLoRA."""

import numpy as np

from lora_np import lora as L
from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes


def weight_update(A, B, lora_alpha, use_rslora):
    """s B A with s = lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora.

    A: (r, D)   B: (M, r)   lora_alpha: a number   use_rslora: True or False
    Returns an array (M, D).
    """
    r = len(A)
    s = lora_alpha / (float(np.sqrt(r)) if use_rslora else r)
    return s * (B @ A)


def problem(d):
    D, M, r = d.sizes(3)
    if d.rng is None:
        r = d.choice([4, 1, 2])  # exact, where no root of 2 is taken
    return {
        "A": d.array(r, D),
        "B": d.array(M, r),
        "lora_alpha": 3 * d.scale(),
        "use_rslora": d.choice([True, False]),
    }


def by(c, s):
    return s * (c.B @ c.A)


def rank(c):
    return float(len(c.A))


def s(c):
    return c.lora_alpha / (rank(c) ** 0.5 if c.use_rslora else rank(c))


EXERCISE = Exercise(
    id="e23",
    title="the scale of rsLoRA",
    kind="implement",
    minutes=4,
    difficulty=1,
    needs=("e16",),
    ask="""
    The paper scales the update by lora_alpha / r. Rank-stabilised LoRA (use_rslora)
    takes lora_alpha / sqrt(r), so that a large rank is not scaled away. Return the
    update of the weight under either.
    """,
    functions=(weight_update,),
    returns=("delta",),
    want=lambda c: (
        L.scaling(c["lora_alpha"], len(c["A"]), c["use_rslora"]) * (c["B"] @ c["A"])
    ),
    laws=(Law("{arrays} is not s B A.", problem, True),),
    mistakes=mistakes(
        weight_update,
        ("delta",),
        mistake(
            "option_ignored",
            "lora_alpha / r always: use_rslora is not used",
            lambda c: by(c, c.lora_alpha / rank(c)),
        ),
        mistake(
            "always_rslora",
            "lora_alpha / sqrt(r) always",
            lambda c: by(c, c.lora_alpha / rank(c) ** 0.5),
        ),
        mistake(
            "option_inverted",
            "the two scales exchanged",
            lambda c: by(
                c, c.lora_alpha / (rank(c) if c.use_rslora else rank(c) ** 0.5)
            ),
        ),
        mistake(
            "root_of_alpha",
            "sqrt(lora_alpha / r): the root belongs to r alone",
            lambda c: by(
                c,
                (abs(c.lora_alpha) / rank(c)) ** 0.5
                if c.use_rslora
                else c.lora_alpha / rank(c),
            ),
        ),
        mistake(
            "times_root",
            "lora_alpha sqrt(r) with use_rslora",
            lambda c: by(
                c,
                c.lora_alpha * rank(c) ** 0.5
                if c.use_rslora
                else c.lora_alpha / rank(c),
            ),
        ),
        mistake(
            "r_twice",
            "lora_alpha / r² with use_rslora",
            lambda c: by(c, c.lora_alpha / rank(c) ** (2 if c.use_rslora else 1)),
        ),
        mistake(
            "root_of_inputs",
            "lora_alpha / sqrt(inputs): the root of r is meant",
            lambda c: by(
                c, c.lora_alpha / (c.A.shape[1] ** 0.5 if c.use_rslora else rank(c))
            ),
        ),
        mistake("no_scale", "B A without a scale", lambda c: by(c, 1.0)),
    ),
    others=(
        lambda c: (s(c) * c.B) @ c.A,
        lambda c: np.einsum("mr,rd->md", c.B, s(c) * c.A),
        lambda c: sum(s(c) * np.outer(b, a) for b, a in zip(c.B.T, c.A, strict=True)),
    ),
    hints=(
        "Which number is r? It is an axis of both factors.",
        "lora_alpha / r, or lora_alpha / sqrt(r); a Python float keeps float32 as it "
        "is.",
        "    s = lora_alpha / (____ if use_rslora else r)",
    ),
    why="""
    B A is a sum of r products. If they are independent its entries grow as sqrt(r), if
    they pull together as r: the two scales undo the one or the other. Which case holds
    depends on the optimizer; chapter 05 measures it.
    """,
    follow_ups=(
        (
            "r is doubled, lora_alpha kept. What happens to the update at first?",
            "With lora_alpha / r each direction counts half; with rsLoRA 0.71.",
        ),
        (
            "Why is lora_alpha not simply part of the learning rate?",
            "With SGD it nearly is; with Adam a scale s changes the first update by "
            "s, not by s². It is there so that r can change alone.",
        ),
    ),
    read="lora_np/lora/scale.py; chapter 05; Kalajdzievski 2023 (2312.03732)",
)
