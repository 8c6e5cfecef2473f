"""LoRA on a convolution."""

import numpy as np

from lora_np import lora as L
from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes


def conv_delta(A, B, s):
    """The update of a convolution's weight, for LoRA of true rank r.

    The adapter is a convolution with A, then one of one place with B.
    A: (r, C, h, w)   B: (O, r, 1, 1)   s: the scale   Returns (O, C, h, w).
    """
    return s * np.einsum("or,rchw->ochw", B[:, :, 0, 0], A)


def problem(d):
    C, O, r, h, w = d.sizes(5, high=2)
    return {"A": d.array(r, C, h, w), "B": d.array(O, r, 1, 1), "s": d.scale()}


def made(c):
    return c.s * np.tensordot(c.B[:, :, 0, 0], c.A, 1)


def by_matrices(c):
    O, r = c.B.shape[:2]
    return (c.s * c.B.reshape(O, r) @ c.A.reshape(r, -1)).reshape(O, *c.A.shape[1:])


def loops(c):
    out = np.zeros((len(c.B), *c.A.shape[1:]), c.A.dtype)
    for o, j in np.ndindex(*c.B.shape[:2]):
        out[o] += c.s * c.B[o, j, 0, 0] * c.A[j]
    return out


def axes_exchanged(c):
    """Rows of B A taken for (h, w, C), as if channels came last."""
    O, (_, C, h, w) = len(c.B), c.A.shape
    flat = c.s * c.B[:, :, 0, 0] @ c.A.reshape(len(c.A), -1)
    return flat.reshape(O, h, w, C).transpose(0, 3, 1, 2)


def centre(c):
    out = np.zeros_like(made(c))
    h, w = (n // 2 for n in c.A.shape[2:])
    out[:, :, h, w] = made(c)[:, :, h, w]
    return out


EXERCISE = Exercise(
    id="e29",
    title="LoRA on a convolution",
    kind="implement",
    minutes=8,
    difficulty=2,
    needs=("e22",),
    ask="""
    For a convolution the adapter is two convolutions in a row: A with r output
    channels and the base's kernel size, then B with kernel 1. Return the one kernel
    that does the same, so that it can be merged.
    """,
    functions=(conv_delta,),
    returns=("delta",),
    want=lambda c: L.delta_weight(c["A"], c["B"], c["s"]),
    laws=(
        Law("{arrays} does not act like the two convolutions in a row.", problem, True),
    ),
    mistakes=mistakes(
        conv_delta,
        ("delta",),
        mistake("no_scale", "the update without s", lambda c: made(c) / c.s),
        mistake(
            "kernel_transposed",
            "height and width of the kernel exchanged",
            lambda c: made(c).transpose(0, 1, 3, 2),
        ),
        mistake(
            "kernel_flipped",
            "a kernel turned by 180 degrees: that is the mathematician's convolution",
            lambda c: made(c)[:, :, ::-1, ::-1].copy(),
        ),
        mistake(
            "channels_exchanged",
            "(C, O, h, w): inputs and outputs exchanged",
            lambda c: made(c).transpose(1, 0, 2, 3),
        ),
        mistake(
            "channels_last",
            "numbers read as (O, h, w, C): the reshape mixes kernel and channels",
            axes_exchanged,
        ),
        mistake(
            "kernel_summed",
            "one number a pair of channels: the kernel was summed",
            lambda c: made(c).sum((2, 3), keepdims=True) + 0 * made(c),
        ),
        mistake("centre_only", "the middle of the kernel alone", centre),
        mistake("scale_squared", "the update with s²", lambda c: c.s * made(c)),
        mistake(
            "first_rank",
            "the first of the r directions alone",
            lambda c: c.s * np.einsum("o,chw->ochw", c.B[:, 0, 0, 0], c.A[0]),
        ),
    ),
    others=(by_matrices, loops, made),
    hints=(
        "A convolution with a kernel of one place mixes channels at each place: a "
        "matrix.",
        "Sum over the r channels between: ΔW[o, c, i, j] = s Σ_r B[o, r] A[r, c, i, "
        "j].",
        "    return s * np.einsum(____, B[:, :, 0, 0], A)",
    ),
    why="""
    Seen as a matrix (O, C h w), ΔW = s B A has rank r at most. Flattening A to
    (r, C h w) keeps the order of its axes, so the product can be reshaped to
    (O, C, h, w) and to nothing else.
    """,
    follow_ups=(
        (
            "Which stride, padding and dilation has A's convolution?",
            "The base's, all three. B's has stride 1 and no padding.",
        ),
        (
            "How does loralib do it, and of which rank is that?",
            "(B A) of an (O k, C k) matrix, reshaped: not of rank r as a convolution.",
        ),
    ),
    read="lora_np/lora/conv.py, merge.py",
)
