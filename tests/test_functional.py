"""What agreement does not cover: errors, `needs`, dtypes, edges, memory."""

import tracemalloc

import numpy as np
import pytest

from lora_np import functional as F
from lora_np import lora as L
from lora_np.functional.adversarial import softplus
from lora_np.reference import PAIRS, Draw


def rng(seed=0):
    return np.random.default_rng(seed)


def problem(p, seed=3, square=False):
    return p.problem(Draw.seeded(seed, square=square))


def parts(y):
    return y if isinstance(y, tuple) else (y,)


def run(p, given, needs):
    y, cache = p.forward(**given, needs=needs)
    ones = tuple(np.ones_like(a) for a in parts(y))
    dy = ones if isinstance(y, tuple) else ones[0]
    return y, dict(zip(p.wrt, p.backward(dy, cache), strict=True))


@pytest.mark.parametrize("p", PAIRS, ids=lambda p: p.name)
def test_needs_selects_gradients_and_changes_nothing_else(p):
    given = problem(p)
    present = [n for n in p.wrt for k, v in given.items()
               if k.split("_")[0] == n and v is not None]  # fmt: skip
    y_all, every = run(p, given, F.ALL)
    for n in present:
        assert every[n] is not None
        y, got = run(p, given, (n,))
        assert all(map(np.array_equal, parts(y), parts(y_all)))
        np.testing.assert_allclose(got[n], every[n], rtol=1e-12, atol=1e-13)
        assert all(got[m] is None for m in p.wrt if m != n), (n, got)
    _, nothing = run(p, given, ())
    assert all(v is None for v in nothing.values())


@pytest.mark.parametrize("p", PAIRS, ids=lambda p: p.name)
def test_float32_stays_float32(p):
    given = {k: v.astype(np.float32) if getattr(v, "dtype", None) == np.float64 else v
             for k, v in problem(p).items()}  # fmt: skip
    y, grads = run(p, given, F.ALL)
    for array in [*parts(y), *grads.values()]:
        assert array is None or array.dtype == np.float32


@pytest.mark.parametrize("p", PAIRS, ids=lambda p: p.name)
def test_any_complex_input_makes_a_complex_output(p):
    """Else the complex step would lose a perturbation without a word."""
    given = problem(p)
    for k, v in given.items():
        if k.split("_")[0] in p.wrt and v is not None:
            y, _ = p.forward(**{**given, k: v + 1e-30j}, needs=())
            assert any(a.dtype == np.complex128 for a in parts(y)), k


@pytest.mark.parametrize("p", PAIRS, ids=lambda p: p.name)
def test_integer_arrays_are_refused_by_name(p):
    seen = set()
    for case in range(4):
        given = p.problem(Draw.seeded(3, square=False, case=case))
        arrays = [
            k for k, v in given.items() if getattr(v, "dtype", None) == np.float64
        ]
        for key in arrays:
            with pytest.raises(TypeError, match=rf"\b{key.split('_')[0]}"):
                p.forward(**{**given, key: np.ones(given[key].shape, int)})
        seen |= {key.split("_")[0] for key in arrays}
    assert set(p.wrt) <= seen


T3, T4 = (2, 3, 4), (1, 2, 4, 4)
LORA = {"x_ND": (2, 3), "W_MD": (5, 3), "b_M": (5,), "A_RD": (2, 3), "B_MR": (5, 2)}
DORA = {**LORA, "m_M": (5,)}
CONV = {"x_BCHW": T4, "W_OChw": (3, 2, 2, 2), "b_O": (3,), "A_RChw": (2, 2, 2, 2),
        "B_OR11": (3, 2, 1, 1)}  # fmt: skip
QKV = {"x_ND": (2, 3), "W_CD": (8, 3), "b_C": (8,), "Aq_RD": (1, 3), "Bq_QR": (4, 1),
       "Ak_RD": None, "Bk_KR": None, "Av_RD": None, "Bv_KR": None}  # fmt: skip
