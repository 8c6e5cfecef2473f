"""The oracle against our pairs; the laws on ours; golden vectors; the strategies."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from lora_np.reference import Draw, oracle, pair
from lora_np.reference.conformance import golden, mutants
from lora_np.reference.conformance.case import COLUMNS, OPTIONS, to_dtype
from lora_np.reference.conformance.check import Check, rounding
from lora_np.reference.conformance.drawing import draw_case
from lora_np.reference.conformance.exchange import Entry, read, write
from lora_np.reference.conformance.laws import LAWS
from lora_np.reference.conformance.run import (
    ERROR,
    FAIL,
    MISSING,
    PASS,
    cells,
    run_all,
    run_cell,
)
from lora_np.reference.strategies import cases
from lora_np.reference.subjects.own import (
    ConstantNormSubject,
    OwnLayer,
    OwnSubject,
    right_pair,
)

ORACLE = {
    "lora_linear": oracle.linear, "lora_embedding": oracle.embedding,
    "lora_tied": oracle.tied, "lora_conv1d": oracle.conv, "lora_conv2d": oracle.conv,
    "lora_qkv": oracle.qkv, "lora_linear_tasks": oracle.tasks,
    "lora_lstm": oracle.lstm, "lora_self_attention": oracle.self_attention,
    "dora_linear": oracle.dora, "dora_constant_norm": oracle.dora,
}  # fmt: skip

# ---- the oracle


def short_names(problem):
    keep = {"key_mask_BS": "key_mask", "kv_heads": "kv_heads"}
    return {keep.get(k, k.split("_")[0]): v for k, v in problem.items()}


@pytest.mark.parametrize("name", ORACLE)
def test_oracle_and_pair_agree(name):
    """Outputs and every gradient, on the registry's problems: two derivations."""
    p = pair(name)
    for seed in range(12):
        d = Draw.seeded(seed, case=seed, square=seed % 3 == 0)
        problem = p.problem(d)
        y, cache = p.forward(**problem)
        ys = y if isinstance(y, tuple) else (y,)
        dys = tuple(d.array(*part.shape) for part in ys)
        dy = dys if isinstance(y, tuple) else dys[0]
        want = ORACLE[name](**short_names(problem), dy=dy)
        for i, part in enumerate(ys):
            right = want["y" if len(ys) == 1 else f"y{i}"]
            assert np.abs(part - right).max() <= 1e-12 * max(1, np.abs(right).max())
        grads = dict(zip(p.wrt, p.backward(dy, cache), strict=True))
        top = max(np.abs(g).max() for g in grads.values() if g is not None)
        for n, g in grads.items():
            right = want.get("d" + n)
            assert (g is None) == (right is None), n
            if g is not None:
                assert g.shape == right.shape
                assert np.abs(g - right).max() <= 1e-11 * top, n


def test_oracle_steps_by_hand():
    """One step of each optimizer on one number, worked out on paper."""
    one = np.ones((1, 1))
    given = {"x": 2 * one, "W": 0 * one, "A": one, "B": 3 * one, "s": 0.5}
    target = 0 * one  # y = 3, dy = 3, dB = s dy x A = 3, dA = s B dy x = 9
    after = oracle.steps(oracle.linear, given, target, 1, lr=0.1)
    assert after["B"].item() == pytest.approx(2.7) and after[
        "A"
    ].item() == pytest.approx(0.1)
    after = oracle.steps(
        oracle.linear, given, target, 1, 0.1, "adamw", lr_ratio=4, weight_decay=0.5
    )
    assert after["A"].item() == pytest.approx(1 - 0.1 * 0.5 - 0.1)
    assert after["B"].item() == pytest.approx(3 * (1 - 0.4 * 0.5) - 0.4)
    with pytest.raises(ValueError, match=r"'sgd' or 'adamw', got 'adam'"):
        oracle.steps(oracle.linear, given, target, 1, 0.1, "adam")


# ---- strategies and tolerances


def some(strategy, count):
    """So many draws."""
    found = []

    @settings(max_examples=count, database=None, derandomize=True, deadline=None,
              phases=(Phase.generate,))  # fmt: skip
    @given(strategy)
    def keep(case):
        found.append(case)

    keep()
    return found


def simplest(strategy, condition):
    """What a failing test would be shown."""
    last = []

    @settings(max_examples=300, database=None, derandomize=True, deadline=None,
              phases=(Phase.generate, Phase.shrink))  # fmt: skip
    @given(strategy)
    def attempt(case):
        if condition(case):
            last.append(case)
            raise LookupError

    with pytest.raises(LookupError):
        attempt()
    return last[-1]


SOME = [c for c in COLUMNS if c[1] == "groups" or c[0] in ("linear", "qkv")]
SOME = [c for c in SOME if c[1] in ("plain", "groups", "float16")]


