"""LoRA's own laws: initialisation, algebra, merging, counts, DoRA, the bare file."""

import runpy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_np import lora as L
from lora_np.functional import linear, linear_backward
from lora_np.lora import bare
from lora_np.numerics import certify
from lora_np.reference import Draw, pair
from lora_np.reference.strategies import problems

linear_problems = problems(pair("lora_linear"))


def rng(seed=0):
    return np.random.default_rng(seed)


# ---- scale and initialisation


def test_scale():
    assert L.scaling(16, 8) == 2.0 and L.scaling(16, 4, use_rslora=True) == 8.0
    assert L.scaling(-8, 4) == -2.0  # a negative alpha negates
    for r in (0, -1):
        with pytest.raises(ValueError, match="r must be 1 or more"):
            L.scaling(1, r)
    for r in (2.0, "4", True):
        with pytest.raises(TypeError, match="integer"):
            L.scaling(1, r)
    with pytest.raises(ValueError, match="finite"):
        L.scaling(float("nan"), 4)


def test_kaiming_reads_the_right_fan_in():
    A = L.kaiming_uniform((16, 768), rng(), np.float64)
    bound = 768**-0.5
    assert 0.99 * bound < np.abs(A).max() <= bound
    assert A.std() == pytest.approx(bound / 3**0.5, rel=0.02)
    wrong = L.kaiming_uniform((768, 16), rng(), np.float64)  # stored (in, r)
    assert np.abs(wrong).max() / np.abs(A).max() == pytest.approx(6.93, rel=0.01)
    conv = L.kaiming_uniform((8, 4, 3, 3), rng(), np.float64)
    assert 0.9 / 6 < np.abs(conv).max() <= 1 / 6  # fan-in 4·3·3
    with pytest.raises(ValueError, match="fan-in"):
        L.kaiming_uniform((2, 0), rng())


@pytest.mark.parametrize("method", [True, "gaussian"])
def test_exactly_one_factor_starts_at_zero(method):
    A, B = L.init_lora((4, 300), (5, 4), rng(), method, np.float64)
    assert A.all() and not B.any() and A.shape == (4, 300) and B.shape == (5, 4)
    A, B = L.init_lora_embedding((4, 6), (5, 4), rng(), method)
    assert not A.any() and B.all() and B.dtype == np.float32
    if method == "gaussian":
        assert L.init_lora((4, 9000), (5, 4), rng(), method)[0].std() == pytest.approx(
            1 / 4, rel=0.02
        )


def test_false_starts_with_both_and_zeros_is_refused():
    for init in (L.init_lora, L.init_lora_embedding):
        A, B = init((4, 6), (5, 4), rng(), False)
        assert A.any() and B.any()
        with pytest.raises(ValueError, match="never train.*stay exactly 0"):
            init((4, 6), (5, 4), rng(), "zeros")
        with pytest.raises(ValueError, match="one of"):
            init((4, 6), (5, 4), rng(), "pissa")
        with pytest.raises(ValueError, match="r must be"):
            init((0, 6), (5, 0), rng())


def test_both_zero_is_dead_and_one_zero_is_not():
    x, W, dy = rng().normal(size=(4, 6)), rng(1).normal(size=(5, 6)), np.ones((4, 5))
    zero_A, zero_B = np.zeros((2, 6)), np.zeros((5, 2))
    A, _ = L.init_lora((2, 6), (5, 2), rng(), dtype=np.float64)

    def gradients(A, B):
        _, cache = L.lora_linear(x, W, None, A, B, 2.0)
        return L.lora_linear_backward(dy, cache)[2:]

    dA, dB = gradients(zero_A, zero_B)
    assert not dA.any() and not dB.any()
    dA, dB = gradients(A, zero_B)
    assert not dA.any() and dB.all()  # A moves from the second step on


# ---- algebra, on drawn problems


def gradients(p, dy, **changed):
    y, cache = L.lora_linear(**{**p, **changed})
    return dict(
        zip(("x", "b", "A", "B"), L.lora_linear_backward(dy, cache), strict=True)
    )