WRONG_SHAPES = [
    (L.lora_linear, LORA | {"x_ND": T3}, "flatten batch"),
    (L.lora_linear, LORA | {"W_MD": (3, 5)}, "W is stored"),
    (L.lora_linear, LORA | {"b_M": (1,)}, "b_M must be"),
    (L.dora_linear, DORA | {"x_ND": T3}, "flatten batch"),
    (L.dora_linear, DORA | {"W_MD": (3, 5)}, "W is stored"),
    (L.dora_linear, DORA | {"B_MR": (2, 5)}, "did you pass B.T"),
    (L.dora_linear, DORA | {"b_M": (1,)}, "b_M must be"),
    (L.dora_linear, DORA | {"norm_M": (1,)}, "norm_M must be"),
    (L.lora_conv2d, CONV | {"A_RChw": (2, 2, 1, 1)}, "A is .r"),
    (L.lora_conv2d, CONV | {"B_OR11": (3, 2, 3, 3)}, "B is .out"),
    (L.lora_conv2d, CONV | {"B_OR11": (2, 2, 1, 1)}, "B is .out"),
    (L.lora_conv1d, dict(x_BCT=T4, W_OCk=(3, 2, 2), b_O=None, A_RCk=(2, 2, 2),
                         B_OR1=(3, 2, 1)), "x must be"),
    (L.lora_conv2d, CONV | {"W_OChw": (3, 2, 2)}, "W must be"),
    (L.lora_qkv, QKV | {"Bq_QR": (1, 1)}, "Bq_MR must be"),
    (L.lora_qkv, QKV | {"x_ND": T3}, "flatten batch"),
    (L.lora_qkv, QKV | {"b_C": (1,)}, "b_C must be"),
    (F.linear, dict(x_ND=(2, 3), W_MD=(3, 4)), "W is stored"),
    (F.linear, dict(x_ND=(2, 3), W_MD=(4, 3), b_M=(3,)), "b_M must be"),
    (F.linear, dict(x_ND=(2, 3, 4), W_MD=(4, 4)), "flatten batch"),
    (F.layer_norm, dict(x_ND=(2, 3), g_D=(2,)), "g_D must be"),
    (F.rms_norm, dict(x_ND=(2, 3), g_D=(2,)), "g_D must be"),
    (F.swiglu, dict(a=(2, 3), b=(3, 2)), "one shape"),
    (F.attention, dict(q_BTHK=(1, 2, 3, 4), k_BSGK=(1, 2, 2, 4), v_BSGK=(1, 2, 2, 4)),
     "multiple of the 2"),
    (F.attention, dict(q_BTHK=(1, 2, 2, 4), k_BSGK=(2, 2, 2, 4), v_BSGK=(2, 2, 2, 4)),
     "k_BSGK must be"),
    (F.conv2d, dict(x_BCHW=(1, 3, 4, 4), W_OChw=(2, 2, 2, 2)), "in / groups"),
    (F.conv2d, dict(x_BCHW=(1, 1, 2, 2), W_OChw=(1, 1, 3, 3)), "does not fit"),
    (F.conv1d, dict(x_BCT=(1, 4), W_OCk=(1, 1, 2)), "x_BCT must be"),
    (L.lora_linear, dict(x_ND=(2, 3), W_MD=(5, 3), b_M=None, A_RD=(3, 2), B_MR=(5, 2)),
     "A.T"),
    (L.lora_linear, dict(x_ND=(2, 3), W_MD=(5, 3), b_M=None, A_RD=(2, 3), B_MR=(2, 5)),
     "did you pass B.T"),
    (L.lora_linear, dict(x_ND=(2, 3), W_MD=(5, 3), b_M=None, A_RD=(0, 3), B_MR=(5, 0)),
     "r must be 1"),
    (L.dora_linear, dict(x_ND=(2, 3), W_MD=(5, 3), b_M=None, A_RD=(2, 3), B_MR=(5, 2),
                         m_M=(3,)), "one magnitude"),
]  # fmt: skip


@pytest.mark.parametrize("f, shapes, message", WRONG_SHAPES)
def test_shapes_that_do_not_fit(f, shapes, message):
    given = {k: None if v is None else np.ones(v) for k, v in shapes.items()}
    extra = {"s": 1.0} if f.__module__.startswith("lora_np.lora") else {}
    if f is L.lora_qkv:
        extra["widths"] = (4, 2, 2)
    with pytest.raises(ValueError, match=message):
        f(**given, **extra)


