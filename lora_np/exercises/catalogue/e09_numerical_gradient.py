"""The gradient check itself."""

import numpy as np

from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes
from lora_np.exercises.worker import Made


def numerical_gradient(f, x, h):
    """Central differences (f(x + h e) - f(x - h e)) / 2h, entry by entry.

    f: a function of an array, returning a number   x: (N, D)   h: the step
    Returns an array of x's shape. x is the same afterwards.
    """
    x = x.copy()
    found = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        value = x[at]
        x[at] = value + h
        above = f(x)
        x[at] = value - h
        below = f(x)
        x[at] = value
        found[at] = (above - below) / (2 * h)
    return found


def problem(d):
    N, D = d.sizes(2)
    pairs = d.array(N * D - 1) if N * D > 1 else np.zeros(0)
    coefficients = [d.array(N, D), d.array(N, D), d.array(N, D), pairs]
    return {
        "f": Made("cubic", coefficients),
        "x": d.array(N, D),
        "h": d.choice([0.5, 0.25, 1.0]),
    }


def quotients(case):
    """(f(x + h e) - f(x - h e)) / 2h from the coefficients of f, term by term."""
    (a, b, c, pairs), x, h = case["f"].values, case["x"], case["h"]
    flat = x.ravel()
    near = np.zeros(x.size)
    near[:-1] += pairs * flat[1:]
    near[1:] += pairs * flat[:-1]
    return a * (3 * x**2 + h * h) + 2 * b * x + c + near.reshape(x.shape)


def entries(c, quotient):
    """A gradient with another quotient(f, x, step array, h)."""
    found = np.zeros_like(c.x)
    for at in np.ndindex(c.x.shape):
        step = np.zeros_like(c.x)
        step[at] = c.h
        found[at] = quotient(c.f, c.x, step, c.h)
    return found


def central(f, x, step, h):
    return (f(x + step) - f(x - step)) / (2 * h)


def flat_loop(c):
    flat = [
        central(c.f, c.x, c.h * e.reshape(c.x.shape), c.h)
        for e in np.eye(c.x.size, dtype=c.x.dtype)
    ]
    return np.array(flat, c.x.dtype).reshape(c.x.shape)


def not_restored(c):
    x, found = c.x.copy(), np.zeros_like(c.x)
    for at in np.ndindex(x.shape):
        x[at] += c.h
        above = c.f(x)
        x[at] -= 2 * c.h
        found[at] = (above - c.f(x)) / (2 * c.h)
    return found


def all_at_once(c):
    return np.full_like(c.x, (c.f(c.x + c.h) - c.f(c.x - c.h)) / (2 * c.h))


EXERCISE = Exercise(
    id="e09",
    title="a gradient check",
    kind="implement",
    minutes=8,
    difficulty=1,
    needs=("e05",),
    ask="""
    Nobody should believe a gradient that was not checked. Write the check: move each
    entry of x up and down by h, everything else as it was, and return
    (f(x + h e) - f(x - h e)) / 2h for each.
    """,
    functions=(numerical_gradient,),
    returns=("gradient",),
    want=quotients,
    laws=(
        Law("{arrays} is not (f(x + h e) - f(x - h e)) / 2h for each entry.", problem),
    ),
    mistakes=mistakes(
        numerical_gradient,
        ("gradient",),
        mistake(
            "forward_difference",
            "(f(x + h e) - f(x)) / h: its error falls with h, the central one's with "
            "h²",
            lambda c: entries(c, lambda f, x, e, h: (f(x + e) - f(x)) / h),
        ),
        mistake(
            "backward_difference",
            "(f(x) - f(x - h e)) / h: a difference to one side",
            lambda c: entries(c, lambda f, x, e, h: (f(x) - f(x - e)) / h),
        ),
        mistake(
            "divided_by_h",
            "a division by h: the two points are 2h apart",
            lambda c: entries(c, lambda f, x, e, h: 2 * central(f, x, e, h)),
        ),
        mistake(
            "not_divided",
            "the difference without the division by 2h",
            lambda c: entries(c, lambda f, x, e, h: f(x + e) - f(x - e)),
        ),
        mistake(
            "not_restored",
            "differences from a moving point: an entry was not put back before the "
            "next",
            not_restored,
        ),
        mistake(
            "all_at_once",
            "all entries moved together: one number, the sum of the gradient",
            all_at_once,
        ),
        mistake(
            "sign",
            "below minus above: the sign is turned",
            lambda c: entries(c, lambda f, x, e, h: -central(f, x, e, h)),
        ),
        mistake(
            "half_step",
            "points h/2 away but a division by 2h",
            lambda c: entries(c, lambda f, x, e, h: central(f, x, e / 2, h)),
        ),
    ),
    others=(
        lambda c: entries(c, central),
        flat_loop,
        lambda c: entries(
            c, lambda f, x, e, h: f(x + e) / (2 * h) - f(x - e) / (2 * h)
        ),
    ),
    hints=(
        "A derivative is a slope: two values of f and their distance.",
        "Change one entry, call f, change it to the other side, call f, put it back.",
        "    found[at] = (above - below) / ____",
    ),
    why="""
    The error of the central difference is f''' h²/6, that of a one-sided one f'' h/2.
    Rounding adds about 1e-16 |f| / h, so h near 1e-5 is best in float64, and about ten
    digits can be had. In float32 hardly three: check in float64, train in float32.
    """,
    follow_ups=(
        (
            "When is h = 1 the best step?",
            "Where f is linear in the entry, as the LoRA layer is in each entry of "
            "A, B and x: no truncation error, and with whole numbers no rounding.",
        ),
        (
            "A network has ReLUs. What can go wrong?",
            "A step across a kink: the quotient is then no derivative of either side.",
        ),
    ),
    read="lora_np/quotients.py; chapter 02",
)