@pytest.mark.parametrize("layer, option", SOME)
def test_the_simplest_case_is_readable(layer, option):
    case = simplest(cases(layer, option), lambda c: True)
    numbers = [a for a in {**case.given, **case.factors}.values()
               if isinstance(a, np.ndarray)]  # fmt: skip
    assert max(a.size for a in numbers) <= 60
    assert case.lora_alpha != case.r and all(b.any() for n, b in case.factors.items()
                                             if n[0] == "B")  # fmt: skip
    if option in ("plain", "strided", "dilated") and layer not in ("attention", "lstm"):
        floats = [a for a in numbers if a.dtype == np.float64]
        assert all((np.abs(a) == 1).all() for a in floats)


def test_cases_meet_what_inputs_must_be():
    """r = 1, r > min(in, out), square and not, repeated ids, a bias and none, α < 0."""
    wanted = {
        "r = 1": lambda c: c.r == 1,
        "r large": lambda c: c.r > min(c.W.shape),
        "square": lambda c: c.W.shape[0] == c.W.shape[1],
        "not square": lambda c: c.W.shape[0] != c.W.shape[1],
        "bias": lambda c: c.b is not None,
        "no bias": lambda c: c.b is None,
        "negative": lambda c: c.lora_alpha < 0,
    }
    drawn = some(cases("linear", "plain"), 120)
    for name, meets in wanted.items():
        assert any(map(meets, drawn)), name
    for case in some(cases("embedding", "plain"), 20):
        ids = case.given["ids"]
        assert len(ids) == 1 or len(set(ids)) < len(ids)
    assert len({(c.layer, c.option) for c in some(cases(), 200)}) > 15


def test_bfloat16_rounds_to_even_in_eight_bits():
    x = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-7, -3.14159])
    want = np.array([1.0, 1 + 2.0**-6, 1 + 2.0**-7, -3.140625])
    assert np.array_equal(to_dtype(x, "bfloat16"), want)
    assert np.array_equal(to_dtype(want, "bfloat16"), want)


@given(st.sampled_from(["float32", "float16"]), st.data())
def test_rounding_bounds_hold_and_are_not_loose(dtype, data):
    """Computed in the dtype itself: inside the bound, and a rounder unit is outside."""
    case = data.draw(cases("linear", dtype))
    f = {n: case.cast(a) for n, a in case.factors.items()}
    x, W = case.cast(case.given["x"]), case.cast(case.W)
    s = np.dtype(dtype).type(case.scale())
    y = x @ W.T + s * ((x @ f["A"].T) @ f["B"].T)
    y = y if case.b is None else y + case.cast(case.b)
    want, (bound,) = case.want()["y"], rounding(case)
    assert (np.abs(y - want) <= bound).all()
    assert (bound <= 0.2 * np.abs(case.W).sum() + 2).all()


def test_a_check_says_what_is_wrong():
    one = np.ones((1, 2))
    assert Check("y", one, one).error() == ""
    assert Check("y", one, one.T).error() == "has shape (1, 2), expected (2, 1)"
    assert Check("y", one * np.nan, one).error() == "is not finite"
    assert Check("y", one + 1, one).error() == "differs by 1 at [0, 0]"
    assert Check("y", one + 1, one, 1.0).error() == ""
    assert "got none, want some" in Check("y", "none", "some").error()


# ---- the laws


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.label.replace(" ", "_"))
def test_ours_holds_every_law_that_it_offers(law):
    """On six cases a cell; the command and the slow test below take all."""
    chosen = [run_cell(OwnSubject(), *cell, most=6) for cell in cells([law.label])]
    assert_holds(law, chosen)


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.label.replace(" ", "_"))
def test_ours_holds_every_law_on_twice_the_cases(law):
    assert_holds(law, run_all(OwnSubject(), list(cells([law.label])), effort=2))


def assert_holds(law, found):
    assert [o for o in found if o.state in (FAIL, ERROR)] == []
    offered = [o for o in found if o.state == PASS]
    assert offered or law.label == "algebra.kept effect"  # an operation of tools
    assert law.says.endswith(".") and law.why and law.run.__doc__


def test_constant_norm_dora_is_ours_too():
    chosen = list(cells(["algebra", "gradient"], ["linear"], ["dora"]))
    found = run_all(ConstantNormSubject(), chosen)
    assert [o for o in found if o.state in (FAIL, ERROR)] == []


LIKELY = ("algebra.forward", "gradient.by hand")
LAWS_LIKELY_FIRST = tuple(sorted(LAWS, key=lambda law: law.label not in LIKELY))
LORA = [  # the catalogue's pairs are rejected by test_agreement too: here they are slow
    pytest.param(m, id=m.label, marks=[pytest.mark.slow] * (m.wrong is not None))
    for m in mutants.mutants()
    if m.subject is not None
]


@pytest.mark.parametrize("mutant", LORA)
def test_a_law_catches_each_wrong_implementation(mutant):
    caught = mutants.caught_by(mutant, LAWS_LIKELY_FIRST)
    assert next(caught, None) is not None, mutant.why


