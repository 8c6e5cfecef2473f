"""The tape: every primitive's derivative, the engine, and the four classic faults."""

import gc
import threading
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_np import graph, tape
from lora_np.functional import lstm_cell, lstm_cell_backward, relu, relu_backward
from lora_np.graph import Node, enable_grad, grad_enabled, run_backward, unbroadcast
from lora_np.numerics import certify
from lora_np.plots import draw_graph
from lora_np.tape import Tensor, concat, lift, no_grad, recording, where


def rng(seed=0):
    return np.random.default_rng(seed)


def as_pair(f):
    """A function of Tensors as a pair f, f_backward, so that it can be certified."""

    def forward(*arrays):
        leaves = [Tensor(a, requires_grad=True) for a in arrays]
        out = f(*leaves)
        return out.data, (leaves, out)

    def backward(dy, cache):
        leaves, out = cache
        out.backward(dy)
        return tuple(t.grad for t in leaves)

    return forward, backward


MASK = np.array([[True, False, True], [False, True, True]])
PRIMITIVES = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / (b * b + 1.0),
    "rsub": lambda a, b: 2.0 - a + 0.0 * b,
    "rdiv": lambda a, b: 2.0 / (a * a + 1.0) + b,
    "neg": lambda a, b: -a + b,
    "matmul": lambda a, b: a @ (b * a).T,
    "power": lambda a, b: (a * a + 1.0) ** 1.5 * b,
    "square": lambda a, b: a**2 + b**3,
    "exp": lambda a, b: tape.exp(a * b),
    "log": lambda a, b: tape.log(a * a + 0.5) * b,
    "tanh": lambda a, b: tape.tanh(a + b),
    "erf": lambda a, b: tape.erf(a * b),
    "sum": lambda a, b: a.sum(axis=0) * b.sum(),
    "sum_keep": lambda a, b: a.sum(axis=(0, 1), keepdims=True) * b,
    "mean": lambda a, b: a.mean(axis=-1, keepdims=True) * b + a.mean(),
    "reshape": lambda a, b: a.reshape(3, 2) @ b.reshape((2, 3)),
    "transpose": lambda a, b: a.T @ b + (a.transpose(1, 0) @ b).transpose(),
    "slice": lambda a, b: a[:, 1:] * b[0, :2],
    "gather": lambda a, b: a[[0, 1, 1, 0]] * 2.0 + b[0, 0],
    "point": lambda a, b: a[np.array([0, 1]), np.array([2, 2])] * b[:, 0],
    "concat": lambda a, b: concat([a, b, a], axis=1) ** 2,
    "where": lambda a, b: where(MASK, a * b, b),
    "twice": lambda a, b: a * a + a * b,
    "array_left": lambda a, b: np.ones((2, 2)) @ a + np.ones(3) * b,
}


@pytest.mark.parametrize("name", PRIMITIVES)
@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((2, 3), (1, 3))])
def test_primitive_against_numerical_derivatives(name, shapes):
    if shapes[1] == (1, 3) and name in (
        "matmul",
        "reshape",
        "concat",
        "transpose",
        "point",
    ):
        shapes = ((2, 3), (2, 3))
    f, b = as_pair(PRIMITIVES[name])
    inputs = {"a": rng().normal(size=shapes[0]), "b": rng(1).normal(size=shapes[1])}
    forward = lambda a, b: f(a, b)
    report = certify(forward, b, inputs, rng=rng(2), wrt=("a", "b"))
    assert report.passed, str(report)


BROADCASTS = [((3,), (2, 3)), ((2, 1), (3,)), ((), (2, 3)), ((1, 1, 3), (2, 4, 1)),
              ((2, 3), (2, 3)), ((4, 1, 2, 3), (2, 1))]  # fmt: skip


@pytest.mark.parametrize("shapes", BROADCASTS)
@pytest.mark.parametrize("op", ["add", "sub", "mul", "div", "where"])
def test_broadcasting_both_ways(shapes, op):
    def f(a, b):
        if op == "where":
            shape = np.broadcast_shapes(a.shape, b.shape)
            return where(rng(9).random(shape) < 0.5, a, b)
        return getattr(tape, op)(a, b)

    for order in (shapes, shapes[::-1]):
        forward, backward = as_pair(f)
        inputs = {
            "a": rng().normal(size=order[0]),
            "b": rng(1).normal(size=order[1]) + 3,
        }
        report = certify(lambda a, b, f=forward: f(a, b), backward, inputs, rng=rng(2),
                         wrt=("a", "b"))  # fmt: skip
        assert report.passed, str(report)


