"""Rotary position embedding.

B batch · T time · H heads · K head size (even)
"""

from collections.abc import Container

from lora_np.backend import Array, get_xp
from lora_np.functional.contract import (
    ALL,
    differentiable,
    expect_float,
    expect_shape,
)


def _angles(position_T: Array, x: Array, base: float) -> tuple[Array, Array]:
    """cos and sin of position · base^(-2i/K), each (T, 1, K/2), in x's real dtype."""
    xp = get_xp(position_T)
    K = x.shape[-1]
    inverse_frequency = 1.0 / base ** (xp.arange(0, K, 2) / K)
    angle = position_T[:, None, None] * inverse_frequency
    dtype = x.real.dtype
    return xp.cos(angle).astype(dtype), xp.sin(angle).astype(dtype)


def _rotate(x_BTHK: Array, cos: Array, sin: Array) -> Array:
    half = x_BTHK.shape[-1] // 2
    first, second = x_BTHK[..., :half], x_BTHK[..., half:]
    return get_xp(x_BTHK).concatenate(
        [first * cos - second * sin, second * cos + first * sin], axis=-1
    )


@differentiable("x")
def rotary(
    x_BTHK: Array,
    position_T: Array,
    base: float = 10000.0,
    *,
    needs: Container[str] = ALL,
) -> tuple[Array, tuple | None]:
    """(y_i, y_i+K/2) = rotation by position · base^(-2i/K) of (x_i, x_i+K/2)

    Su et al. 2021 (2104.09864), eq. 34. The pairs are i and i + K/2, as in
    Hugging Face's Llama; the paper (and Meta's own files) pair 2i and 2i+1, the same up
    to an order of columns.
    Raises ValueError for an odd head size.

    >>> import numpy as np
    >>> x = np.ones((1, 1, 1, 2))
    >>> bool(np.array_equal(rotary(x, np.array([0]))[0], x))   # position 0 stays
    True
    """
    expect_float(x=x_BTHK)
    expect_shape("x_BTHK", x_BTHK, (None,) * 4)
    expect_shape("position_T", position_T, (x_BTHK.shape[1],), "one position a step")
    if x_BTHK.shape[-1] % 2:
        raise ValueError(f"the head size must be even, got {x_BTHK.shape[-1]}")
    cos, sin = _angles(position_T, x_BTHK, base)
    return _rotate(x_BTHK, cos, sin), (cos, sin) if "x" in needs else None


def rotary_backward(dy_BTHK: Array, cache: tuple | None) -> tuple:
    """dx = the rotation by minus the angle, because a rotation's transpose undoes it.

    Indices: [y1, y2] = [[c, -s], [s, c]] [x1, x2], so dx = [[c, s], [-s, c]] dy.

    >>> import numpy as np
    >>> x = np.arange(4.0).reshape(1, 1, 1, 4); y, c = rotary(x, np.array([5]))
    >>> bool(abs(rotary_backward(y, c)[0] - x).max() < 1e-15)
    True
    """
    if cache is None:
        return (None,)
    cos, sin = cache
    return (_rotate(dy_BTHK, cos, -sin),)