@pytest.mark.slow
def test_the_whole_table():
    """Every mutant, every law; which laws are the only ones to catch something."""
    found = [mutants.Verdict(m, tuple(mutants.caught_by(m))) for m in mutants.mutants()]
    assert len(found) >= 250 and all(v.caught for v in found)
    alone = {law for law, names in mutants.unique(found).items() if names}
    assert len(alone) >= 15, alone
    text = mutants.markdown(found)
    assert "NOTHING" not in text and "life:both_zero" in text


class Scaled(OwnLayer):
    """Every gradient times a factor: how small an error does each dtype's law see?"""

    factor = 0.0

    def gradients(self, dy, *inputs):
        grads = super().gradients(dy, *inputs)
        return {n: None if g is None else self.factor * g for n, g in grads.items()}


@pytest.mark.parametrize(
    "option, smallest",
    [("plain", 1e-9), ("float32", 1e-5), ("float16", 0.05), ("bfloat16", 0.3)],
)
def test_how_large_an_error_of_the_gradient_each_dtype_lets_through(option, smallest):
    """Zero is seen everywhere, and so is `smallest`, relative."""
    law = next(law for law in LAWS if law.label == "gradient.by hand")
    for factor in (0.0, 1.0 + smallest):
        wrong = type("Wrong", (Scaled,), {"factor": factor})
        subject = OwnSubject()
        subject.layer = lambda case, n=1, w=wrong: w(case, right_pair("lora_linear"))
        outcome = run_cell(subject, law, "linear", option, shrink_seconds=0)
        assert outcome.state == FAIL, factor


def test_a_subject_that_offers_little_is_told_what_is_missing():
    class Little:
        name = "little"

        def layer(self, case):
            return object()

    law = next(law for law in LAWS if law.label == "algebra.forward")
    outcome = run_cell(Little(), law, "linear", "plain")
    assert (outcome.state, outcome.detail) == (MISSING, "forward")


def test_a_column_that_does_not_exist_is_named():
    with pytest.raises(KeyError, match="linear has no option 'groups'"):
        draw_case("linear", "groups", None)


def test_the_numbers_in_the_readme_are_those_of_the_code():
    text = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
    words = " ".join(text.split())
    assert f"{len(LAWS)} laws in seven groups" in words
    assert len({law.group for law in LAWS}) == 7 and len(OPTIONS) == 9
    assert f"all {len(mutants.mutants())} kept wrong implementations" in words
    assert f"{len(COLUMNS) * golden.EACH} cases as plain binary" in words


# ---- golden vectors


def test_the_golden_vectors_are_current():
    assert golden.differences() == []
    entries, meta = read(golden.FOLDER)
    assert meta["cases"] == len({e.case for e in entries}) >= 300
    exact = [e for e in entries if e.role == "want" and e.limit == 0]
    assert len(exact) > 500


def changed_vectors(folder, limit_of):
    entries, meta = read(golden.FOLDER)
    at = next(i for i, e in enumerate(entries) if e.role == "want" and limit_of(e))
    e = entries[at]
    array = e.array.copy()
    array.flat[0] += 2 * e.limit + 2.0**-40
    entries[at] = Entry(e.name, array, e.case, e.role, e.limit)
    write(folder, entries, meta)
    return e


def test_a_changed_vector_is_noticed(tmp_path):
    for limit_of in (lambda e: e.limit == 0 and e.name == "y", lambda e: e.limit > 0):
        e = changed_vectors(tmp_path, limit_of)
        assert any(
            f.startswith(f"{e.case} {e.name}") for f in golden.differences(tmp_path)
        )


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler called cc")
def test_the_reader_in_c(tmp_path):
    """Compiled, run on the vectors; and on one that is wrong in the last bits."""
    program = tmp_path / "read_golden"
    source = golden.FOLDER / "read_golden.c"
    subprocess.run(["cc", "-Wall", "-Werror", "-o", program, source], check=True)
    done = subprocess.run([program, golden.FOLDER], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{golden.EACH} cases, 0 wrong\n")
    changed_vectors(
        tmp_path, lambda e: e.case.startswith("linear-plain") and e.name == "y"
    )
    done = subprocess.run([program, tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, f"{golden.EACH} cases, 1 wrong\n")
    assert (
        subprocess.run([program, tmp_path / "none"], capture_output=True).returncode
        == 2
    )


def test_files_of_arrays_that_are_broken_are_named(tmp_path):
    write(tmp_path, [Entry("x", np.ones(3))], {})
    (tmp_path / "data.bin").write_bytes(b"short")
    with pytest.raises(
        ValueError, match=r"'x' of shape \[3\] does not lie in data.bin"
    ):
        read(tmp_path)
    (tmp_path / "index.json").write_text('{"format": "other", "arrays": []}')
    with pytest.raises(ValueError, match="not in the format"):
        read(tmp_path)
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        read(tmp_path)
