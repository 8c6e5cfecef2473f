"""Minimal autograd: the primitives, each with its own derivative under it.

A link is (operand, gradient of the operand given the gradient g of the result). Only
the links of operands that need a gradient are kept, and a link captures only the arrays
that it uses. The primitives share no derivative with `functional`: they are the second
of three witnesses.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

from lora_np import backend
from lora_np.backend import Array, get_xp, scatter_add
from lora_np.graph import no_grad, recording, unbroadcast
from lora_np.tensor import Tensor, lift, record, tensor

__all__ = [
    "Tensor", "concat", "erf", "exp", "getitem", "lift", "log",
    "matmul", "max_", "mean", "no_grad", "power", "recording", "reshape", "sum_",
    "tanh", "transpose", "where",
]  # fmt: skip


# ---- arithmetic, with broadcasting both ways


def _two(a: Any, b: Any) -> tuple[Tensor, Tensor, Array, Array]:
    a = tensor(a, b if isinstance(b, Tensor) else None)
    b = tensor(b, a)
    return a, b, a.data, b.data


def add(a: Any, b: Any) -> Tensor:
    """a + b; each operand gets g, summed where it was repeated."""
    a, b, x, y = _two(a, b)
    m, n = a.shape, b.shape
    return record(
        "+", x + y,
        (a, lambda g: unbroadcast(g, m)),
        (b, lambda g: unbroadcast(g, n)),
    )  # fmt: skip


def sub(a: Any, b: Any) -> Tensor:
    """a - b; b gets -g."""
    a, b, x, y = _two(a, b)
    m, n = a.shape, b.shape
    return record(
        "-", x - y,
        (a, lambda g: unbroadcast(g, m)),
        (b, lambda g: unbroadcast(-g, n)),
    )  # fmt: skip


def mul(a: Any, b: Any) -> Tensor:
    """a · b, entry by entry; each gets g times the other."""
    a, b, x, y = _two(a, b)
    m, n = a.shape, b.shape
    return record(
        "*", x * y,
        (a, lambda g: unbroadcast(g * y, m)),
        (b, lambda g: unbroadcast(g * x, n)),
    )  # fmt: skip


def div(a: Any, b: Any) -> Tensor:
    """a / b; a gets g / b, b gets -g a / b²."""
    a, b, x, y = _two(a, b)
    m, n = a.shape, b.shape
    return record(
        "/", x / y,
        (a, lambda g: unbroadcast(g / y, m)),
        (b, lambda g: unbroadcast(-g * x / (y * y), n)),
    )  # fmt: skip


def matmul(a: Any, b: Any) -> Tensor:
    """a @ b, (..., n, k) @ (..., k, m); da = g bᵀ, db = aᵀ g.  Raises ValueError."""
    a, b, x, y = _two(a, b)
    m, n = a.shape, b.shape
    if len(m) < 2 or len(n) < 2 or m[-1] != n[-2]:
        slip = "reshape vectors to (1, n) or (n, 1)"
        if len(m) == len(n) == 2 and m[-1] == n[-1]:
            slip = "did you mean a @ b.T?"
        raise ValueError(f"@ needs (..., n, k) @ (..., k, m), got {m} @ {n}; {slip}")
    return record(
        "@", x @ y,
        (a, lambda g: unbroadcast(g @ y.swapaxes(-1, -2), m)),
        (b, lambda g: unbroadcast(x.swapaxes(-1, -2) @ g, n)),
    )  # fmt: skip


def power(a: Tensor, exponent: float) -> Tensor:
    """a to a constant power k; da = g k a^(k-1)."""
    x, k = a.data, exponent
    return record("**", x**k, (a, lambda g: g * (k * x ** (k - 1))))


# ---- functions of one array


def exp(a: Tensor) -> Tensor:
    """eᵃ; da = g eᵃ."""
    y = get_xp(a.data).exp(a.data)
    return record("exp", y, (a, lambda g: g * y))


def log(a: Tensor) -> Tensor:
    """ln a; da = g / a."""
    x = a.data
    return record("log", get_xp(x).log(x), (a, lambda g: g / x))


def tanh(a: Tensor) -> Tensor:
    """tanh a; da = g (1 - tanh² a)."""
    y = get_xp(a.data).tanh(a.data)
    return record("tanh", y, (a, lambda g: g * (1.0 - y * y)))


def erf(a: Tensor) -> Tensor:
    """The error function; da = g · 2/√π · exp(-a²)."""
    x, xp = a.data, get_xp(a.data)
    c = 2.0 / math.sqrt(math.pi)
    return record("erf", backend.erf(x), (a, lambda g: g * (c * xp.exp(-x * x))))


# ---- reductions


def _spread(g: Array, shape: tuple, axis: Any, keepdims: bool) -> Array:
    """g, repeated along the axes that a reduction removed."""
    xp = get_xp(g)
    if axis is not None and not keepdims:
        axes = axis if isinstance(axis, tuple) else (axis,)
        for i in sorted(i % len(shape) for i in axes):
            g = xp.expand_dims(g, i)
    return xp.broadcast_to(g, shape)


def sum_(a: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Sum over the axes (all by default); every summand gets g."""
    y, shape = a.data.sum(axis=axis, keepdims=keepdims), a.shape
    return record("sum", y, (a, lambda g: _spread(g, shape, axis, keepdims)))


