"""The certification itself: what it must notice, and what it must not invent."""

import numpy as np
import pytest

from lora_np.functional import linear, linear_backward, relu, relu_backward
from lora_np.numerics import Report, Row, certify, compare


def rng():
    return np.random.default_rng(5)


def square(x):
    return x * x, x


def test_passes_a_right_gradient_by_all_applicable_methods():
    report = certify(
        square, lambda dy, x: 2 * x * dy, [rng().normal(size=(3, 2))], rng=rng()
    )
    assert report.passed
    assert report.row("dx", "complex").relative <= 1e-13
    assert report.row("dx", "central").relative <= 1e-7
    assert report.row("dx", "exact").passed is None


@pytest.mark.parametrize(
    "wrong, array",
    [
        (lambda dy, x: x * dy, "dx"),
        (lambda dy, x: 2 * x * dy * (1 + 1e-6), "dx"),
        (lambda dy, x: 2 * x, "dx"),
        (lambda dy, x: (2 * x * dy).T, "dx"),
        (lambda dy, x: 2 * x * dy + np.eye(3, 2) * 1e-5, "dx"),
        (lambda dy, x: np.full_like(x, np.nan), "dx"),
        (lambda dy, x: None, "dx"),
        (lambda dy, x: 2 * x.astype(np.float32) * dy.astype(np.float32), "dx"),
    ],
)
def test_rejects_a_wrong_gradient(wrong, array):
    report = certify(square, wrong, [rng().normal(size=(3, 2))], rng=rng())
    assert not report.passed
    assert {r.array for r in report.failed} == {array}


def test_the_report_names_the_worst_entry():
    x = np.ones((2, 3))
    bump = np.zeros((2, 3))
    bump[1, 2] = 0.5
    row = certify(square, lambda dy, x: 2 * x * dy + bump, [x], rng=rng()).failed[0]
    assert row.worst == (1, 2)
    assert row.absolute == pytest.approx(0.5)
    assert row.got - row.want == pytest.approx(0.5)
    assert "worst at (1, 2)" in str(row)


def test_exact_method_compares_bit_for_bit():
    r = rng()
    x, W = r.integers(-3, 4, (3, 4)) * 1.0, r.integers(-3, 4, (2, 4)) * 1.0
    report = certify(
        linear, linear_backward, {"x_ND": x, "W_MD": W}, rng=r, exact=("x", "W")
    )
    assert report.row("dx", "exact").passed and report.row("dW", "exact").absolute == 0

    def a_bit_off(dy, cache):
        dx, dW, db = linear_backward(dy, cache)
        return dx, dW * (1 + 2**-52), db

    report = certify(linear, a_bit_off, {"x_ND": x, "W_MD": W}, rng=r, exact=("x", "W"))
    assert [(r.array, r.method) for r in report.failed] == [("dW", "exact")]


def test_exact_method_notices_a_function_that_is_not_linear():
    x = np.array([2.0, 3.0])
    report = certify(square, lambda dy, x: 2 * x * dy, [x], rng=rng(), exact=("x",))
    row = report.row("dx", "exact")
    assert row.passed is False and "not linear in entry (0,)" in row.note
    any_value = certify(
        square, lambda dy, x: (2 * x + 0.9) * dy, [x], rng=rng(), exact=("x",),
        analytic="off", central="off",
    )  # fmt: skip
    assert not any_value.passed


def test_kinks_are_counted_and_judged_by_the_two_slopes():
    x = np.array([[0.0, 1.5, -2.0]])
    report = certify(relu, relu_backward, [x], rng=rng(), analytic="branch")
    row = report.row("dx", "central")
    assert row.passed and row.kinks == 1 and "between the two slopes" in row.note

    def outside(dy, cache):
        dx = relu_backward(dy, cache)[0]
        return (np.where(x == 0, -3.0 * dy, dx),)

    assert not certify(relu, outside, [x], rng=rng(), analytic="branch").passed


def test_strong_curvature_is_no_kink():
    def soft(x):
        return np.logaddexp(0, 1e6 * x) / 1e6, x

    def slope(dy, x):
        return dy / (1 + np.exp(-1e6 * x))

    x = np.zeros(3)
    report = certify(soft, slope, [x], rng=rng(), analytic="off")
    assert report.passed and report.row("dx", "central").kinks == 0
    wrong = certify(soft, lambda dy, x: 0.7 * dy, [x], rng=rng(), analytic="off")
    assert not wrong.passed


def test_a_small_slope_beside_large_ones_is_still_a_kink():
    """A kink whose jump is a thousandth of the largest slope."""
    x = np.array([[0.0, 1.5, -2.0]])
    w = np.array([[1e-3, 1.0, 1.0]])

    def f(x):
        return w * relu(x)[0], relu(x)[1]

    report = certify(f, lambda dy, c: w * dy * c, [x], rng=rng(), analytic="branch")
    assert report.passed and report.row("dx", "central").kinks == 1


