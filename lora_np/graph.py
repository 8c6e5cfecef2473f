"""The graph under the tape: nodes, their order, the backward pass, no_grad.

A node knows its parents and one backward function, and holds no array but what that
function uses: an activation lives only as long as somebody's derivative needs it.
This file knows no derivative; those are in `tape.py`, each under its operation.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lora_np.backend import Array, get_xp

_state = threading.local()


class Node:
    """One operation: where its gradients go (parents) and how (backward).

    `leaf` is the tensor that collects the gradient, for nodes that nothing made.
    `value` and `grad` are kept for drawing only, under `recording()`.
    """

    __slots__ = ("backward", "freed", "grad", "leaf", "op", "parents", "shape", "value")

    def __init__(
        self,
        op: str,
        shape: tuple,
        parents: tuple["Node", ...] = (),
        backward: Callable[[Any], tuple] | None = None,
        leaf: Any = None,
    ):
        self.op, self.shape, self.parents = op, shape, parents
        self.backward, self.leaf, self.freed = backward, leaf, False
        self.value: Array | None = None
        self.grad: Array | None = None

    def free(self) -> None:
        """Let go of the saved arrays and of the graph below."""
        self.parents, self.backward, self.freed = (), None, True


class Pieces:
    """Gradients of some of the outputs of an operation that has several."""

    def __init__(self, by_index: dict[int, Array]):
        self.by_index = by_index

    def __add__(self, other: "Pieces") -> "Pieces":
        both = dict(self.by_index)
        for i, g in other.by_index.items():
            both[i] = both[i] + g if i in both else g
        return Pieces(both)


def grad_enabled() -> bool:
    """Whether operations are recorded in this thread.

    >>> grad_enabled()
    True
    """
    return getattr(_state, "enabled", True)


def keeps_values() -> bool:
    """Whether this thread is inside `recording()`.

    >>> keeps_values()
    False
    """
    return getattr(_state, "keep", False)


@contextmanager
def _set(name: str, value: bool) -> Iterator[None]:
    before = getattr(_state, name, None)
    setattr(_state, name, value)
    try:
        yield
    finally:
        if before is None:
            delattr(_state, name)
        else:
            setattr(_state, name, before)


def no_grad() -> Any:
    """Record nothing in this thread inside `with no_grad():`.

    >>> with no_grad(): grad_enabled()
    False
    """
    return _set("enabled", False)


def enable_grad() -> Any:
    """Record again inside `with enable_grad():` (recomputing under no_grad needs it).

    >>> with no_grad():
    ...     with enable_grad(): grad_enabled()
    True
    """
    return _set("enabled", True)


def recording() -> Any:
    """Keep values, inner gradients and the graph itself, so that it can be drawn.

    >>> with recording(): keeps_values()
    True
    """
    return _set("keep", True)


def topological(root: Node) -> list[Node]:
    """Every node below `root`, parents before children; a stack, no recursion.

    Raises RuntimeError when the graph was used and freed.

    >>> a = Node("a", ()); b = Node("b", (), (a, a))
    >>> [n.op for n in topological(b)]
    ['a', 'b']
    """
    order: list[Node] = []
    seen: set[Node] = set()
    stack: list[tuple[Node, bool]] = [(root, False)]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            order.append(node)
        elif node not in seen:
            if node.freed:
                raise RuntimeError(
                    "backward went through this graph before and freed it; run the "
                    "forward again (or build it inside `with recording():`)"
                )
            seen.add(node)
            stack.append((node, True))
            stack.extend((p, False) for p in node.parents if p not in seen)
    return order


def run_backward(root: Node, gradient: Any) -> None:
    """Send `gradient` from `root` down to the leaves, each node once, children first.

    A node's gradient is complete when its turn comes, because all its children came
    before. Gradients add, never in place, since two nodes may share one array.

    >>> import numpy as np
    >>> from lora_np.tape import Tensor
    >>> x = Tensor(np.ones(1), requires_grad=True); y = x + x
    >>> run_backward(y.node, np.ones(1)); x.grad
    array([2.])
    """
    order = topological(root)
    gradients: dict[Node, Any] = {root: gradient}
    while order:
        node = order.pop()
        g = gradients.pop(node, None)
        if g is None:
            continue
        if node.value is not None and not isinstance(g, Pieces):
            node.grad = g
        if node.leaf is not None:
            leaf = node.leaf
            own = get_xp(g).array  # a copy: g may be shared, or a read-only view
            leaf.grad = own(g) if leaf.grad is None else leaf.grad + g
            continue
        assert node.backward is not None
        parents, received = node.parents, node.backward(g)
        if node.value is None:
            node.free()
        for parent, d in zip(parents, received, strict=True):
            if d is not None:
                gradients[parent] = gradients[parent] + d if parent in gradients else d
        del g, received


def unbroadcast(g: Array, shape: tuple[int, ...]) -> Array:
    """Sum `g` over the axes along which an array of `shape` was repeated.

    Broadcasting copies an entry to many places, so its gradient is the sum over them.

    >>> import numpy as np
    >>> unbroadcast(np.ones((2, 3)), (3,))
    array([2., 2., 2.])
    """
    xp = get_xp(g)
    extra = g.ndim - len(shape)
    if extra > 0:
        g = xp.sum(g, axis=tuple(range(extra)))
    stretched = tuple(i for i, n in enumerate(shape) if n == 1 and g.shape[i] != 1)
    return xp.sum(g, axis=stretched, keepdims=True) if stretched else g