def mean(a: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Mean over the axes (all by default).  Raises ValueError over nothing."""
    total = sum_(a, axis, keepdims)
    n = a.data.size // max(1, total.data.size)
    if a.data.size == 0:
        raise ValueError("the mean over nothing is undefined")
    return total * (1.0 / n)


def max_(a: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Entries that tie share the gradient equally, a subgradient of the kink."""
    x, shape = a.data, a.shape
    y = x.max(axis=axis, keepdims=keepdims)

    def slope(g: Array) -> Array:
        top = (x == _spread(y, shape, axis, keepdims)).astype(x.dtype)
        share = top / top.sum(axis=axis, keepdims=True)
        return _spread(g, shape, axis, keepdims) * share

    return record("max", y, (a, slope))


# ---- shape and selection


def reshape(a: Tensor, *shape: Any) -> Tensor:
    """The same entries in another shape; g goes back to the old one."""
    new = shape[0] if isinstance(shape[0], tuple) else shape
    old = a.shape
    return record("reshape", a.data.reshape(new), (a, lambda g: g.reshape(old)))


def transpose(a: Tensor, *axes: int) -> Tensor:
    """Axes in the given order (reversed by default); g in the inverse order."""
    order = axes or tuple(range(len(a.shape)))[::-1]
    back = [order.index(i) for i in range(len(order))]
    y = a.data.transpose(order)
    return record("transpose", y, (a, lambda g: g.transpose(back)))


def getitem(a: Tensor, index: Any) -> Tensor:
    """Slices, integers and integer arrays; an entry taken twice gets both gradients."""
    shape, dtype, xp = a.shape, a.dtype, get_xp(a.data)

    def slope(g: Array) -> Array:
        d = xp.zeros(shape, dtype=xp.result_type(dtype, g.dtype))
        scatter_add(d, index, g)
        return d

    return record("[]", a.data[index], (a, slope))


def concat(parts: Sequence[Tensor], axis: int = 0) -> Tensor:
    """The parts one after another along an axis; each gets its own piece of g."""
    parts = [tensor(p) for p in parts]
    data = get_xp(*(p.data for p in parts)).concatenate([p.data for p in parts], axis)
    links, start = [], 0
    for p in parts:
        stop = start + p.shape[axis]
        at = (slice(None),) * (axis % data.ndim) + (slice(start, stop),)
        links.append((p, lambda g, at=at: g[at]))
        start = stop
    return record("concat", data, *links)


def where(condition: Array, a: Any, b: Any) -> Tensor:
    """a where the (constant) condition holds, else b."""
    a, b, x, y = _two(a, b)
    m, n, xp = a.shape, b.shape, get_xp(condition)
    return record(
        "where", xp.where(condition, x, y),
        (a, lambda g: unbroadcast(g * condition, m)),
        (b, lambda g: unbroadcast(g * xp.logical_not(condition), n)),
    )  # fmt: skip


_OPERATORS: dict[str, Callable] = {
    "__add__": add, "__radd__": add, "__sub__": sub, "__mul__": mul, "__rmul__": mul,
    "__rsub__": lambda a, b: sub(b, a), "__neg__": lambda a: mul(a, -1.0),
    "__truediv__": div, "__rtruediv__": lambda a, b: div(b, a), "__pow__": power,
    "__matmul__": matmul, "__rmatmul__": lambda a, b: matmul(b, a),
    "__getitem__": getitem, "sum": sum_, "mean": mean, "max": max_,
    "reshape": reshape, "transpose": transpose,
}  # fmt: skip
for _name, _function in _OPERATORS.items():
    setattr(Tensor, _name, _function)
