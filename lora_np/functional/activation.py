"""Element-wise activations. Each forward saves the derivative, one array.

x of any shape. Where the derivative is not wanted nothing is saved.
"""

import math
from collections.abc import Container

from lora_np.backend import Array, cache_sized, erf, get_xp
from lora_np.functional.contract import (
    ALL,
    differentiable,
    expect_float,
    expect_shape,
)

_C = math.sqrt(2.0 / math.pi)
_K = 0.044715  # Hendrycks & Gimpel 2016 (1606.08415), section 2


@differentiable("x")
def relu(x: Array, *, needs: Container[str] = ALL) -> tuple[Array, Array | None]:
    """y = x where x > 0, else 0

    At x = 0 there is no derivative; the one used is 0, as everywhere in the field.

    >>> import numpy as np
    >>> relu(np.array([-1.0, 2.0]))[0]
    array([0., 2.])
    """
    expect_float(x=x)
    above = x.real > 0
    y = get_xp(x).where(above, x, get_xp(x).zeros_like(x))
    return y, above.astype(x.real.dtype) if "x" in needs else None


def relu_backward(dy: Array, cache: Array | None) -> tuple:
    """dx = dy · 1[x > 0].  Returns (dx,).

    >>> import numpy as np
    >>> relu_backward(np.array([5.0, 5.0]), relu(np.array([-1.0, 2.0]))[1])[0]
    array([0., 5.])
    """
    return (None if cache is None else dy * cache,)


@differentiable("x")
def gelu(x: Array, *, needs: Container[str] = ALL) -> tuple[Array, Array | None]:
    """y = x Φ(x) = x (1 + erf(x/√2)) / 2        Hendrycks & Gimpel 2016 (1606.08415)

    >>> import numpy as np
    >>> float(gelu(np.array([0.0]))[0][0])
    0.0
    """
    expect_float(x=x)
    cdf = 0.5 * (1.0 + erf(x * math.sqrt(0.5)))
    if "x" not in needs:
        return x * cdf, None
    pdf = get_xp(x).exp(-0.5 * x * x) * (1.0 / math.sqrt(2.0 * math.pi))
    return x * cdf, cdf + x * pdf


def gelu_backward(dy: Array, cache: Array | None) -> tuple:
    """dx = dy · (Φ(x) + x φ(x)), φ the normal density (the derivative of Φ).

    >>> import numpy as np
    >>> float(gelu_backward(np.ones(1), gelu(np.zeros(1))[1])[0][0])
    0.5
    """
    return (None if cache is None else dy * cache,)


@differentiable("x")
def gelu_tanh(x: Array, *, needs: Container[str] = ALL) -> tuple[Array, Array | None]:
    """y = x (1 + t) / 2,  t = tanh(√(2/π) (x + 0.044715 x³))

    GPT-2's approximation of GELU; it differs from `gelu` by less than 5e-4.
    (x³ is written x·x·x: float32 `x**3` costs about a hundred times as much.)

    >>> import numpy as np
    >>> bool(abs(gelu_tanh(np.ones(1))[0] - gelu(np.ones(1))[0])[0] < 5e-4)
    True
    """
    expect_float(x=x)
    y = get_xp(x).empty_like(x)
    slope = get_xp(x).empty_like(x) if "x" in needs else None
    for part in cache_sized(x):
        here = x[part]
        near = here
        if x.dtype == get_xp(x).float16:  # x² overflows from 256 on; t is 1 from 10 on
            near = get_xp(x).clip(here, -10, 10)
        inner = near * near
        half_t = get_xp(x).tanh(here * (_C + _C * _K * inner))
        half_t *= 0.5
        y[part] = here * (0.5 + half_t)
        if slope is not None:
            rise = (0.5 - 2.0 * half_t * half_t) * (_C + 3.0 * _C * _K * inner)
            slope[part] = 0.5 + half_t + here * rise
    return y, slope


def gelu_tanh_backward(dy: Array, cache: Array | None) -> tuple:
    """dx = dy · ((1 + t)/2 + x (1 - t²)/2 · √(2/π) (1 + 3·0.044715 x²))

    >>> import numpy as np
    >>> float(gelu_tanh_backward(np.ones(1), gelu_tanh(np.zeros(1))[1])[0][0])
    0.5
    """
    return (None if cache is None else dy * cache,)


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x), for x < 0 as e^x / (1 + e^x): no overflow, no lost digits.

    >>> import numpy as np
    >>> float(sigmoid(np.float64(0.0)))
    0.5
    """
    xp = get_xp(x)
    negative = x.real < 0
    e = xp.exp(xp.where(negative, x, -x))
    return xp.where(negative, e, xp.ones_like(e)) / (1.0 + e)


@differentiable("x")
def silu(x: Array, *, needs: Container[str] = ALL) -> tuple[Array, Array | None]:
    """y = x σ(x)        also called swish

    >>> import numpy as np
    >>> float(silu(np.array([0.0]))[0][0])
    0.0
    """
    expect_float(x=x)
    s = sigmoid(x)
    y = x * s
    return y, s + y * (1.0 - s) if "x" in needs else None


def silu_backward(dy: Array, cache: Array | None) -> tuple:
    """dx = dy · (σ + x σ (1 - σ)), because σ' = σ (1 - σ).

    >>> import numpy as np
    >>> float(silu_backward(np.ones(1), silu(np.zeros(1))[1])[0][0])
    0.5
    """
    return (None if cache is None else dy * cache,)


@differentiable("a", "b")
def swiglu(
    a: Array, b: Array, *, needs: Container[str] = ALL
) -> tuple[Array, tuple[Array | None, Array | None]]:
    """y = silu(a) · b        Shazeer 2020 (2002.05202); a is the gate, b the value

    >>> import numpy as np
    >>> swiglu(np.zeros(1), np.ones(1))[0]
    array([0.])
    """
    expect_float(a=a, b=b)
    expect_shape("b", b, a.shape, "gate and value have one shape")
    h, slope = silu(a, needs=("x",) if "a" in needs else ())
    y = h * b
    db_factor = h if "b" in needs else None
    return y, (None if slope is None else slope * b, db_factor)


def swiglu_backward(dy: Array, cache: tuple) -> tuple:
    """da = dy · b · silu'(a),  db = dy · silu(a).  Returns (da, db).

    >>> import numpy as np
    >>> swiglu_backward(np.ones(1), swiglu(np.zeros(1), np.array([3.0]))[1])[0]
    array([1.5])
    """
    return tuple(None if factor is None else dy * factor for factor in cache)