def test_an_offset_lowers_the_resolution_and_that_is_said():
    def offset(c):
        return lambda x: (x * x + c, x)

    def right(dy, x):
        return 2 * x * dy

    x = rng().normal(size=3)
    row = certify(offset(1e6), right, [x], rng=rng()).row("dx", "central")
    assert row.passed and "resolution" in (row.note or "resolution")
    wrong = certify(offset(1e6), lambda dy, x: 3 * x * dy, [x], rng=rng())
    assert wrong.row("dx", "central").passed is False
    row = certify(offset(1e12), right, [x], rng=rng()).row("dx", "central")
    assert row.passed is None and "resolves only" in row.note


def test_a_fault_beside_a_kink_is_still_seen():
    x = np.array([[0.0, 1.5, -2.0]])
    report = certify(relu, lambda dy, c: (dy,), [x], rng=rng(), analytic="branch")
    assert not report.passed


def test_zero_gradients_are_not_measured_against_noise():
    def constant(x):
        return x / x, x

    x = rng().normal(size=4) + 3
    assert certify(constant, lambda dy, x: 0 * x, [x], rng=rng()).passed
    assert not certify(constant, lambda dy, x: 0 * x + 1e-4, [x], rng=rng()).passed


def test_complex_step_has_no_floor_to_hide_behind():
    def tiny(x):
        return 1e8 + 1e-6 * x * x, x

    x = rng().normal(size=4)
    assert certify(tiny, lambda dy, x: 2e-6 * x * dy, [x], rng=rng()).passed
    wrong = certify(tiny, lambda dy, x: 2e-6 * x * dy * 1.001, [x], rng=rng())
    assert wrong.row("dx", "complex").passed is False


def test_inputs_changed_in_place_fail():
    def careless(x):
        x += 1
        return x * x, x.copy()

    report = certify(careless, lambda dy, x: 2 * x * dy, [np.ones(2)], rng=rng())
    assert any("changed in place" in r.note for r in report.failed)


@pytest.mark.parametrize("factor", [3.0, 0.0, 1 / 7])
def test_a_cotangent_changed_in_place_fails(factor):
    """It would spoil the numerical side too, and so agree with itself."""

    def careless(dy, x):
        dy *= factor
        return 2 * x * dy

    report = certify(square, careless, [rng().normal(size=3)], rng=rng())
    assert "dy" in {r.array for r in report.failed}
    assert {"dx", "dy"} == {r.array for r in report.failed}


def test_constants_changed_in_place_fail():
    def f(x, w):
        w += 1.0
        return x * 2.0, w

    inputs = {"x": rng().normal(size=3), "w": np.ones(3)}
    report = certify(f, lambda dy, w: 2.0 * dy, inputs, rng=rng(), wrt=("x",))
    assert [r.array for r in report.failed] == ["w"]


def test_names_that_are_no_inputs_are_refused():
    for option in ({"wrt": ("x", "w")}, {"exact": ("X",)}):
        with pytest.raises(ValueError, match="which is no input of the function"):
            certify(
                square, lambda dy, x: 2 * x * dy, {"x": np.ones(2)}, rng=rng(), **option
            )
    with pytest.raises(ValueError, match="a tuple of names or a sentence"):
        certify(square, square, {"x": np.ones(2)}, rng=rng(), exact="x")
    with pytest.raises(ValueError, match="whole numbers, x has others"):
        certify(square, square, {"x": np.full(2, 0.5)}, rng=rng(), exact=("x",))


def test_several_outputs_and_constants():
    def f(x, n, W):
        return (x @ W, n * x), (x, n, W)

    def b(dy, cache):
        x, n, W = cache
        return dy[0] @ W.T + n * dy[1], x.T @ dy[0]

    inputs = {"x": rng().normal(size=(2, 3)), "n": 4, "W": rng().normal(size=(3, 2))}
    assert certify(f, b, inputs, rng=rng(), wrt=("x", "W")).passed
    assert certify(
        f, b, inputs, rng=rng()
    ).passed  # n is no array, so not differentiated


def test_needs_float64_and_says_why():
    with pytest.raises(TypeError, match="x is float32.*rounding"):
        certify(square, square, {"x": np.ones(2, np.float32)}, rng=rng(), wrt=("x",))


def test_wrong_number_of_gradients():
    with pytest.raises(ValueError, match="2 gradients for 1 inputs"):
        certify(square, lambda dy, x: (x, x), [np.ones(2)], rng=rng())


def test_an_empty_report_does_not_pass():
    assert not Report(()).passed
    assert not Report((Row("dx", "exact", None, "n/a"),)).passed


def test_compare_handles_empty_and_shape():
    assert compare("a", "m", np.ones((0, 2)), np.ones((0, 2)), 1e-9).passed
    row = compare("a", "m", np.ones((3, 2)), np.ones((2, 3)), 1e-9)
    assert row.passed is False and "transposed?" in row.note


def test_the_complex_step_is_silently_wrong_through_conjugation():
    """Why pairs may not use vdot or abs: the witness itself would lie."""

    def length(x):
        return np.sqrt(np.vdot(x, x)), x

    x = rng().normal(size=3)
    report = certify(length, lambda dy, x: dy * x / np.linalg.norm(x), [x], rng=rng())
    assert report.row("dx", "central").passed
    assert report.row("dx", "complex").passed is False