def test_batched_matmul_broadcasts():
    forward, backward = as_pair(lambda a, b: a @ b)
    for m, n in (((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5)), ((2, 1, 3, 4), (5, 4, 2))):
        inputs = {"a": rng().normal(size=m), "b": rng(1).normal(size=n)}
        report = certify(lambda a, b: forward(a, b), backward, inputs, rng=rng(2),
                         wrt=("a", "b"))  # fmt: skip
        assert report.passed, str(report)


def test_max_and_its_ties():
    x = Tensor(np.array([[1.0, 5.0, 5.0], [2.0, 0.0, 1.0]]), requires_grad=True)
    x.max(axis=1).sum().backward()
    assert x.grad.tolist() == [[0, 0.5, 0.5], [1, 0, 0]]
    forward, backward = as_pair(lambda a: a.max(axis=0, keepdims=True) * a.max())
    report = certify(lambda a: forward(a), backward, {"a": rng().normal(size=(3, 4))},
                     rng=rng(), wrt=("a",), analytic="kinks")  # fmt: skip
    assert report.passed, str(report)


# ---- the engine


def leaf(*values):
    return Tensor(np.array(values, float), requires_grad=True)


def test_a_chain_of_100_000_nodes():
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = y + 1.0
    y.backward()
    assert x.grad.tolist() == [1.0]
    del y
    gc.collect()


def test_thirty_doublings_visit_each_node_once(monkeypatch):
    x = leaf(1.0)
    y = x
    for _ in range(30):
        y = y + y
    calls = []
    original = Node.free
    monkeypatch.setattr(Node, "free", lambda self: (calls.append(1), original(self)))
    y.backward()
    assert x.grad.tolist() == [2.0**30] and len(calls) == 30


def test_gradients_accumulate_until_they_are_cleared():
    x = leaf(3.0)
    for expected in (6.0, 12.0):
        (x * x).backward()
        assert x.grad.tolist() == [expected]


# The four classic faults, each as a faulty engine that the same test rejects.


def engine_overwriting(root, gradient):
    gradients = {root: gradient}
    for node in graph.topological(root)[::-1]:
        g = gradients.pop(node, None)
        if g is None:
            continue
        if node.leaf is not None:
            node.leaf.grad = g
            continue
        for parent, d in zip(node.parents, node.backward(g), strict=True):
            gradients[parent] = d  # overwrites what another child sent


def engine_without_order(root, gradient):
    queue = [(root, gradient)]
    seen = set()
    while queue:  # breadth first: a node may be visited before all its children
        node, g = queue.pop(0)
        if node.leaf is not None:
            node.leaf.grad = g if node.leaf.grad is None else node.leaf.grad + g
        elif node not in seen:
            seen.add(node)
            queue += zip(node.parents, node.backward(g), strict=True)


def engine_backward_twice(root, gradient):
    """Inner gradients kept from the last call and added to again."""
    store = engine_backward_twice.kept
    store[root] = store.get(root, 0) + gradient
    for node in graph.topological(root)[::-1]:
        g = store[node]
        if node.leaf is not None:
            node.leaf.grad = g
            continue
        for parent, d in zip(node.parents, node.backward(g), strict=True):
            store[parent] = store.get(parent, 0) + d


def diamond():
    x = leaf(2.0)
    a = x * 3.0
    return x, (a * a + a * x).sum()  # (9 + 3) x², slope 24 x


def skip_connection():
    x = leaf(2.0)
    h = x * 1.0
    deep = h
    for _ in range(3):
        deep = deep * 2.0
    return x, (h + deep).sum()  # slope 9; h is reached early and late


@pytest.mark.parametrize("build, slope", [(diamond, 48.0), (skip_connection, 9.0)])
def test_shared_nodes_get_every_gradient(build, slope):
    x, y = build()
    y.backward()
    assert x.grad.tolist() == [slope]


@pytest.mark.parametrize("faulty", [engine_overwriting, engine_without_order])
def test_overwriting_and_no_order_are_rejected(faulty):
    wrong = 0
    for build, slope in ((diamond, 48.0), (skip_connection, 9.0)):
        x, y = build()
        faulty(y.node, np.ones(()))
        wrong += x.grad.tolist() != [slope]
    assert wrong