def test_ids_out_of_range_name_the_place():
    with pytest.raises(IndexError, match="got 5 at position 2"):
        F.embedding(np.array([0, 1, 5]), np.ones((5, 2)))
    with pytest.raises(IndexError, match="got -1"):
        F.embedding(np.array([-1]), np.ones((5, 2)))
    with pytest.raises(TypeError, match="integers"):
        F.embedding(np.array([0.0]), np.ones((5, 2)))
    with pytest.raises(IndexError, match="targets must lie"):
        F.cross_entropy(np.ones((1, 3)), np.array([3]))
    with pytest.raises(TypeError, match="integers"):
        F.cross_entropy(np.ones((1, 3)), np.array([1.0]))


@pytest.mark.parametrize("f", [F.cross_entropy, F.linear_cross_entropy])
def test_a_mean_over_nothing_is_an_error_and_a_sum_is_zero(f):
    for rows in (0, 2):
        target = np.full(rows, -100)
        args = [np.ones((rows, 3))] + [np.ones((4, 3))] * (f is F.linear_cross_entropy)
        with pytest.raises(ValueError, match="mean over no counted position"):
            f(*args, target)
        loss, cache = f(*args, target, reduction="sum")
        assert float(loss) == 0.0
    with pytest.raises(ValueError, match="reduction"):
        f(*args, target, reduction="average")


def test_zero_rows_pass_through():
    W, none = np.ones((4, 3)), np.ones((0, 3))
    y, c = F.linear(none, W, np.ones(4))
    dx, dW, db = F.linear_backward(np.ones((0, 4)), c)
    assert y.shape == (0, 4) and dx.shape == (0, 3) and not dW.any() and not db.any()
    y, c = F.layer_norm(none, np.ones(3), np.ones(3))
    assert y.shape == (0, 3) and F.layer_norm_backward(y, c)[0].shape == (0, 3)
    A, B = np.ones((2, 3)), np.ones((4, 2))
    y, c = L.lora_linear(none, W, None, A, B, 1.0)
    dx, db, dA, dB = L.lora_linear_backward(y, c)
    assert dA.shape == A.shape and not dA.any() and not dB.any()
    assert F.gelu_tanh(none)[0].shape == (0, 3)


@pytest.mark.parametrize("ids", [[-1], [5], [[0, 1]]])
def test_lora_embeddings_refuse_ids_too(ids):
    ids, E, A, B = np.array(ids), np.ones((5, 3)), np.ones((2, 5)), np.ones((3, 2))
    with pytest.raises((IndexError, ValueError), match="ids_N"):
        L.lora_embedding(ids, E, A, B, 1.0)
    with pytest.raises((IndexError, ValueError), match="ids_N"):
        L.lora_tied(ids, np.ones((2, 3)), E, np.ones((2, 3)), np.ones((5, 2)), 1.0)
    with pytest.raises(ValueError, match="h_PD"):
        L.lora_tied(
            np.array([0]), np.ones((2, 4)), E, np.ones((2, 3)), np.ones((5, 2)), 1.0
        )
    with pytest.raises(ValueError, match="B.T"):
        L.lora_tied(
            np.array([0]), np.ones((2, 3)), E, np.ones((2, 3)), np.ones((2, 5)), 1.0
        )


def test_dropout_rates():
    for p in (1.0, -0.1, 1.5):
        with pytest.raises(ValueError, match="at least 0 and less than 1"):
            F.dropout(np.ones(2), np.ones(2), p)
    with pytest.raises(ValueError, match="mask"):
        F.dropout(np.ones(2), np.ones(3), 0.5)


def test_softmax_is_stable_and_refuses_nothing():
    p, _ = F.softmax(np.array([[1e4, 1e4 + 1]]))
    np.testing.assert_allclose(p, F.softmax(np.array([[0.0, 1.0]]))[0], rtol=1e-12)
    assert F.softmax(np.array([1.0, 1.0]))[0].tolist() == [0.5, 0.5]
    dz = F.softmax_backward(np.array([1.0, 0.0]), F.softmax(np.zeros(2))[1])[0]
    assert dz.tolist() == [0.25, -0.25]
    with pytest.raises(ValueError, match="at least one entry"):
        F.softmax(np.ones((2, 0)))


