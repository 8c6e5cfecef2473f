"""Undoing a broadcast."""

import numpy as np

from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes


def unbroadcast(grad, shape):
    """The gradient of an array of this shape that was broadcast to grad's shape.

    grad: of any shape   shape: a tuple that broadcasts to grad.shape
    Returns an array of that shape.
    """
    extra = grad.ndim - len(shape)
    grad = grad.sum(axis=tuple(range(extra)))
    ones = tuple(i for i, n in enumerate(shape) if n == 1)
    return grad.sum(axis=ones, keepdims=True)


def drawn(d, forms):
    a, b, c = d.sizes(3)
    form = d.choice(forms)
    sizes = {"a": a, "b": b, "c": c, "1": 1}
    return {"grad": d.array(a, b, c), "shape": tuple(sizes[k] for k in form)}


def other_dimensions(d):
    """grad with one, two or four axes."""
    a, b, c = d.sizes(3)
    sizes, form = d.choice(
        [
            ((a, b), (b,)),
            ((a, b), (a, 1)),
            ((a,), ()),
            ((b, c), (1, 1)),
            ((a, b, c, a), (b, 1, a)),
            ((a, b, c, b), (1, b, 1, 1)),
        ]
    )
    return {"grad": d.array(*sizes), "shape": form}


def forward_slope(case):
    """The derivative of sum(grad * broadcast(x)), moving each entry of x by 1."""
    grad, shape = case["grad"], case["shape"]
    found = np.zeros(shape, grad.dtype)
    for at in np.ndindex(shape):
        moved = np.zeros(shape, grad.dtype)
        moved[at] = 1
        found[at] = (grad * np.broadcast_to(moved, grad.shape)).sum()
    return found


def by_einsum(c):
    letters = "abcdefgh"[: c.grad.ndim]
    own = letters[c.grad.ndim - len(c.shape) :]
    kept = "".join(k for k, n in zip(own, c.shape, strict=True) if n > 1)
    return np.einsum(f"{letters}->{kept}", c.grad).reshape(c.shape)


def one_axis_at_a_time(c):
    grad = c.grad
    while grad.ndim > len(c.shape):
        grad = grad.sum(axis=0)
    for i, n in enumerate(c.shape):
        if n == 1:
            grad = grad.sum(axis=i, keepdims=True)
    return grad


def with_ones(c):
    full = (1,) * (c.grad.ndim - len(c.shape)) + c.shape
    axes = tuple(i for i, n in enumerate(full) if n == 1)
    return c.grad.sum(axis=axes).reshape(c.shape)


def leading_only(c):
    return c.grad.sum(axis=tuple(range(c.grad.ndim - len(c.shape))))


def averaged(c):
    return unbroadcast(c.grad, c.shape) * np.prod(c.shape, dtype=int) / c.grad.size


def first_slice(c):
    full = (1,) * (c.grad.ndim - len(c.shape)) + c.shape
    cut = tuple(slice(0, 1) if n == 1 else slice(None) for n in full)
    return c.grad[cut].reshape(c.shape)


EXERCISE = Exercise(
    id="e06",
    title="undoing a broadcast",
    kind="implement",
    minutes=10,
    difficulty=2,
    needs=("e05",),
    ask="""
    NumPy stretches (3,) + (2, 3) and (2, 1) * (2, 3). An autograd gets the gradient in
    the stretched shape and owes it in the original one. Write the function that every
    tape needs: an entry that was used several times gets the sum.
    """,
    functions=(unbroadcast,),
    returns=("gradient",),
    want=forward_slope,
    laws=(
        Law(
            "axes that were added in front must be summed away.",
            lambda d: drawn(d, ["bc", "c", ""]),
            True,
        ),
        Law(
            "axes of size 1 that were stretched must be summed, and kept.",
            lambda d: drawn(d, ["a1c", "1bc", "ab1"]),
            True,
        ),
        Law(
            "both kinds can occur at once, and none at all.",
            lambda d: drawn(d, ["1c", "b1", "abc"]),
            True,
        ),
        Law(
            "grad may have any number of axes, not three only.", other_dimensions, True
        ),
    ),
    mistakes=mistakes(
        unbroadcast,
        ("gradient",),
        mistake(
            "axes_of_one_left",
            "a sum over the axes added in front only; stretched "
            "axes of size 1 are left stretched",
            leading_only,
        ),
        mistake(
            "axis_lost",
            "a sum that drops axes of size 1: (2, 1) became (2,)",
            lambda c: np.squeeze(unbroadcast(c.grad, c.shape)),
        ),
        mistake(
            "mean",
            "means where sums belong: an entry used n times gets n gradients",
            averaged,
        ),
        mistake(
            "first_use",
            "the gradient of one use of each entry, not of all",
            first_slice,
        ),
        mistake(
            "sum_of_all",
            "the sum of everything, for every entry",
            lambda c: np.full(c.shape, c.grad.sum()),
        ),
        mistake(
            "unchanged", "grad itself: nothing was summed", lambda c: c.grad.copy()
        ),
        mistake(
            "trailing",
            "sums over the last axes; broadcasting adds axes in front",
            lambda c: c.grad.sum(axis=tuple(range(len(c.shape), c.grad.ndim))),
        ),
        mistake(
            "maximum",
            "the largest of the gradients of an entry's uses",
            lambda c: c.grad.max(
                axis=tuple(
                    i
                    for i, n in enumerate((1,) * (c.grad.ndim - len(c.shape)) + c.shape)
                    if n == 1
                )
            ).reshape(c.shape),
        ),
    ),
    others=(by_einsum, one_axis_at_a_time, with_ones),
    hints=(
        "Broadcasting copies. The gradient of a copied number is the sum over its "
        "copies.",
        "First sum away the axes that shape does not have (in front), then those where "
        "shape has a 1, with keepdims=True.",
        "    return grad.sum(axis=____, keepdims=True)",
    ),
    why="""
    y = broadcast(x) reads each entry of x in several places, so its gradient is the sum
    over those places. Two rules of NumPy make the places: missing axes are added in
    front, and axes of size 1 are stretched.
    """,
    follow_ups=(
        (
            "What does a tape do for x * 2 with x of shape ()?",
            "Nothing special: a sum over no axis, or over all for x of shape () "
            "times (2, 3).",
        ),
        ("Where does LoRA need it?", "In the bias: b (M,) is broadcast over the rows."),
    ),
    read="lora_np/tape.py (unbroadcast); chapter 03",
)