def test_backward_twice_is_an_error_and_the_faulty_one_is_rejected():
    x, y = diamond()
    y.backward()
    before = x.grad.copy()
    with pytest.raises(RuntimeError, match="freed"):
        y.backward()
    assert np.array_equal(x.grad, before)
    with recording():
        x, y = diamond()
    y.backward()
    y.backward()
    assert x.grad.tolist() == [96.0]  # kept graph: the leaf accumulates, twice 48
    engine_backward_twice.kept = {}
    x, y = diamond()
    for _ in range(2):
        engine_backward_twice(y.node, np.ones(()))
    assert x.grad.tolist() != [96.0]


def test_no_unbroadcast_is_rejected(monkeypatch):
    def shape_after(patched):
        if patched:
            monkeypatch.setattr(tape, "unbroadcast", lambda g, shape: g)
        b = leaf(1.0, 2.0, 3.0)
        (Tensor(np.ones((4, 3))) + b).sum().backward()
        return b.grad.shape

    assert shape_after(False) == (3,)
    assert shape_after(True) == (4, 3)


@given(st.lists(st.integers(1, 3), min_size=0, max_size=3), st.data())
def test_unbroadcast_is_the_transpose_of_broadcasting(shape, data):
    """⟨broadcast(x), g⟩ = ⟨x, unbroadcast(g)⟩ for integers, exactly."""
    shape = tuple(shape)
    small = tuple(data.draw(st.sampled_from([1, n])) for n in shape)
    small = small[data.draw(st.integers(0, len(small))) :]
    x = rng().integers(-4, 5, small) * 1.0
    g = rng(1).integers(-4, 5, shape) * 1.0
    got = unbroadcast(g, small)
    assert got.shape == small
    assert (np.broadcast_to(x, shape) * g).sum() == (x * got).sum()


# ---- what is stored


def test_nothing_is_stored_where_no_gradient_is_needed():
    a, b = Tensor(np.ones(3)), Tensor(np.ones(3))
    assert (a * b).node is None
    c = leaf(1.0, 2.0, 3.0)
    y = c * a
    assert len(y.node.parents) == 1
    y.sum().backward()
    assert a.grad is None


def test_saved_arrays_and_inner_gradients_are_freed_during_backward():
    class Tracked(np.ndarray):
        pass

    saved, at_leaf = [], []

    def f(x, needs):
        cache = np.array(x).view(Tracked)
        saved.append(weakref.ref(cache))
        return 2.0 * x, cache

    def f_backward(dy, cache):
        at_leaf.append(sum(r() is not None for r in saved))
        return 2.0 * dy

    op = lift(f, f_backward, ("x",))
    y = leaf(1.0)
    for _ in range(6):
        y = op(y)
    y.backward()
    assert at_leaf == [6, 5, 4, 3, 2, 1]
    assert all(r() is None for r in saved)


def test_activations_live_only_as_long_as_a_derivative_needs_them():
    class Tracked(np.ndarray):
        pass

    x = leaf(1.0, 2.0)
    h = Tensor(np.array([1.0, 2.0]).view(Tracked))
    h.node = (x * 1.0).node
    gone = weakref.ref(h.data)
    y = h + 1.0  # the sum's derivative needs neither operand
    del h
    gc.collect()
    assert gone() is None
    y.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]


def test_no_grad_is_thread_local():
    seen = {}

    def other():
        seen["other"] = grad_enabled()
        with no_grad():
            seen["inside"] = grad_enabled()

    with no_grad():
        assert not grad_enabled()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        with enable_grad():
            assert grad_enabled()
        assert (leaf(1.0) * 2.0).node is None
    assert grad_enabled() and seen == {"other": True, "inside": False}


# ---- lift


def test_lift_computes_only_what_is_needed():
    asked = []

    def f(x, w, needs):
        asked.append(set(needs))
        return x * w, (x, w)

    op = lift(f, lambda dy, c: (dy * c[1], dy * c[0]), ("x", "w"))
    x, w = leaf(2.0), Tensor(np.array([5.0]))
    op(x, w).backward()
    op(x, w=leaf(5.0)).backward()
    with no_grad():
        op(x, w)
    assert asked == [{"x"}, {"x", "w"}, set()] and x.grad.tolist() == [10.0]


def test_lift_with_several_outputs_fills_in_zeros():
    cell = lift(lstm_cell, lstm_cell_backward)
    arrays = [rng(i).normal(size=s) for i, s in
              enumerate([(2, 3), (2, 4), (2, 4), (16, 3), (16, 4), (16,)])]  # fmt: skip
    leaves = [Tensor(a, requires_grad=True) for a in arrays]
    h, c = cell(*leaves)
    assert h.requires_grad and c.shape == (2, 4)
    (h.sum() * 2.0).backward()  # c unused: its gradient is zero
    _, cache = lstm_cell(*arrays)
    want = lstm_cell_backward((np.full((2, 4), 2.0), np.zeros((2, 4))), cache)
    for t, w in zip(leaves, want, strict=True):
        np.testing.assert_allclose(t.grad, w, rtol=1e-13)
    h, c = cell(*leaves)
    (h * c + c).sum().backward()  # both used, c twice


