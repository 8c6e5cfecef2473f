"""A strict stand-in for CuPy: NumPy inside, CuPy's manners outside.

What a GPU would refuse or do differently, this does too: implicit conversion to NumPy
raises, host and device arrays do not mix, reductions give 0-d arrays, `where=` and
`initial=` do not exist, out-of-range ids wrap, duplicate writes land in the order of a
shuffle, `empty` is poisoned with NaN, NumPy-only functions are missing. `float()`,
`bool()` and `.item()` work and are counted, because on a GPU each stops the pipeline.
"""

import types

import numpy as np
import scipy.special

MISSING = {
    "errstate", "vecdot", "einsum_path", "vdot", "asanyarray", "nditer", "ndindex",
    "vectorize", "longdouble", "testing", "fromiter",
}  # fmt: skip
REFUSED_KEYWORDS = {"where", "initial"}
SYNCHRONISATIONS = [0]
_order = np.random.default_rng(0)


class ndarray:
    __array_ufunc__ = None
    __array_priority__ = 1000

    def __init__(self, host):
        self._host = np.asarray(host)

    def __array__(self, *_, **__):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed; use .get()"
        )

    def get(self):
        SYNCHRONISATIONS[0] += 1
        return self._host.copy()

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    T = property(lambda self: ndarray(self._host.T))
    imag = property(lambda self: ndarray(self._host.imag))

    @property
    def real(self):
        return ndarray(self._host.real)

    def __len__(self):
        return len(self._host)

    def __iter__(self):
        return (ndarray(part) for part in self._host)

    def _sync(self, kind):
        SYNCHRONISATIONS[0] += 1
        return kind(self._host)

    def __float__(self):
        return self._sync(float)

    def __int__(self):
        return self._sync(int)

    def __bool__(self):
        return self._sync(bool)

    def item(self):
        return self._sync(lambda a: a.item())

    def _index(self, index):
        def one(i, length):
            i = unwrap(i)
            if isinstance(i, np.ndarray) and i.dtype.kind in "iu" and length:
                return i % length  # a GPU wraps where NumPy raises
            return i

        parts = index if isinstance(index, tuple) else (index,)
        axes = iter(self._host.shape)
        out = []
        for part in parts:
            if part is None or part is Ellipsis:
                out.append(part)
                if part is Ellipsis:
                    rest = self._host.ndim - sum(
                        p is not None and p is not Ellipsis for p in parts
                    )
                    for _ in range(rest):
                        next(axes)
            else:
                out.append(one(part, next(axes, 0)))
        return tuple(out)

    def __getitem__(self, index):
        return ndarray(self._host[self._index(index)])

    def __setitem__(self, index, value):
        index, value = self._index(index), unwrap(value)
        ids = [i for i in index if isinstance(i, np.ndarray)]
        if len(ids) == 1 and np.ndim(value) and len(ids[0]) == len(value):
            shuffled = _order.permutation(len(ids[0]))  # duplicates: no fixed order
            at = tuple(i[shuffled] if i is ids[0] else i for i in index)
            self._host[at] = value[shuffled]
            return
        self._host[index] = value


def unwrap(value):
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError(f"Unsupported type {type(value)}: host array of {value.shape}")
    if isinstance(value, (list, tuple)):
        return type(value)(unwrap(v) for v in value)
    return value


def wrap(value):
    if isinstance(value, (np.ndarray, np.generic)):
        return ndarray(value)
    if isinstance(value, (list, tuple)):
        return type(value)(wrap(v) for v in value)
    return value


def device_function(f):
    def call(*args, **options):
        if refused := REFUSED_KEYWORDS & set(options):
            raise TypeError(f"{f.__name__} got an unexpected keyword {refused}")
        out = options.get("out")
        result = f(*map(unwrap, args), **{k: unwrap(v) for k, v in options.items()})
        return out if out is not None else wrap(result)

    return call


