"""One step of AdamW."""

import numpy as np

from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes


def adamw_step(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
    """One step of AdamW, as torch and this toolkit take it.

    p, g, m, v: arrays of one shape: parameter, gradient, the running means of the
    gradient and of its square   t: the number of this step, from 1
    Returns (p, m, v) after the step: p - lr weight_decay p - lr m̂ / (√v̂ + eps) with
    m̂ = m / (1 - beta1^t), v̂ = v / (1 - beta2^t).
    """
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    mhat, vhat = m / (1 - beta1**t), v / (1 - beta2**t)
    p = p - lr * weight_decay * p - lr * mhat / (np.sqrt(vhat) + eps)
    return p, m, v


def problem(d):
    N, D = d.sizes(2)
    return {
        "p": d.array(N, D),
        "g": d.array(N, D),
        "m": d.array(N, D),
        "v": d.array(N, D, low=0),
        "t": d.choice([1, 2, 5]),
        "lr": d.choice([0.5, 0.25]),
        "beta1": d.choice([0.5, 0.75]),
        "beta2": d.choice([0.75, 0.9375]),
        "eps": d.choice([0.25, 0.125]),
        "weight_decay": d.choice([0.5, 0.25]),
    }


def step(
    c,
    coupled=0.0,
    decoupled=1.0,
    correct=True,
    inside=False,
    t=None,
    square=True,
    g=None,
):
    """One entry at a time; the options are what can go wrong."""
    t = c.t if t is None else t
    p, m, v = np.empty_like(c.p), np.empty_like(c.p), np.empty_like(c.p)
    for i in np.ndindex(c.p.shape):
        gi = (c.g[i] if g is None else g[i]) + coupled * c.weight_decay * c.p[i]
        m[i] = c.beta1 * c.m[i] + (1 - c.beta1) * gi
        v[i] = c.beta2 * c.v[i] + (1 - c.beta2) * (gi * gi if square else abs(gi))
        a, b = (1 - c.beta1**t, 1 - c.beta2**t) if correct else (1, 1)
        root = (v[i] / b + c.eps) ** 0.5 if inside else (v[i] / b) ** 0.5 + c.eps
        p[i] = c.p[i] - c.lr * (decoupled * c.weight_decay * c.p[i] + m[i] / a / root)
    return p, m, v


def old_means(c):
    mhat, vhat = c.m / (1 - c.beta1**c.t), c.v / (1 - c.beta2**c.t)
    return c.p - c.lr * (c.weight_decay * c.p + mhat / (np.sqrt(vhat) + c.eps))


def algebra(c):
    """The corrections folded into the rate, as fast implementations do."""
    m = c.m + (1 - c.beta1) * (c.g - c.m)
    v = c.v + (1 - c.beta2) * (np.square(c.g) - c.v)
    root = np.sqrt(v) / float(np.sqrt(1 - c.beta2**c.t)) + c.eps
    p = c.p * (1 - c.lr * c.weight_decay) - c.lr / (1 - c.beta1**c.t) * m / root
    return p, m, v


EXERCISE = Exercise(
    id="e32",
    title="a step of AdamW",
    kind="implement",
    minutes=10,
    difficulty=2,
    ask="""
    The optimizer of nearly every fine-tuning. Mind four places: the decay is not
    part of the gradient, both means are corrected for their start at 0, eps is
    added outside the root, and t counts from 1.
    """,
    functions=(adamw_step,),
    returns=("p", "m", "v"),
    want=lambda c: step(_space(c)),
    laws=(Law("{arrays} after the step is not what AdamW gives.", problem),),
    mistakes=mistakes(
        adamw_step,
        ("p", "m", "v"),
        mistake(
            "coupled",
            "Adam with weight decay in the gradient (L2): the decay is then "
            "divided by √v too",
            lambda c: step(c, coupled=1.0, decoupled=0.0),
        ),
        mistake(
            "not_corrected",
            "a step without the corrections 1 - beta^t",
            p=lambda c: step(c, correct=False)[0],
        ),
        mistake(
            "eps_inside",
            "a root over v̂ + eps: eps belongs outside",
            p=lambda c: step(c, inside=True)[0],
        ),
        mistake(
            "next_t",
            "corrections for step t + 1: t counts from 1 already",
            p=lambda c: step(c, t=c.t + 1)[0],
        ),
        mistake(
            "previous_t",
            "corrections for step t - 1: t counts from 1; at t = 1 they divide by 0",
            p=lambda c: step(c, t=c.t - 1)[0],
        ),
        mistake(
            "decay_without_lr",
            "a decay of weight_decay p, not multiplied by lr",
            p=lambda c: step(c, decoupled=1 / c.lr)[0],
        ),
        mistake(
            "no_decay",
            "a step without weight decay",
            p=lambda c: step(c, decoupled=0.0)[0],
        ),
        mistake(
            "not_squared",
            "v as the mean of |g|: its square is meant",
            lambda c: step(c, square=False),
        ),
        mistake(
            "ascent",
            "p plus the step: that climbs",
            p=lambda c: 2 * (1 - c.lr * c.weight_decay) * c.p - step(c)[0],
        ),
        mistake(
            "old_means",
            "a step from the old m and v",
            p=old_means,
        ),
        mistake(
            "never_updated",
            "a step from the m and v that came in, which were never updated",
            lambda c: (old_means(c), c.m.copy(), c.v.copy()),
        ),
        mistake(
            "betas_exchanged",
            "beta1 and beta2 exchanged",
            lambda c: adamw_step(
                c.p, c.g, c.m, c.v, c.t, c.lr, c.beta2, c.beta1, c.eps, c.weight_decay
            ),
        ),
        mistake(
            "means_not_returned",
            "m and v returned as they came in: the next step needs the new ones",
            m=lambda c: c.m.copy(),
            v=lambda c: c.v.copy(),
        ),
        mistake(
            "corrected_kept",
            "the corrected means returned as m and v: they would be "
            "corrected again at the next step",
            m=lambda c: step(c)[1] / (1 - c.beta1**c.t),
            v=lambda c: step(c)[2] / (1 - c.beta2**c.t),
        ),
    ),
    others=(
        step,
        algebra,
        lambda c: tuple(
            np.array(x)
            for x in zip(
                *(
                    adamw_step(
                        c.p[i],
                        c.g[i],
                        c.m[i],
                        c.v[i],
                        c.t,
                        c.lr,
                        c.beta1,
                        c.beta2,
                        c.eps,
                        c.weight_decay,
                    )
                    for i in range(len(c.p))
                ),
                strict=True,
            )
        ),
    ),
    hints=(
        "Two running means, two corrections, one division, and a decay beside it.",
        "m and v are updated before they are used. What is returned is the uncorrected "
        "m and v.",
        "    mhat, vhat = m / (1 - beta1**t), ____",
    ),
    why="""
    m and v start at 0, so after t steps they hold only 1 - beta^t of a mean: the
    division repairs that. In AdamW the decay acts on p directly; inside the
    gradient it would be divided by √v̂, so that parameters with large gradients
    would hardly decay.
    """,
    follow_ups=(
        (
            "How large is the first step, whatever the gradient?",
            "lr, nearly: m̂ = g and √v̂ = |g|. This is why the scale s of LoRA matters "
            "differently for Adam than for SGD.",
        ),
        (
            "What does LoRA save here?",
            "m and v exist for A and B alone: 8 bytes a trained number in float32.",
        ),
    ),
    read="lora_np/training/optim.py; chapter 05",
)


def _space(case):
    from types import SimpleNamespace

    return SimpleNamespace(**case)