@given(linear_problems)
def test_gradients_are_those_of_the_dense_update(p):
    """dA = s Bᵀ dW and dB = s dW Aᵀ with dW = dyᵀ x_d, which is never formed."""
    dy = rng().normal(size=(p["x_ND"].shape[0], p["W_MD"].shape[0]))
    g = gradients(p, dy)
    xd = (
        p["x_ND"]
        if p.get("mask_ND") is None
        else p["x_ND"] * p["mask_ND"] / (1 - p["p"])
    )
    dW, s = dy.T @ xd, p["s"]
    np.testing.assert_allclose(g["A"], s * p["B_MR"].T @ dW, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(g["B"], s * dW @ p["A_RD"].T, rtol=1e-9, atol=1e-12)
    inner_A, inner_B = (p["A_RD"] * g["A"]).sum(), (p["B_MR"] * g["B"]).sum()
    np.testing.assert_allclose(inner_A, inner_B, rtol=1e-9, atol=1e-10)
    both = p["B_MR"].T @ g["B"], g["A"] @ p["A_RD"].T
    np.testing.assert_allclose(*both, rtol=1e-9, atol=1e-10)


@given(linear_problems)
def test_output_depends_on_the_product_alone(p):
    """(A, B) → (M A, B M⁻¹) changes nothing; scale 0 is the base; rank(ΔW) ≤ r."""
    r = p["A_RD"].shape[0]
    M = rng().normal(size=(r, r)) + 3 * np.eye(r)
    turned = {"A_RD": M @ p["A_RD"], "B_MR": p["B_MR"] @ np.linalg.inv(M)}
    y = L.lora_linear(**p)[0]
    np.testing.assert_allclose(
        L.lora_linear(**{**p, **turned})[0], y, rtol=1e-8, atol=1e-8
    )
    base = L.lora_linear(**{**p, "s": 0.0})[0]
    b = 0.0 if p["b_M"] is None else p["b_M"]
    np.testing.assert_allclose(
        base, p["x_ND"] @ p["W_MD"].T + b, rtol=1e-12, atol=1e-12
    )
    delta = L.delta_weight(p["A_RD"], p["B_MR"], p["s"])
    assert np.linalg.matrix_rank(delta) <= r


@given(linear_problems)
def test_the_mean_over_masks_is_evaluation_mode(p):
    """Over all masks with their probabilities, so merging needs no rescale."""
    x = p["x_ND"][:1, :3]
    D = x.shape[1]
    W, A = p["W_MD"][:, :D], p["A_RD"][:, :D]
    given_ = {"W_MD": W, "b_M": p["b_M"], "A_RD": A, "B_MR": p["B_MR"], "s": p["s"]}
    q, total = 0.3, 0.0
    for bits in np.ndindex(*(2,) * D):
        mask = np.array([bits], bool)
        weight = np.prod(np.where(mask, 1 - q, q))
        total = total + weight * L.lora_linear(x, **given_, mask_ND=mask, p=q)[0]
    np.testing.assert_allclose(
        total, L.lora_linear(x, **given_)[0], rtol=1e-9, atol=1e-9
    )


@given(st.integers(0, 10**6))
def test_lora_qkv_is_the_block_diagonal_update(seed):
    p = pair("lora_qkv").problem(Draw.seeded(seed))
    factors = [(p[f"A{c}_RD"], p[f"B{c}_{'Q' if c == 'q' else 'K'}R"]) for c in "qkv"]
    D = p["x_ND"].shape[1]
    rows = [np.zeros((w, D)) if A is None else p["s"] * B @ A
            for (A, B), w in zip(factors, p["widths"], strict=True)]  # fmt: skip
    W = p["W_CD"] + np.vstack(rows)
    b = 0.0 if p["b_C"] is None else p["b_C"]
    np.testing.assert_allclose(L.lora_qkv(**p)[0], p["x_ND"] @ W.T + b, atol=1e-10)


def test_lora_qkv_refuses_halves_and_nothing():
    x, W, A, B = np.ones((2, 3)), np.ones((6, 3)), np.ones((1, 3)), np.ones((2, 1))
    with pytest.raises(ValueError, match="both Aq and Bq"):
        L.lora_qkv(x, W, None, A, None, None, None, None, None, 1.0, (2, 2, 2))
    with pytest.raises(ValueError, match="at least one"):
        L.lora_qkv(x, W, None, None, None, None, None, None, None, 1.0, (2, 2, 2))
    with pytest.raises(ValueError, match="widths"):
        L.lora_qkv(x, W, None, A, B, None, None, None, None, 1.0, (2, 2, 3))


def test_convolution_update_has_rank_r_in_every_group_and_merges():
    r, g = 4, 2
    x = rng().normal(size=(2, 4, 6, 7))
    W, A = rng(1).normal(size=(6, 2, 3, 2)), rng(2).normal(size=(r, 2, 3, 2))
    B = rng(3).normal(size=(6, r // g, 1, 1))
    options = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": g}
    from lora_np.functional import conv2d

    delta = L.delta_weight(A, B, 0.7, groups=g)
    assert delta.shape == W.shape
    for block in delta.reshape(g, 3, -1):
        assert np.linalg.matrix_rank(block) == r // g
    merged, _ = conv2d(x, L.merge(W, delta), None, **options)
    np.testing.assert_allclose(
        L.lora_conv2d(x, W, None, A, B, 0.7, **options)[0], merged, atol=1e-12
    )
    with pytest.raises(ValueError, match="multiple of the 2 groups"):
        L.lora_conv2d(x, W, None, A[:3], B, 0.7, **options)
    with pytest.raises(ValueError, match="multiples of"):
        L.delta_weight(A[:3], B, 0.7, groups=g)


# ---- merging


@given(linear_problems, st.sampled_from([np.float64, np.float32, np.float16]))
def test_merge_and_round_trip_stay_within_their_bounds(p, dtype):
    W = p["W_MD"].astype(dtype)
    A, B, s = p["A_RD"], p["B_MR"], p["s"]
    delta = L.delta_weight(A, B, s)
    merged = L.merge(W, delta)
    assert merged.dtype == dtype and merged is not W
    wide = np.longdouble
    exact = W.astype(wide) + wide(s) * (B.astype(wide) @ A.astype(wide))
    bound = L.merge_bound(W, A, B, s)
    assert (np.abs(merged.astype(wide) - exact) <= bound).all()
    back = L.unmerge(merged, delta)
    round_trip = L.round_trip_bound(W, A, B, s)
    assert (np.abs(back.astype(wide) - W) <= round_trip).all()
    # and the bounds are worth something: a few units in the last place
    size = (
        np.abs(exact).max()
        + np.abs(W).max()
        + np.abs(s) * (np.abs(B) @ np.abs(A)).max()
    )
    assert round_trip.max() <= 12 * np.finfo(dtype).eps * size + 1e-6 * (
        dtype == np.float16
    )


def test_a_merge_that_ignores_the_scale_breaks_the_bound():
    W, A, B = (
        rng().normal(size=(3, 4)),
        rng(1).normal(size=(2, 4)),
        rng(2).normal(size=(3, 2)),
    )
    wrong = L.merge(W, L.delta_weight(A, B, 1.0))
    exact = W + 0.5 * B @ A
    assert (np.abs(wrong - exact) > L.merge_bound(W, A, B, 0.5)).any()


def test_embedding_bound_takes_the_transposed_layout():
    for V, D in ((7, 3), (5, 5)):  # the square one too, where a guess would go wrong
        E = rng(3).normal(size=(V, D)).astype(np.float32)
        A, B = rng().normal(size=(2, V)), rng(1).normal(size=(D, 2))
        merged = L.merge(E, L.delta_weight(A, B, 0.5).T)
        exact = E.astype(np.longdouble) + 0.5 * (B @ A).T
        assert (
            np.abs(merged - exact) <= L.merge_bound(E, A, B, 0.5, transposed=True)
        ).all()
        assert L.round_trip_bound(E, A, B, 0.5, transposed=True).shape == E.shape
    with pytest.raises(ValueError, match="transposed=True"):
        L.merge_bound(np.ones((7, 3)), np.ones((2, 7)), np.ones((3, 2)), 0.5)


def test_merging_in_any_order_agrees_within_rounding():
    W = rng().normal(size=(4, 5))
    d1, d2 = (
        L.delta_weight(rng(i).normal(size=(2, 5)), rng(i + 5).normal(size=(4, 2)), 0.5)
        for i in (1, 2)
    )
    one, two = L.merge(L.merge(W, d1), d2), L.merge(L.merge(W, d2), d1)
    np.testing.assert_allclose(
        one, two, rtol=0, atol=4 * np.finfo(float).eps * np.abs(one).max()
    )


def test_merge_errors():
    with pytest.raises(OverflowError, match="float16"):
        L.merge(np.full((1, 1), 60000, np.float16), np.full((1, 1), 10000.0))
    with pytest.raises(ValueError, match="delta must be"):
        L.merge(np.ones((2, 3)), np.ones((3, 2)))
    with pytest.raises(TypeError, match="W must be"):
        L.merge(np.ones((2, 3), int), np.ones((2, 3)))
    assert L.merge(np.ones((0, 3)), np.ones((0, 3))).shape == (0, 3)


# ---- DoRA


def dora():
    W, A, B = (
        rng(1).normal(size=(5, 4)),
        rng(2).normal(size=(2, 4)),
        rng(3).normal(size=(5, 2)),
    )
    m = np.abs(rng(4).normal(size=5)) + 0.5
    return {"x_ND": rng().normal(size=(6, 4)), "W_MD": W, "b_M": rng(5).normal(size=5),
            "A_RD": A, "B_MR": B, "m_M": m, "s": 0.7}  # fmt: skip


def test_dora_starts_as_the_base():
    p = dora() | {"B_MR": np.zeros((5, 2))}
    p["m_M"] = L.row_norm(p["W_MD"])
    y, _ = L.dora_linear(**p)
    np.testing.assert_allclose(
        y, p["x_ND"] @ p["W_MD"].T + p["b_M"], rtol=1e-13, atol=1e-13
    )


def test_the_detached_norm_is_not_the_derivative():
    """PEFT's gradient fails against the function, by a large part, and passes against
    the function with its norm held constant."""
    p = dora()
    constant = p | {"norm_M": L.row_norm(p["W_MD"] + p["s"] * p["B_MR"] @ p["A_RD"])}

    def as_peft(dy, cache):
        return L.dora_linear_backward(dy, (*cache[:7], False, *cache[8:]))

    full = certify(L.dora_linear, as_peft, p, rng=rng())
    assert {r.array for r in full.failed} == {"dA", "dB"}
    assert 0.05 < full.row("dA", "complex").relative < 5
    assert certify(L.dora_linear, L.dora_linear_backward, constant, rng=rng()).passed


def test_dora_gradient_is_orthogonal_to_the_direction():
    """Stretching a row of V changes nothing, so ⟨dV_i, V_i⟩ = 0 for the full one."""
    p = dora()
    V = p["W_MD"] + p["s"] * p["B_MR"] @ p["A_RD"]
    one = {**p, "A_RD": np.eye(4), "B_MR": V - p["W_MD"], "s": 1.0}
    _, cache = L.dora_linear(**one)
    dB = L.dora_linear_backward(np.ones((6, 5)), cache)[3]  # with A = I this is dV
    np.testing.assert_allclose((dB * V).sum(1), 0, atol=1e-12)


def test_a_zero_row_has_a_defined_answer():
    p = dora()
    p["W_MD"][2] = -p["s"] * (p["B_MR"] @ p["A_RD"])[2]
    y, cache = L.dora_linear(**p)
    np.testing.assert_array_equal(y[:, 2], np.full(6, p["b_M"][2]))
    grads = L.dora_linear_backward(np.ones((6, 5)), cache)
    assert all(np.isfinite(g).all() for g in grads)
    assert grads[4][2] == 0 and not grads[3][2].any()


# ---- counts


def test_paper_figures():
    gpt3 = [(12288, 12288)] * (2 * 96)
    assert L.lora_parameters(gpt3, 1) == 4_718_592
    assert L.lora_parameters(gpt3, 4) == 18_874_368
    assert L.lora_parameters(gpt3, 8) == 37_748_736
    assert L.lora_parameters([(768, 768)] * (2 * 12), 8) == 294_912  # RoBERTa-base
    saved = L.memory(0, L.lora_parameters(gpt3, 4), weight_bytes=2).checkpoint
    assert saved / 1e6 == pytest.approx(37.7, abs=0.05)
    assert saved / 2**20 == 36.0
    square = [(768, 768)]
    assert L.lora_step_flops(square, 8) / L.full_step_flops(square) == 0.6875


def test_memory_counts_only_what_is_trained():
    lora, full = L.memory(1000, 10), L.memory(0, 1000)
    assert (lora.weights, lora.gradients, lora.optimizer, lora.checkpoint) == (
        4040, 40, 80, 40)  # fmt: skip
    assert full.total == 4000 + 4000 + 8000 and lora.total == 4040 + 40 + 80
    assert L.memory(0, 10, moments=1).optimizer == 40
    with pytest.raises(ValueError, match="0 or more"):
        L.memory(-1, 1)
    with pytest.raises(ValueError, match="r must be"):
        L.lora_parameters([(2, 2)], 0)
    with pytest.raises(ValueError, match="r must be"):
        L.lora_step_flops([(2, 2)], 0)


# ---- the method in bare lines


def test_the_bare_file_is_short_and_alone():
    source = open(bare.__file__, encoding="utf-8").read()
    lines = source.strip().split("\n")
    assert len(lines) <= 60
    assert [ln for ln in lines if "import" in ln] == ["import numpy as np"]


def test_the_bare_file_runs_and_learns(capsys):
    runpy.run_path(bare.__file__, run_name="__main__")
    loss, difference = (
        float(ln.split()[1]) for ln in capsys.readouterr().out.split("\n")[:2]
    )
    assert loss < 1e-5 and difference < 1e-13


@given(linear_problems)
def test_the_bare_file_computes_the_same(p):
    x, W, A, B, s = (p[k] for k in ("x_ND", "W_MD", "A_RD", "B_MR", "s"))
    b = np.zeros(W.shape[0]) if p["b_M"] is None else p["b_M"]
    dy = rng().normal(size=(x.shape[0], W.shape[0]))
    y, cache = bare.forward(x, W, b, A, B, s)
    want, full = L.lora_linear(x, W, b, A, B, s)
    np.testing.assert_allclose(y, want, rtol=1e-12, atol=1e-12)
    dx, dA, dB = bare.backward(dy, cache, W, A, B, s)
    wx, _, wA, wB = L.lora_linear_backward(dy, full)
    for got, w in ((dx, wx), (dA, wA), (dB, wB)):
        np.testing.assert_allclose(got, w, rtol=1e-11, atol=1e-12)
    merged = L.merge(W, L.delta_weight(A, B, s))
    np.testing.assert_allclose(bare.merge(W, A, B, s), merged, rtol=1e-13)


def test_the_bare_initialisation_and_optimizer_are_ours():
    from lora_np.nn import Parameter
    from lora_np.training import AdamW

    A, B = bare.init(5, 7, 2, rng(3))
    want_A, want_B = L.init_lora((2, 7), (5, 2), rng(3), dtype=np.float64)
    np.testing.assert_array_equal(A, want_A)
    np.testing.assert_array_equal(B, want_B)
    p, state = Parameter(A.copy()), None
    ours = AdamW([p], lr=0.1, weight_decay=0.01)
    for i in range(4):
        p.grad = rng(i).normal(size=A.shape)
        ours.step()
        A, state = bare.adamw(A, p.grad, state, lr=0.1)
        np.testing.assert_allclose(A, p.data, rtol=1e-12)


# ---- tests that a mutation run asked for


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_bounds_are_the_documented_formulas(dtype):
    W = np.array([[0.0, 3.0], [-2.0, 0.5]], dtype)
    A, B, s = np.array([[0.0, 2.0]]), np.array([[1.0], [-3.0]]), 0.5
    total, size = np.abs(W + s * B @ A), s * np.abs(B) @ np.abs(A)
    info = np.finfo(dtype)
    eps, tiny = float(info.eps), float(info.smallest_subnormal)
    sums = 2.0**-53 * (total + 3 * size)
    merging = 0.5 * eps * (total + sums) + sums + 0.5 * tiny
    assert np.array_equal(L.merge_bound(W, A, B, s), merging)
    back = 2 * merging + 0.5 * eps * (np.abs(W) + 2 * merging) + tiny
    assert np.array_equal(L.round_trip_bound(W, A, B, s), back)


def test_convolutions_of_one_group_need_not_say_so():
    A, B = rng().normal(size=(2, 3, 5)), rng(1).normal(size=(4, 2, 1))
    W = np.ones((4, 3, 5))
    want = 0.5 * np.einsum("or,rck->ock", B[..., 0], A)
    np.testing.assert_allclose(L.delta_weight(A, B, 0.5), want, rtol=1e-13)
    assert L.merge_bound(W, A, B, 0.5).shape == W.shape
    assert L.round_trip_bound(W, A, B, 0.5).shape == W.shape


def test_delta_and_merge_check_what_they_get():
    with pytest.raises(TypeError, match="floating"):
        L.delta_weight(np.ones((2, 3), int), np.ones((5, 2)), 1.0)
    with pytest.raises(ValueError, match="multiples of"):
        L.delta_weight(np.ones((4, 2, 3)), np.ones((5, 2, 1)), 1.0, groups=2)
    with pytest.raises(ValueError, match="B must be"):
        L.delta_weight(np.ones((4, 2, 3)), np.ones((6, 4, 1)), 1.0, groups=2)
    with pytest.raises(TypeError, match="delta"):
        L.merge(np.ones((1, 1)), np.ones((1, 1), int))
    most = np.full((1, 1), 65504, np.float16)
    assert L.merge(most, np.zeros((1, 1)))[0, 0] == 65504  # the limit itself is legal


def test_the_gaussian_is_centred():
    A, _ = L.init_lora((4, 9000), (5, 4), rng(), "gaussian", np.float64)
    assert abs(A.mean()) < 0.01
    for method in (1, 0, None):
        with pytest.raises(ValueError, match="one of"):
            L.init_lora((2, 3), (4, 2), rng(), method)


def test_ranks_and_groups_of_nothing_are_refused():
    x, W = np.ones((1, 2, 4, 4)), np.ones((2, 2, 2, 2))
    A, B = np.ones((2, 2, 2, 2)), np.ones((2, 2, 1, 1))
    for Ax, Bx, g in ((A[:0], B[:, :0], 1), (A, B, 0)):
        with pytest.raises(ValueError, match="positive multiple"):
            L.lora_conv2d(x, W, None, Ax, Bx, 1.0, groups=g)


def same(f, few, many):
    assert np.array_equal(f(*few)[0], f(*few, *many)[0])


def test_defaults_are_what_they_say():
    r = rng()
    x, W, b = r.normal(size=(2, 2, 5, 6)), r.normal(size=(3, 2, 2, 2)), r.normal(size=3)
    A, B = r.normal(size=(2, 2, 2, 2)), r.normal(size=(3, 2, 1, 1))
    same(L.lora_conv2d, (x, W, b, A, B, 0.5), (1, 0, 1, 1, None, 0.0))
    flat = (x[:, :, 0], W[:, :, 0], b, A[:, :, 0], B[:, :, 0], 0.5)
    same(L.lora_conv1d, flat, (1, 0, 1, 1, None, 0.0))
    mask = r.random(x.shape) < 0.5
    two = L.lora_conv2d(x, W, b, A, B, 0.5, mask=mask)[0]
    assert np.array_equal(two, L.lora_conv2d(x, W, b, A, B, 0.5, mask=mask, p=0.0)[0])
    one = L.lora_conv1d(*flat, mask=mask[:, :, 0])[0]
    assert np.array_equal(one, L.lora_conv1d(*flat, mask=mask[:, :, 0], p=0.0)[0])
    rows = r.normal(size=(4, 3)), r.normal(size=(5, 3)), None
    factors = r.normal(size=(2, 3)), r.normal(size=(5, 2)), 0.5
    same(L.lora_linear, (*rows, *factors, r.random((4, 3)) < 0.5), (0.0,))
    p = pair("lora_self_attention").problem(Draw.seeded(1))
    p = {k: v for k, v in p.items() if k not in ("causal", "key_mask_BS")}
    y = L.lora_self_attention(**p)[0]
    assert np.array_equal(y, L.lora_self_attention(**p, causal=True)[0])
    assert not np.allclose(y, L.lora_self_attention(**p, causal=False)[0])


def test_no_bias_no_gradient_of_one():
    x, W, b = np.ones((2, 3)), np.ones((4, 3)), np.ones(4)
    for given_, needs in (((x, W), ("x", "W", "b")), ((x, W, b), ("x",))):
        _, cache = linear(*given_, needs=needs)
        assert linear_backward(np.ones((2, 4)), cache)[2] is None
    A, B = np.ones((1, 3)), np.ones((2, 1))
    factors = (A, B, None, None, None, None)
    _, cache = L.lora_qkv(x, W, None, *factors, 1.0, (2, 1, 1))
    assert L.lora_qkv_backward(np.ones((2, 4)), cache)[1] is None


@pytest.mark.parametrize("widths", [(2, 1, 1, 0), (2, 2)])
def test_widths_are_three(widths):
    A, B = np.ones((1, 3)), np.ones((2, 1))
    with pytest.raises(ValueError):
        L.lora_qkv(np.ones((2, 3)), np.ones((4, 3)), None, A, B, None, None, None, None,
                   1.0, widths)  # fmt: skip


def test_counts_cannot_be_changed():
    with pytest.raises(AttributeError):
        L.memory(1, 1).weights = 0
