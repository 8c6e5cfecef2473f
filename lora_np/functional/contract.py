"""What every pair agrees on: `needs`, the names of its inputs, and its errors.

A pair is `f(..., needs=ALL) -> (y, cache)` and `f_backward(dy, cache) -> gradients`.
The gradients come in the order of `f.wrt`, None for those that `needs` leaves out.
An input's short name is its parameter name up to the shape suffix: `x_ND` is "x".
"""

from collections.abc import Callable, Container
from typing import Any

from lora_np.backend import Array


class _Everything:
    """A container that holds every name."""

    def __contains__(self, name: object) -> bool:
        return True

    def __repr__(self) -> str:
        return "ALL"


ALL: Container[str] = _Everything()


def differentiable(*names: str) -> Callable[[Callable], Callable]:
    """Mark a forward function with the inputs whose gradients its backward returns.

    >>> @differentiable("x")
    ... def double(x_N, *, needs=ALL): return 2 * x_N, None
    >>> double.wrt
    ('x',)
    """

    def mark(f: Any) -> Callable:
        f.wrt = names
        return f

    return mark


def short_name(parameter: str) -> str:
    """The name without its shape suffix.

    >>> short_name("dA_RD")
    'dA'
    """
    return parameter.split("_")[0]


def expect_shape(name: str, array: Array, shape: tuple, slip: str = "") -> None:
    """Raise ValueError unless `array` has `shape` (None stands for any length).

    >>> import numpy as np
    >>> expect_shape("B_MR", np.ones((2, 4)), (4, 2))
    Traceback (most recent call last):
    ...
    ValueError: B_MR must be (4, 2), got (2, 4); did you pass B.T?
    """
    got = tuple(array.shape)
    if len(got) == len(shape) and all(
        want is None or want == n for want, n in zip(shape, got, strict=True)
    ):
        return
    if not slip and len(shape) == 2 and got == tuple(shape)[::-1]:
        slip = f"did you pass {short_name(name)}.T?"
    wanted = "(" + ", ".join("any" if n is None else str(n) for n in shape)
    wanted += ",)" if len(shape) == 1 else ")"
    raise ValueError(f"{name} must be {wanted}, got {got}" + (slip and f"; {slip}"))


def expect_float(**arrays: Array | None) -> None:
    """Raise TypeError unless every array is floating or complex (None is passed over).

    >>> import numpy as np
    >>> expect_float(W=np.arange(3))
    Traceback (most recent call last):
    ...
    TypeError: W must be a floating-point array, got int64; convert it with .astype(...)
    """
    for name, array in arrays.items():
        if array is None:
            continue
        if not hasattr(array, "dtype"):
            raise TypeError(f"{name} must be an array, got {type(array).__name__}")
        if array.dtype.kind not in "fc":
            raise TypeError(
                f"{name} must be a floating-point array, got {array.dtype}; "
                "convert it with .astype(...)"
            )


def expect_ids(name: str, ids: Array, size: int) -> None:
    """Raise unless `ids` are integers in 0 … size-1.

    The range is checked for host arrays only: on a GPU the check would stop the
    pipeline, and there ids out of range wrap silently, so check them before the move.

    >>> import numpy as np
    >>> expect_ids("ids_N", np.array([0, 7]), 5)
    Traceback (most recent call last):
    ...
    IndexError: ids_N must lie in 0 ... 4, got 7 at position 1; wrong tokenizer?
    """
    if ids.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got {ids.dtype}")
    if type(ids).__module__ != "numpy" or ids.size == 0:
        return
    bad = (ids < 0) | (ids >= size)
    if bad.any():
        at = int(bad.ravel().argmax())
        raise IndexError(
            f"{name} must lie in 0 ... {size - 1}, got {int(ids.ravel()[at])} "
            f"at position {at}; wrong tokenizer?"
        )
