"""LoRA on convolutions, of true rank r in every group.

B batch · C input, O output channels · h w kernel · R rank, divisible by the groups g
A (R, C/g, h, w): a convolution with the base's stride, padding, dilation and groups.
B (O, R/g, 1, 1): one on top with a kernel of one place and the same groups.

Unfolded, each group is `lora_linear` on columns, so ΔW = B A in each group and its
rank is at most R/g. (PEFT keeps A ungrouped and drops the dilation; loralib's
reshaped product is not of rank r.)
"""

from collections.abc import Container

from lora_np.backend import Array, add_to
from lora_np.functional.contract import (
    ALL,
    differentiable,
    expect_float,
    expect_shape,
)
from lora_np.functional.conv import conv2d, conv2d_backward
from lora_np.functional.dropout import dropout, dropout_backward
from lora_np.functional.unfold import Pair


def _check(W: Array, A: Array, B: Array, groups: int) -> None:
    expect_float(W=W, A=A, B=B)
    expect_shape("W", W, (None,) * 4)
    expect_shape("A", A, (None, *W.shape[1:]), "A is (r, in / groups, kernel)")
    R = A.shape[0]
    if R == 0 or groups < 1 or R % groups:
        raise ValueError(
            f"r must be a positive multiple of the {groups} groups, got {R}"
        )
    slip = "B is (out, r / groups, 1, 1)"
    expect_shape("B", B, (W.shape[0], R // groups, 1, 1), slip)


@differentiable("x", "b", "A", "B")
def lora_conv2d(
    x_BCHW: Array,
    W_OChw: Array,
    b_O: Array | None,
    A_RChw: Array,
    B_OR11: Array,
    s: float,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    mask: Array | None = None,
    p: float = 0.0,
    *,
    needs: Container[str] = ALL,
) -> tuple[Array, tuple]:
    """y = W * x + b + s B * (A * x_d)        * convolves, x_d as in lora_linear

    Raises ValueError when r is no multiple of the groups, or a shape does not fit.

    >>> import numpy as np
    >>> x, W = np.ones((1, 1, 2, 2)), np.zeros((1, 1, 2, 2))
    >>> lora_conv2d(x, W, None, W + 1, np.ones((1, 1, 1, 1)), s=0.5)[0]
    array([[[[2.]]]])
    """
    _check(W_OChw, A_RChw, B_OR11, groups)
    options = (stride, padding, dilation, groups)
    xd, dropped = x_BCHW, None
    if mask is not None:
        xd, dropped = dropout(x_BCHW, mask, p, needs=needs)
    base_needs = [n for n in ("x", "b") if n in needs]
    y, base = conv2d(x_BCHW, W_OChw, b_O, *options, needs=base_needs)
    low = [w for w, n in (("x", "x"), ("W", "A")) if n in needs]
    u, down = conv2d(xd, A_RChw, None, *options, needs=low)
    top = [w for w, n in (("x", "A"), ("x", "x"), ("W", "B")) if n in needs]
    s = float(s)  # a NumPy float64 scalar would promote float32
    z, up = conv2d(s * u, B_OR11, None, groups=groups, needs=top)
    return add_to(y, z), (base, down, up, s, dropped)


def lora_conv2d_backward(dy_BOHW: Array, cache: tuple) -> tuple:
    """dB, du from the one-place convolution; dA, dx_d from A's; dx adds the base's.

    Unfolded (cols = U x) and per group: y = W cols + s B (A cols), so as in lora_linear
    dB = dy (s A cols)ᵀ, dA = s (Bᵀ dy) colsᵀ, dx = Uᵀ(Wᵀ dy) + s Uᵀ(Aᵀ Bᵀ dy).
    Returns (dx, db, dA, dB).

    >>> import numpy as np
    >>> x, W = np.ones((1, 1, 2, 2)), np.zeros((1, 1, 2, 2))
    >>> _, c = lora_conv2d(x, W, None, W + 1, np.ones((1, 1, 1, 1)), s=0.5)
    >>> lora_conv2d_backward(np.ones((1, 1, 1, 1)), c)[3]
    array([[[[2.]]]])
    """
    base, down, up, s, dropped = cache
    dx, _, db = conv2d_backward(dy_BOHW, base)
    dsu, dB, _ = conv2d_backward(dy_BOHW, up)
    dA = None
    if dsu is not None:
        low, dA, _ = conv2d_backward(s * dsu, down)
        if low is not None:
            if dropped is not None:
                low = dropout_backward(low, dropped)[0]
            dx = add_to(dx, low)
    return dx, db, dA, dB


@differentiable("x", "b", "A", "B")
def lora_conv1d(
    x_BCT: Array,
    W_OCk: Array,
    b_O: Array | None,
    A_RCk: Array,
    B_OR1: Array,
    s: float,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    mask: Array | None = None,
    p: float = 0.0,
    *,
    needs: Container[str] = ALL,
) -> tuple[Array, tuple]:
    """`lora_conv2d` over an image of height 1; A (R, C/g, k), B (O, R/g, 1).

    >>> import numpy as np
    >>> x, W = np.ones((1, 1, 2)), np.zeros((1, 1, 2))
    >>> lora_conv1d(x, W, None, W + 1, np.ones((1, 1, 1)), s=0.5)[0]
    array([[[1.]]])
    """
    for name, a in (("x", x_BCT), ("W", W_OCk), ("A", A_RCk), ("B", B_OR1)):
        expect_shape(name, a, (None, None, None))
    y, cache = lora_conv2d(
        x_BCT[:, :, None],
        W_OCk[:, :, None],
        b_O,
        A_RCk[:, :, None],
        B_OR1[:, :, None],
        s,
        (1, stride),
        (0, padding),
        (1, dilation),
        groups,
        None if mask is None else mask[:, :, None],
        p,
        needs=needs,
    )
    return y[:, :, 0], cache


def lora_conv1d_backward(dy_BOT: Array, cache: tuple) -> tuple:
    """As `lora_conv2d_backward`, with the axis of height 1 taken away.

    >>> import numpy as np
    >>> x, W = np.ones((1, 1, 2)), np.zeros((1, 1, 2))
    >>> _, c = lora_conv1d(x, W, None, W + 1, np.ones((1, 1, 1)), s=0.5)
    >>> lora_conv1d_backward(np.ones((1, 1, 1)), c)[2]
    array([[[0.5, 0.5]]])
    """
    dx, db, dA, dB = lora_conv2d_backward(dy_BOT[:, :, None], cache)
    flat = [None if d is None else d[:, :, 0] for d in (dx, dA, dB)]
    return flat[0], db, flat[1], flat[2]
