"""Convolution in one and two dimensions, by unfolding into a matrix product.

B batch · C input channels · O output channels · H W image · h w kernel
g groups · P = H' W' output places · Q = (C/g) h w numbers under the kernel
"""

import math
from collections.abc import Container
from numbers import Integral

from lora_np.backend import Array
from lora_np.functional.contract import (
    ALL,
    differentiable,
    expect_float,
    expect_shape,
)
from lora_np.functional.unfold import Pair, fold, output_size, unfold


def _pair(name: str, value: int | Pair, least: int) -> Pair:
    two: tuple = (value, value) if isinstance(value, Integral) else tuple(value)  # type: ignore[arg-type]
    if len(two) != 2 or min(two) < least:
        raise ValueError(f"{name} must be {least} or more (one or two), got {value}")
    return int(two[0]), int(two[1])


def _check(x: Array, W: Array, b: Array | None, groups: int) -> None:
    expect_float(x=x, W=W, b=b)
    expect_shape("x_BCHW", x, (None,) * 4)
    if groups < 1 or x.shape[1] % groups or W.shape[0] % groups:
        raise ValueError(
            f"groups must divide the {x.shape[1]} input and {W.shape[0]} output "
            f"channels, got {groups}"
        )
    slip = "W is (out, in / groups, kernel height, kernel width)"
    expect_shape("W_OCHW", W, (None, x.shape[1] // groups, None, None), slip)
    if b is not None:
        expect_shape("b_O", b, (W.shape[0],))


@differentiable("x", "W", "b")
def conv2d(
    x_BCHW: Array,
    W_OChw: Array,
    b_O: Array | None = None,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    *,
    needs: Container[str] = ALL,
) -> tuple[Array, tuple]:
    """y_bouv = Σ_cij W_ocij x_b,c,u·stride+i·dilation-padding,v·… + b_o

    The channels fall into `groups` blocks; a block of outputs sees its own block of
    inputs. W is (O, C/g, h, w), as in PyTorch (a correlation: no kernel flip).
    Raises ValueError when the kernel does not fit or groups do not divide.

    >>> import numpy as np
    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> conv2d(x, np.ones((1, 1, 2, 2)))[0][0, 0]
    array([[ 8., 12.],
           [20., 24.]])
    """
    _check(x_BCHW, W_OChw, b_O, groups)
    steps = _pair("stride", stride, 1), _pair("padding", padding, 0)
    options = (*steps, _pair("dilation", dilation, 1))
    kernel, image = W_OChw.shape[2:], x_BCHW.shape[2:]
    tall, wide = (
        output_size(image[a], kernel[a], *(o[a] for o in options)) for a in (0, 1)
    )
    places = (tall, wide)
    cols = unfold(x_BCHW, kernel, places, options)
    B, O, Q = x_BCHW.shape[0], W_OChw.shape[0], math.prod(W_OChw.shape[1:])
    cols_BgQP = cols.reshape(B, groups, Q, places[0] * places[1])
    W_gMQ = W_OChw.reshape(groups, O // groups, -1)
    y_BOHW = (W_gMQ @ cols_BgQP).reshape(B, O, *places)
    if b_O is not None:
        y_BOHW = y_BOHW + b_O[:, None, None]
    saved = cols_BgQP if "W" in needs else None
    has_b = b_O is not None and "b" in needs
    weight = W_OChw if "x" in needs else None
    return y_BOHW, (saved, weight, W_OChw.shape, groups, options, image, has_b)


def conv2d_backward(dy_BOHW: Array, cache: tuple) -> tuple:
    """db = Σ dy;  dW = Σ_b dy colsᵀ;  dx = fold(Wᵀ dy)

    Unfolding is linear, cols = U x, and y = W cols is a linear layer for each group:
    dW_mq = Σ_bp dy_bmp cols_bqp, dcols_bqp = Σ_m W_mq dy_bmp, dx = Uᵀ dcols, and Uᵀ is
    `fold`.  Returns (dx, dW, db).

    >>> import numpy as np
    >>> _, c = conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)))
    >>> conv2d_backward(np.ones((1, 1, 2, 2)), c)[0][0, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    cols_BgQP, W_OChw, shape, groups, options, image, has_b = cache
    B, O, H2, W2 = dy_BOHW.shape
    dy_BgMP = dy_BOHW.reshape(B, groups, O // groups, H2 * W2)
    dx_BCHW = dW_OChw = None
    db_O = dy_BOHW.sum(axis=(0, 2, 3)) if has_b else None
    if cols_BgQP is not None:
        dW_OChw = (dy_BgMP @ cols_BgQP.swapaxes(-1, -2)).sum(axis=0).reshape(shape)
    if W_OChw is not None:
        W_gMQ = W_OChw.reshape(groups, O // groups, -1)
        dcols = W_gMQ.swapaxes(-1, -2) @ dy_BgMP
        dcols = dcols.reshape(B, shape[1] * groups, *shape[2:], H2, W2)
        dx_BCHW = fold(dcols, image, options)
    return dx_BCHW, dW_OChw, db_O


@differentiable("x", "W", "b")
def conv1d(
    x_BCT: Array,
    W_OCk: Array,
    b_O: Array | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    *,
    needs: Container[str] = ALL,
) -> tuple[Array, tuple]:
    """y_bot = Σ_ci W_oci x_b,c,t·stride+i·dilation-padding + b_o

    A two-dimensional convolution over an image of height 1; options as `conv2d`.

    >>> import numpy as np
    >>> conv1d(np.arange(4.0).reshape(1, 1, 4), np.ones((1, 1, 2)))[0][0, 0]
    array([1., 3., 5.])
    """
    expect_shape("x_BCT", x_BCT, (None, None, None))
    expect_shape("W_OCk", W_OCk, (None, None, None), "W is (out, in / groups, kernel)")
    y, cache = conv2d(
        x_BCT[:, :, None],
        W_OCk[:, :, None],
        b_O,
        (1, stride),
        (0, padding),
        (1, dilation),
        groups,
        needs=needs,
    )
    return y[:, :, 0], cache


def conv1d_backward(dy_BOT: Array, cache: tuple) -> tuple:
    """As `conv2d_backward`, with the axis of height 1 taken away.

    >>> import numpy as np
    >>> _, c = conv1d(np.ones((1, 1, 3)), np.ones((1, 1, 2)))
    >>> conv1d_backward(np.ones((1, 1, 2)), c)[0][0, 0]
    array([1., 2., 1.])
    """
    dx, dW, db = conv2d_backward(dy_BOT[:, :, None], cache)
    dx = None if dx is None else dx[:, :, 0]
    return dx, None if dW is None else dW[:, :, 0], db
