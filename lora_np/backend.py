"""The only file that knows CuPy: which array module, moving arrays, scatter-add.

Every function elsewhere begins with `xp = get_xp(x)` and then calls `xp.exp(...)`.
Nothing here imports CuPy until `select("cupy")` is called: `get_xp` looks for it among
the modules that are already loaded.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray or cupy.ndarray; both spell every operation alike


def get_xp(*arrays: Array) -> ModuleType:
    """The module (numpy or cupy) that the given arrays belong to.

    Python scalars, None and NumPy scalars belong to no module and are passed over.
    Raises TypeError when host and device arrays are mixed.

    >>> get_xp(np.zeros(2), 3.0).__name__
    'numpy'
    """
    cupy = sys.modules.get("cupy")
    if cupy is None:
        return np
    on_device = [isinstance(a, cupy.ndarray) for a in arrays]
    if not any(on_device):
        return np
    if any(isinstance(a, np.ndarray) for a in arrays):
        raise TypeError(
            "all arrays must be on one device, got NumPy and CuPy arrays together; "
            "move the host ones with xp.asarray(...) first"
        )
    return cupy


def select(name: str) -> ModuleType:
    """The array module called `name` ("numpy" or "cupy"), or an error in words.

    Raises ValueError for another name, RuntimeError when CuPy is not installed or
    finds no GPU (CuPy imports without one and fails at the first allocation).

    >>> select("numpy") is np
    True
    """
    if name == "numpy":
        return np
    if name != "cupy":
        raise ValueError(f"backend must be 'numpy' or 'cupy', got {name!r}")
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        raise RuntimeError(
            "backend 'cupy' needs CuPy, which is not installed; "
            "pip install cupy-cuda12x (for CUDA 12), or use --backend numpy"
        ) from error
    if not cupy.is_available():
        raise RuntimeError(
            "CuPy is installed but finds no usable GPU (driver or device missing); "
            "use --backend numpy"
        )
    return cupy


def to_host(array: Array) -> np.ndarray:
    """A NumPy array with the same values (a copy only if it was on a device).

    >>> to_host(np.ones(2))
    array([1., 1.])
    """
    if get_xp(array) is np:
        return np.asarray(array)
    return array.get()


def erf(x: Array) -> Array:
    """The error function of `scipy.special`; on the host it takes complex x too.

    >>> float(erf(np.float64(0.0)))
    0.0
    """
    if get_xp(x) is np:
        special = importlib.import_module("scipy.special")  # here: most users need none
        return special.erf(x).astype(x.dtype)  # float16 comes back wider
    return importlib.import_module("cupyx.scipy.special").erf(x).astype(x.dtype)


def scatter_add(target: Array, index: Any, values: Array) -> None:
    """target[index] += values in place, where repeated indices add up.

    `target[index] += values` keeps only one of several writes to the same place.

    >>> t = np.zeros(2); scatter_add(t, np.array([1, 1]), np.ones(2)); t
    array([0., 2.])
    """
    get_xp(target, values).add.at(target, index, values)


def add_to(y: Array, b: Array) -> Array:
    """y + b, in y's own memory where the result has y's dtype and shape.

    >>> add_to(np.ones(2), np.ones(2) * 1j).dtype
    dtype('complex128')
    """
    xp = get_xp(y, b)
    if xp.result_type(y.dtype, b.dtype) == y.dtype:
        y += b
        return y
    return y + b


def cache_sized(x: Array, entries: int = 32768) -> list:
    """Indices that cut x into runs of rows of about `entries` numbers each.

    A formula of a dozen passes over a large array is bound by memory; run after run it
    stays in the cache, two to three times as fast. On a GPU: one run, fewer launches.

    >>> cache_sized(np.zeros((5, 4)), entries=8)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 6, None)]
    """
    if x.ndim == 0 or x.size <= entries or get_xp(x) is not np:
        return [...]
    rows = max(1, entries * x.shape[0] // x.size)
    return [slice(i, i + rows) for i in range(0, x.shape[0], rows)]


def row_sum(x: Array) -> Array:
    """Sum over the last axis, kept as an axis of length 1, by a matrix product.

    A product with a column of ones is several times faster than `.sum(-1)` for the
    short rows that occur here, because BLAS does it.

    >>> row_sum(np.array([[1.0, 2.0]]))
    array([[3.]])
    """
    return x @ get_xp(x).ones((x.shape[-1], 1), dtype=x.dtype)


def column_sum(x: Array) -> Array:
    """Sum over the rows of a 2-D array, by a matrix product; zero rows give zeros.

    >>> column_sum(np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([4., 6.])
    """
    return get_xp(x).ones(x.shape[0], dtype=x.dtype) @ x