def _operators():
    names = (
        "add sub mul truediv matmul pow floordiv mod and or xor lt le gt ge eq ne neg "
        "abs invert"
    ).split()
    for name in names:
        for prefix in ("", "r", "i"):
            method = f"__{prefix}{name}__"
            if hasattr(np.ndarray, method):
                yield method


def _binary(method):
    def call(self, *args):
        if any(isinstance(a, np.ndarray) and a.ndim for a in args):
            raise TypeError("host and device arrays do not mix")
        other = [unwrap(a) for a in args]
        result = getattr(self._host, method)(*other)
        if result is NotImplemented:
            return result
        if method.startswith("__i") and method != "__invert__":
            return self
        return ndarray(result)

    return call


for _method in _operators():
    setattr(ndarray, _method, _binary(_method))
ndarray.__hash__ = object.__hash__
for _method in (
    "sum mean max min argmax argmin reshape transpose swapaxes astype copy ravel any "
    "all squeeze repeat cumsum"
).split():

    def _call(self, *args, _name=_method, **options):
        if refused := REFUSED_KEYWORDS & set(options):
            raise TypeError(f"{_name} got an unexpected keyword {refused}")
        result = getattr(self._host, _name)(*map(unwrap, args), **options)
        return ndarray(result)

    setattr(ndarray, _method, _call)


class _Add:
    """cupy.add: callable, and .at adds up duplicates, though not for int16."""

    def __call__(self, *args, **options):
        return device_function(np.add)(*args, **options)

    @staticmethod
    def at(target, index, values):
        if target.dtype == np.int16:
            raise TypeError("scatter_add does not support int16")
        np.add.at(target._host, target._index(index), unwrap(values))


class Module(types.ModuleType):
    """The stand-in for `import cupy`."""

    ndarray = ndarray
    add = _Add()
    float16, float32, float64 = np.float16, np.float32, np.float64
    complex128, int64, bool_ = np.complex128, np.int64, np.bool_
    dtype, newaxis, pi, inf, nan = np.dtype, None, np.pi, np.inf, np.nan

    linalg = types.SimpleNamespace(
        svd=device_function(lambda *a, **k: tuple(np.linalg.svd(*a, **k)))
    )

    @staticmethod
    def is_available():
        return True

    @staticmethod
    def asarray(value, dtype=None):
        value = value._host if isinstance(value, ndarray) else value
        return ndarray(np.array(value, dtype=dtype))  # a copy: another memory

    array = asarray

    @staticmethod
    def empty(shape, dtype=float):
        poison = np.nan if np.dtype(dtype).kind in "fc" else -(2**31)
        return ndarray(np.full(shape, poison, dtype))

    @staticmethod
    def empty_like(like):
        return Module.empty(like.shape, like.dtype)

    @staticmethod
    def where(condition, *choices):
        if not isinstance(condition, ndarray):
            raise TypeError("where wants an array condition on the device")
        return device_function(np.where)(condition, *choices)

    @staticmethod
    def result_type(*kinds):
        return np.result_type(*(unwrap(k) for k in kinds))

    @staticmethod
    def finfo(dtype):
        return np.finfo(dtype)

    def __getattr__(self, name):
        if name in MISSING or not hasattr(np, name):
            raise AttributeError(f"module 'cupy' has no attribute {name!r}")
        return device_function(getattr(np, name))


def install(monkeypatch):
    """Put the stand-in where `import cupy` and `import cupyx.scipy.special` look."""
    module = Module("cupy")
    special = types.ModuleType("cupyx.scipy.special")
    special.erf = device_function(scipy.special.erf)
    monkeypatch.setitem(__import__("sys").modules, "cupy", module)
    for name in ("cupyx", "cupyx.scipy"):
        monkeypatch.setitem(__import__("sys").modules, name, types.ModuleType(name))
    monkeypatch.setitem(__import__("sys").modules, "cupyx.scipy.special", special)
    return module