def test_cross_entropy_is_stable_for_large_logits():
    z = np.array([[1e4, 0.0], [0.0, 1e4]], np.float32)
    loss, c = F.cross_entropy(z, np.array([0, 0]))
    assert float(loss) == pytest.approx(5e3)
    assert np.isfinite(F.cross_entropy_backward(1.0, c)[0]).all()


def test_a_query_that_sees_nothing_gives_zero_and_no_gradient():
    r = rng()
    q, k, v = (r.normal(size=(1, 3, 1, 2)) for _ in range(3))
    mask = np.array([[False, True, True]])
    o, c = F.attention(q, k, v, causal=True, key_mask_BS=mask)
    assert not o[0, 0].any() and o[0, 1:].all()
    dq, dk, dv = F.attention_backward(np.ones_like(o), c)
    assert not dq[0, 0].any() and not dk[0, 0].any() and not dv[0, 0].any()
    assert np.isfinite(dq).all() and np.isfinite(dk).all()


def test_causal_queries_with_cached_keys_stand_at_the_end():
    r = rng()
    q, k, v = (r.normal(size=(2, 5, 2, 4)) for _ in range(3))
    whole, _ = F.attention(q, k, v, causal=True)
    last, _ = F.attention(q[:, 3:], k, v, causal=True)
    np.testing.assert_allclose(last, whole[:, 3:], rtol=1e-13)


def test_fused_cross_entropy_never_holds_all_logits():
    N, D, V = 2048, 8, 4096
    h, W = rng().normal(size=(N, D)).astype("f"), rng(1).normal(size=(V, D)).astype("f")
    target = rng(2).integers(0, V, N)

    def peak(f):
        tracemalloc.start()
        f()
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    logits = N * V * 4
    assert peak(lambda: F.linear_cross_entropy(h, W, target)) < 0.5 * logits
    assert peak(lambda: F.cross_entropy(h @ W.T, target)) > logits
    with pytest.raises(ValueError, match="piece"):
        F.linear_cross_entropy(h, W, target, piece=0)


@pytest.mark.parametrize("piece", [1, 3, 7, 100])
def test_fused_cross_entropy_does_not_depend_on_the_piece(piece):
    h, W = rng().normal(size=(7, 3)), rng(1).normal(size=(5, 3))
    target = np.array([0, -100, 4, 4, 1, -100, 2])
    loss, c = F.linear_cross_entropy(h, W, target, piece=piece)
    want, z = F.cross_entropy(h @ W.T, target)
    np.testing.assert_allclose(loss, want, rtol=1e-14)
    dh, dW = F.linear_cross_entropy_backward(1.0, c)
    np.testing.assert_allclose(dh, z @ W, rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(dW, z.T @ h, rtol=1e-12, atol=1e-16)


def test_frozen_linear_saves_no_input():
    _, (x, W, has_b) = F.linear(np.ones((2, 3)), np.ones((4, 3)), needs=("x",))
    assert x is None and W is not None and not has_b
    _, (x, W, _) = F.linear(np.ones((2, 3)), np.ones((4, 3)), needs=())
    assert x is None and W is None


def test_gelu_in_pieces_is_gelu_at_once():
    x = rng().normal(size=(700, 100))
    big, small = F.gelu_tanh(x), F.gelu_tanh(x[:10])
    assert np.array_equal(big[0][:10], small[0])
    assert np.array_equal(big[1][:10], small[1])


def test_rotary_and_conv_options_are_checked():
    with pytest.raises(ValueError, match="even"):
        F.rotary(np.ones((1, 1, 1, 3)), np.arange(1))
    with pytest.raises(ValueError, match="stride"):
        F.conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2)), stride=0)
    with pytest.raises(ValueError, match="groups"):
        F.conv2d(np.ones((1, 3, 3, 3)), np.ones((2, 1, 2, 2)), groups=2)
    with pytest.raises(ValueError, match="does not split"):
        F.qkv_attention(np.ones((6, 5)), batch=2, heads=2)
    with pytest.raises(ValueError, match="time step"):
        F.lstm(np.ones((0, 1, 2)), np.ones((1, 1)), np.ones((1, 1)), np.ones((4, 2)),
               np.ones((4, 1)), np.ones(4))  # fmt: skip
    with pytest.raises(ValueError, match="eps"):
        F.layer_norm(np.ones((1, 2)), np.ones(2), eps=-1.0)


