"""Dropout with the mask given: the randomness stays outside.

x of any shape.
"""

from collections.abc import Container

from lora_np.backend import Array
from lora_np.functional.contract import (
    ALL,
    differentiable,
    expect_float,
    expect_shape,
)


def check_rate(p: float) -> None:
    """Raise ValueError unless 0 ≤ p < 1.

    >>> check_rate(1.0)
    Traceback (most recent call last):
    ...
    ValueError: dropout must be at least 0 and less than 1, got 1.0; at 1 nothing passes
    """
    if not 0.0 <= p < 1.0:
        raise ValueError(
            f"dropout must be at least 0 and less than 1, got {p}"
            + ("; at 1 nothing passes" if p == 1 else "")
        )


@differentiable("x")
def dropout(
    x: Array, mask: Array, p: float, *, needs: Container[str] = ALL
) -> tuple[Array, Array | None]:
    """y = x · mask / (1 - p), so that the mean over masks is x

    mask: 0/1 (bool or number) of x's shape, 1 with probability 1 - p.

    >>> import numpy as np
    >>> dropout(np.array([1.0, 2.0]), np.array([True, False]), 0.5)[0]
    array([2., 0.])
    """
    expect_float(x=x)
    check_rate(p)
    expect_shape("mask", mask, x.shape)
    factor = mask.astype(x.real.dtype) * (1.0 / (1.0 - p))
    return x * factor, factor if "x" in needs else None


def dropout_backward(dy: Array, cache: Array | None) -> tuple:
    """dx = dy · mask / (1 - p): the same mask, the same factor.

    >>> import numpy as np
    >>> dropout_backward(np.ones(2), dropout(np.ones(2), np.array([1, 0]), 0.5)[1])[0]
    array([2., 0.])
    """
    return (None if cache is None else dy * cache,)
