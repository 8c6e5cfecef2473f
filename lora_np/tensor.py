"""Tensor: an array that remembers how it was made; `record` and `lift` make nodes.

`record` notes a primitive with one link for each operand, `lift` a hand-derived pair
with one backward for all. Neither keeps anything for operands without a gradient.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lora_np.backend import Array, get_xp
from lora_np.graph import (
    Node,
    Pieces,
    grad_enabled,
    keeps_values,
    run_backward,
)


class Tensor:
    """An array that remembers how it was made.

    An array that a derivative needs is kept, not copied: do not change it in place
    between forward and backward.

    Args: data, a NumPy or CuPy array; requires_grad, whether backward leaves a
    gradient in `.grad`.  Raises TypeError for a list or an integer array with gradient.

    >>> import numpy as np
    >>> x = Tensor(np.array([3.0]), requires_grad=True)
    >>> (x * x).sum().backward(); x.grad
    array([6.])
    """

    __slots__ = ("__weakref__", "data", "grad", "name", "node")
    __array_ufunc__ = None  # so that array @ tensor asks Tensor.__rmatmul__

    def __init__(self, data: Array, requires_grad: bool = False, name: str = ""):
        if not hasattr(data, "dtype"):
            raise TypeError(f"a Tensor holds an array, got {type(data).__name__}")
        self.data, self.name = data, name
        self.grad: Array | None = None
        self.node: Node | None = None
        if requires_grad:
            self.requires_grad = True

    @property
    def requires_grad(self) -> bool:
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        if wanted and self.data.dtype.kind not in "fc":
            raise TypeError(f"only floating arrays have gradients, got {self.dtype}")
        if not wanted:
            self.node = None
        elif self.node is None:
            self.node = Node(self.name or "leaf", self.shape, leaf=self)
            self.node.value = self.data if keeps_values() else None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.data.shape)

    @property
    def dtype(self) -> Any:
        return self.data.dtype

    def __repr__(self) -> str:
        label = f" {self.name}" if self.name else ""
        grad = ", requires_grad" if self.requires_grad else ""
        return f"Tensor{label}({self.shape}, {self.dtype}{grad})"

    def backward(self, gradient: Array | None = None) -> None:
        """Add dL/dt to `.grad` of every leaf t, for L = ⟨gradient, self⟩ (default 1).

        Raises ValueError for a non-scalar without `gradient` or one of another shape,
        RuntimeError when there is no graph, or it was used and freed before.
        """
        if gradient is None:
            if self.data.size != 1:
                raise ValueError(
                    f"backward() without a gradient needs a scalar, got {self.shape}; "
                    "sum it, or pass the gradient of the loss with respect to it"
                )
            gradient = get_xp(self.data).ones_like(self.data)
        if tuple(gradient.shape) != self.shape:
            raise ValueError(
                f"the gradient must have the tensor's shape {self.shape}, "
                f"got {tuple(gradient.shape)}"
            )
        if self.node is None:
            raise RuntimeError(
                "no gradient can flow: the tensor was made under no_grad, or from "
                "tensors that do not require one"
            )
        run_backward(self.node, gradient)

    @property
    def T(self) -> "Tensor":
        """The transpose (all axes reversed)."""
        return self.transpose()

    if TYPE_CHECKING:  # set by `tape`, from its table of operators
        _Op = Callable[..., "Tensor"]
        __add__: _Op
        __radd__: _Op
        __sub__: _Op
        __rsub__: _Op
        __mul__: _Op
        __rmul__: _Op
        __truediv__: _Op
        __rtruediv__: _Op
        __matmul__: _Op
        __rmatmul__: _Op
        __pow__: _Op
        __neg__: _Op
        __getitem__: _Op
        sum: _Op
        mean: _Op
        max: _Op
        reshape: _Op
        transpose: _Op


def tensor(x: Any, like: Tensor | None = None) -> Tensor:
    """x itself if it is a Tensor, else a constant; scalars take the dtype of `like`.

    >>> import numpy as np
    >>> tensor(2.0, like=Tensor(np.ones(1, np.float32))).dtype
    dtype('float32')
    """
    if isinstance(x, Tensor):
        return x
    if hasattr(x, "dtype"):
        return Tensor(x)
    if like is None:
        raise TypeError(f"expected a Tensor or an array, got {type(x).__name__}")
    xp = get_xp(like.data)
    return Tensor(xp.asarray(x, dtype=xp.result_type(like.data.dtype, type(x)(0))))


def record(op: str, data: Array, *links: tuple[Tensor, Callable]) -> Tensor:
    """A new tensor whose gradient flows along the links that need it.

    >>> import numpy as np
    >>> record("id", np.ones(1), (Tensor(np.ones(1)), lambda g: g)).requires_grad
    False
    """
    out = Tensor(data)
    kept = [(t.node, d) for t, d in links if t.node is not None]
    if kept and grad_enabled():
        parents = tuple(node for node, _ in kept)
        slopes = tuple(d for _, d in kept)
        out.node = Node(op, out.shape, parents, lambda g: tuple(d(g) for d in slopes))
        if keeps_values():
            out.node.value = data
    return out


def lift(
    f: Callable, f_backward: Callable, wrt: Sequence[str] | None = None
) -> Callable[..., Any]:
    """f on Tensors: one node, whose backward is f_backward.

    f(..., needs=…) -> (y, cache), y an array or a tuple of them; f_backward(dy, cache)
    -> gradients of the inputs in `wrt` (default f.wrt, else all of f's parameters), by
    short names ("x" for x_ND). Arguments that are no Tensors are constants.
    Raises TypeError when a tensor that needs a gradient is given for an input that has
    none.

    >>> import numpy as np
    >>> square = lift(lambda x: (x * x, x), lambda dy, x: 2 * x * dy)
    >>> x = Tensor(np.array([3.0]), requires_grad=True)
    >>> square(x).backward(); x.grad
    array([6.])
    """
    signature = inspect.signature(f).parameters
    parameters = [p for p in signature if p != "needs"]
    short = {p: p.split("_")[0] for p in parameters}
    if wrt is None:
        wrt = getattr(f, "wrt", None) or tuple(short.values())
    names = tuple(wrt)
    takes_needs = "needs" in signature
    label = getattr(f, "__name__", "f")

    def op(*args: Any, **options: Any) -> Any:
        if len(args) > len(parameters):
            raise TypeError(
                f"{label} takes {len(parameters)} arguments, got {len(args)}"
            )
        given = dict(zip(parameters, args, strict=False)) | options
        live: dict[str, Node] = {}
        for p, v in given.items():
            if isinstance(v, Tensor):
                given[p] = v.data
                if v.node is not None and grad_enabled():
                    live[short[p]] = v.node
        if stray := set(live) - set(names):
            raise TypeError(f"{label} has no gradient for {', '.join(sorted(stray))}")
        if takes_needs:
            given["needs"] = tuple(live)
        y, cache = f(**given)
        return _wrap(label, y, cache, f_backward, names, live)

    op.__name__, op.__doc__ = label, f.__doc__
    return op


def _piece(i: int) -> Callable[[Any], tuple]:
    """The backward of output i of an operation that has several."""
    return lambda g: (Pieces({i: g}),)


def _wrap(
    label: str, y: Any, cache: Any, f_backward: Callable, names: tuple, live: dict
) -> Any:
    several = isinstance(y, tuple)
    outputs = tuple(Tensor(part) for part in (y if several else (y,)))
    if live:
        like = [(get_xp(t.data), t.shape, t.dtype) for t in outputs]

        def backward(g: Any) -> tuple:
            if several:
                filled = enumerate(like)
                g = tuple(
                    g.by_index[i] if i in g.by_index else xp.zeros(shape, dtype)
                    for i, (xp, shape, dtype) in filled
                )
            d = f_backward(g, cache)
            by_name = dict(zip(names, d if isinstance(d, tuple) else (d,), strict=True))
            for n, parent in live.items():
                if by_name[n] is not None and by_name[n].shape != parent.shape:
                    raise ValueError(
                        f"{label}'s backward gave d{n} of shape {by_name[n].shape}, "
                        f"the input has {parent.shape}"
                    )
            return tuple(by_name[n] for n in live)

        node = Node(label, outputs[0].shape, tuple(live.values()), backward)
        for i, out in enumerate(outputs):
            out.node = node
            if several:
                out.node = Node(
                    f"{label}[{i}]", out.shape, (node,),
                    _piece(i),
                )  # fmt: skip
            if keeps_values():
                out.node.value = node.value = out.data
    return outputs if several else outputs[0]