def test_relative_position_is_all_that_rotary_keeps():
    r = rng()
    q, k = r.normal(size=(1, 1, 1, 8)), r.normal(size=(1, 1, 1, 8))

    def product(i, j):
        a = F.rotary(q, np.array([i]))[0]
        return float((a * F.rotary(k, np.array([j]))[0]).sum())

    assert product(3, 1) == pytest.approx(product(10, 8), rel=1e-12)
    assert abs(product(3, 1) - product(3, 2)) > 1e-3


# ---- cases that an independent comparison with PyTorch brought up


def test_ignored_rows_may_hold_anything():
    z = rng().normal(size=(3, 4))
    z[:, 0] = -np.inf
    target = np.array([1, -100, 2])
    loss, c = F.cross_entropy(z, target)
    assert np.isfinite(loss) and not F.cross_entropy_backward(1.0, c)[0][1].any()
    z[1] = np.nan
    assert float(F.cross_entropy(z, target)[0]) == float(loss)


def test_an_empty_batch_passes_through_convolution_and_attention():
    x, W = np.zeros((0, 4, 5, 6)), np.ones((2, 4, 3, 3))
    y, c = F.conv2d(x, W, np.ones(2))
    assert y.shape == (0, 2, 3, 4)
    dx, dW, db = F.conv2d_backward(y, c)
    assert dx.shape == x.shape and not dW.any() and not db.any()
    q, none = np.ones((2, 3, 2, 4)), np.ones((2, 0, 2, 4))
    o, c = F.attention(q, none, none)
    assert not o.any() and not F.attention_backward(q, c)[0].any()
    assert F.qkv_attention(np.ones((0, 12)), batch=2, heads=1)[0].shape == (0, 4)


@pytest.mark.parametrize("f", [F.gelu, F.gelu_tanh, F.silu, F.relu])
def test_half_precision_stays_half_and_finite(f):
    x = np.array([-300.0, -2.0, 0.0, 2.0, 300.0], np.float16)
    y, slope = f(x)
    assert y.dtype == slope.dtype == np.float16
    assert np.isfinite(y).all() and slope[-1] == 1.0 and slope[0] == 0.0


def test_sigmoid_keeps_its_digits_far_out():
    x = np.array([-700.0, -40.0, -20.0, 0.0, 20.0, 800.0])
    want = np.where(x < 0, np.exp(np.minimum(x, 0)), 1.0) / (1 + np.exp(-np.abs(x)))
    np.testing.assert_allclose(F.sigmoid(x), want, rtol=1e-14)
    assert F.silu(np.array([-40.0]))[0][0] == pytest.approx(
        -40 * np.exp(-40), rel=1e-12
    )


def test_numpy_integers_and_floats_are_numbers():
    x, W = np.ones((1, 1, 4, 4)), np.ones((1, 1, 2, 2))
    assert F.conv2d(x, W, stride=np.int64(2))[0].shape == (1, 1, 2, 2)
    a = np.ones((2, 2), np.float32)
    assert L.lora_linear(a, a, None, a, a, np.float64(0.5))[0].dtype == np.float32
    assert type(L.scaling(np.float64(8), 4)) is float


def test_softplus_keeps_its_digits_and_does_not_overflow():
    for dtype, x in ((np.float64, -40.0), (np.float32, -18.0)):
        got = softplus(np.array([x, -x], dtype))
        np.testing.assert_allclose(got, [np.exp(x), -x], rtol=1e-6)
        assert got.dtype == dtype
    assert softplus(np.array([1e4, -1e4])).tolist() == [1e4, 0.0]