def test_lift_refuses_a_gradient_that_nobody_computes():
    op = lift(lambda x, k: (x, None), lambda dy, c: (dy,), ("x",))
    with pytest.raises(TypeError, match="no gradient for k"):
        op(leaf(1.0), leaf(2.0))


def test_lifted_relu_equals_the_primitive():
    x = leaf(-1.0, 2.0)
    lift(relu, relu_backward)(x).sum().backward()
    assert x.grad.tolist() == [0.0, 1.0]


# ---- errors and drawing


def test_errors_in_words():
    with pytest.raises(ValueError, match="needs a scalar"):
        (leaf(1.0, 2.0) * 2.0).backward()
    with pytest.raises(ValueError, match="shape"):
        (leaf(1.0, 2.0) * 2.0).backward(np.ones(3))
    with pytest.raises(RuntimeError, match="no gradient can flow"):
        Tensor(np.ones(1)).backward()
    with pytest.raises(TypeError, match="list"):
        Tensor([1.0])
    with pytest.raises(TypeError, match="floating"):
        Tensor(np.ones(2, int), requires_grad=True)
    with pytest.raises(ValueError, match="a @ b.T"):
        leaf(1.0, 2.0).reshape(1, 2) @ leaf(1.0, 2.0).reshape(1, 2)
    with pytest.raises(ValueError, match="reshape vectors"):
        leaf(1.0) @ leaf(1.0)
    with pytest.raises(ValueError, match="mean over nothing"):
        Tensor(np.ones((0, 2))).mean()
    with pytest.raises(TypeError, match="expected a Tensor"):
        concat([1.0])


def test_scalars_do_not_promote():
    x = Tensor(np.ones(2, np.float32), requires_grad=True)
    y = (2.0 * x + 1.0) / 3.0 - x * 0.5
    y.sum().backward()
    assert y.dtype == np.float32 and x.grad.dtype == np.float32
    assert "float32, requires_grad" in repr(x)
    x.requires_grad = False
    assert not x.requires_grad


def test_the_drawing_shows_shapes_values_and_gradients():
    with recording():
        x = Tensor(np.array([2.0, 3.0]), requires_grad=True, name="x<y")
        y = (x * x).sum()
    y.backward()
    text = draw_graph(y)._repr_svg_()
    assert text.startswith("<svg") and text.endswith("</svg>")
    for piece in (
        "x&lt;y",
        "(2,)",
        "value [2, 3]",
        "grad [4, 6]",
        "value 13",
        "grad 1",
    ):
        assert piece in text, piece
    import xml.dom.minidom

    assert len(xml.dom.minidom.parseString(text).getElementsByTagName("rect")) == 3
    assert "characters" in repr(draw_graph(y))


def test_drawing_without_a_graph_says_what_to_do():
    _, y = diamond()
    y.backward()
    for t in (y, Tensor(np.ones(1))):
        with pytest.raises(ValueError, match="recording"):
            draw_graph(t)
    y = leaf(1.0)
    with recording():
        for _ in range(250):
            y = y + 1.0
    with pytest.raises(ValueError, match="too many"):
        draw_graph(y)


def test_run_backward_skips_nodes_without_a_gradient():
    x = leaf(1.0)
    none = lift(lambda x: (x * 1.0, None), lambda dy, c: (None,), ("x",))
    y = none(x * 2.0)
    run_backward(y.node, np.ones(1))
    assert x.grad is None


def test_lift_notices_what_a_user_may_slip():
    op = lift(lambda x, b: (x + b, None), lambda dy, c: (dy, dy), ("x", "b"))
    x, b = leaf(1.0, 2.0).reshape(2, 1), leaf(1.0)
    with pytest.raises(ValueError, match=r"db of shape \(2, 1\), the input has \(1,\)"):
        op(x, b).sum().backward()
    with pytest.raises(TypeError, match="takes 2 arguments, got 3"):
        op(x, b, b)
    nothing = lift(lambda x: (x, None), lambda dy, c: (), ())
    with pytest.raises(TypeError, match="no gradient for x"):
        nothing(leaf(1.0))
