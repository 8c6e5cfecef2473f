"""Exercises: every grader accepts, rejects and names what it must; the terminal."""

import ast
import dataclasses
import functools
import itertools
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from lora_np.cli.exercises import wait
from lora_np.cli.main import main
from lora_np.exercises import catalogue, check, interview, report, stubs
from lora_np.exercises.candidate import Direct, ForkedAnswer
from lora_np.exercises.cases import Cases
from lora_np.exercises.check import check_file, grade_words, verdict_of
from lora_np.exercises.compare import in_words
from lora_np.exercises.diagnose import alike, made
from lora_np.exercises.exercise import (
    KINDS,
    Law,
    as_tuple,
    mistake,
    mistakes,
    probes,
)
from lora_np.exercises.gate import from_case, stub_functions, trials
from lora_np.exercises.grade import grade
from lora_np.exercises.progress import Progress
from lora_np.exercises.worker import Made, Strange, pack, unpack

ROOT = Path(__file__).parent.parent
ALL = catalogue.exercises()
CODE = [e for e in ALL if e.functions]
WORDS = [e for e in ALL if e.kind == "explain"]
E19 = catalogue.load("e19")


def by_id(e):
    return e.id


# ---- the catalogue


def test_there_are_enough_exercises_of_every_kind_on_a_path():
    assert len(ALL) >= 30 and {e.kind for e in ALL} == set(KINDS)
    seen = set()
    for e in ALL:
        assert set(e.needs) <= seen, f"{e.id} needs what comes later"
        seen.add(e.id)
    names = [f.__name__ for e in ALL for f in e.functions]
    assert len(set(names)) == len(names)  # check(function) finds the exercise by name


@pytest.mark.parametrize("e", ALL, ids=by_id)
def test_the_form_of_an_exercise(e):
    assert e.kind in KINDS and 1 <= e.difficulty <= 3 and 3 <= e.minutes <= 20
    assert len(e.hints) == 3 and e.hints[2].count("____") == 1
    assert "____" not in e.hints[0] + e.hints[1]
    assert len(e.follow_ups) == 2 and all(q.endswith("?") for q, _ in e.follow_ups)
    assert e.why.strip() and e.ask.strip() and e.read
    for chapter in re.findall(r"chapters? (\d\d)", e.read):
        assert list((ROOT / "chapters").glob(f"{chapter}_*.ipynb")), chapter
    for path in re.findall(r"lora_np/[\w/]+\.py", e.read):
        assert (ROOT / path).is_file(), path
    if e.kind == "explain":
        assert e.numbers and len(e.rubric) >= 4
        return
    assert {f.__name__ for f in e.functions} == set(stub_functions(e))
    assert len(e.returns) % len(e.functions) == 0
    if e.kind == "find the bug":
        assert len(e.found) == len(e.functions) and len(e.others) >= 2
    else:
        assert len(e.mistakes) >= (10 if e is E19 else 6) and len(e.others) >= 3


def test_the_seven_questions_of_the_second_article_are_there():
    text = " ".join(e.ask for e in WORDS)
    text = " ".join(text.split())
    assert "(D1, question 1)" in text
    assert all(f"question {n}" in text for n in range(2, 8))


def bare(line):
    return "".join(line.split("#")[0].split())


@pytest.mark.parametrize("e", CODE, ids=by_id)
def test_hints_do_not_contain_the_solution(e):
    told = "".join(map(bare, "\n".join(e.hints).split("\n")))
    found = "".join(map(stubs.source, e.found))
    for function in e.functions:
        node = ast.parse(stubs.source(function)).body[0]
        for statement in node.body[1:]:
            line = bare(ast.unparse(statement))
            if len(line) > 24 and line not in "".join(map(bare, found.split("\n"))):
                assert line not in told


@pytest.mark.parametrize("e", CODE, ids=by_id)
def test_no_two_mistakes_are_the_same_answer(e):
    """On the probes, by which mistakes are told apart."""
    answers = {"right": [as_tuple(e.functions[0](**only(e, c))) for c in probes(e)]}
    with np.errstate(all="ignore"):
        for m in e.mistakes:
            answers[m.name] = [quietly(m, c) for c in probes(e)]
    for a, b in itertools.combinations(answers, 2):
        pairs = zip(answers[a], answers[b], strict=True)
        assert not all(alike(x, y) for x, y in pairs), (a, b)


def only(e, case):
    return {p: made(case)[p] for p in e.parameters()}


def quietly(m, case):
    try:
        return m.compute(made(case))
    except Exception:
        return None


# ---- the gate


@pytest.mark.parametrize("e", CODE, ids=by_id)
def test_the_gate(e):
    """The stub is not started, right answers pass, each mistake gets its own name."""
    wrong = [f"{t.answer}: found {t.found}" for t in trials(e) if not t.right]
    assert wrong == []


def test_the_gate_notices_a_grader_that_is_blind():
    """Kept wrong graders: with s = 1 a missing scale passes; a loose one; a rename."""

    def no_scale(d):
        return {**E19.laws[0].case(d), "s": 1.0}

    def misses(**changed):
        found = trials(dataclasses.replace(E19, **changed))
        return {t.answer for t in found if not t.right}

    assert "dA_not_scaled" in misses(laws=(Law("{arrays}", no_scale),))
    loose = Law("{arrays}", E19.laws[0].case, tolerance=100.0)
    assert "dB_mean" in misses(laws=(loose,))
    twice = mistakes(
        E19.functions[0], E19.returns,
        mistake("one", "one thing", dA=lambda c: 0 * c.A),
        mistake("two", "the same again", dA=lambda c: 0 * c.A),
        mistake("right", "no mistake at all", dA=lambda c: E19.functions[0](
            **{k: v for k, v in vars(c).items()})[1]),
    )  # fmt: skip
    assert {"two", "right"} <= misses(mistakes=twice)
    assert "other 1" in misses(others=(lambda c: (c.x, c.A, c.B),))


def test_probes_have_pairwise_different_sizes():
    for seed in range(20):
        sizes = Cases.probe(seed).sizes(4)
        assert len(set(sizes)) == 4 and min(sizes) >= 2


# ---- explanations


@pytest.mark.parametrize("e", WORDS, ids=by_id)
def test_an_explanation_is_checked_by_its_numbers(e):
    right = {n.name: n.want() for n in e.numbers}
    words = "a few sentences that say what the numbers above mean for LoRA, and why"
    assert grade_words(e, {}).state == "not started"
    passed = grade_words(e, {**right, "answer": words})
    assert passed.passed
    assert all(point in report.text(passed) for point in e.rubric)
    assert f"solution {e.id}" in report.text(passed)
    silent = grade_words(e, right)
    assert not silent.passed and e.rubric[0] not in report.text(silent)
    for n in e.numbers:
        for says, value in n.wrong.items():
            wrong = grade_words(e, {**right, n.name: value(), "answer": words})
            assert not wrong.passed and says in report.text(wrong), (n.name, says)
        for value in ("many", None, float("nan"), n.want() * 1.2 + 1):
            wrong = grade_words(e, {**right, n.name: value, "answer": words})
            assert not wrong.passed and e.rubric[0] not in report.text(wrong)
    with pytest.raises(TypeError, match=r"asks for .*; got nonsense"):
        grade_words(e, {"nonsense": 1})


# ---- answers that go wrong

V = "v = s * (dy @ B)\n"
RIGHT = V + "return dy @ W + v @ A, v.T @ x, s * dy.T @ (x @ A.T)"
BAD = {  # body -> what the report must say
    "pass": "Nothing was returned (None): is `return dx, dA, dB` missing?",
    "return [dy, x, A]": "Returned a list of 3; return a tuple of 3: dx, dA, dB.",
    "return dy, x": "Returned 2 values; return 3: dx, dA, dB.",
    "return x": "Returned an array of shape (1, 1); return a tuple of 3",
    "return x.tolist(), A, B": "dx is a list of 1, not a NumPy array.",
    "return x, object(), B": "dA is an object, of which no number can be read.",
    "return x, np.array([None]), B": "dA is an array of dtype object",
    "return 1j * x, A, B": "dx is complex; the inputs are real.",
    "return x.astype(int), A, B": "dx has dtype int64; the inputs are float.",
    "return np.nan * x, A, B": "dx is not finite",
    "return np.linalg.inv(0 * dy @ dy.T), A, B": "LinAlgError: Singular matrix",
    "y = dy @ B\nz = y @ undefined\nreturn z": "line 19: z = y @ undefined",
    "import sys\nsys.exit()": "Your code raised SystemExit.\n  line 19: sys.exit()",
    "import os\nos._exit(0)": "The process that ran your code ended by itself",
    "import os\nos.kill(os.getpid(), 11)": "The process that ran your code ended",
    "return lora_backward(dy, x, W, A, B, s)": "RecursionError",
    "while True:\n    pass": "Your code was stopped after 2 s: an endless loop?",
    "return np.ones(10**10)": "Your code asked for more than 2 GiB of memory",
    "import lora_np": "an answer is written without lora_np",
    "import importlib\nimportlib.import_module('lora_np.lora')": "without lora_np",
    "input()": "EOFError",
    RIGHT.replace("return", "x += 1\nreturn"): "dA and dB are not the derivative",
    "r = " + RIGHT.split("return ")[1].replace("v", V[4:-1]) + "\nx += 1\nreturn r":
        "The input x was changed in place",
    RIGHT.replace("s * (dy", "np.float64(s) * (dy"): "The inputs are float32, but dx",
    RIGHT.replace("v.T @ x,", "v.T @ x * np.random.rand(),"):
        "The same input gave two different results",
    RIGHT.replace("return dy @ W", "return -dy @ W").replace("+ v", "- v"):
        "dx has the opposite sign.",
    RIGHT.replace("v.T @ x,", "v.T @ x * len(x),"): "dA is dy.shape[0] times",
    RIGHT.replace("v.T @ x,", "v.T @ x / s**2,"): "constant ratio to the right one",
    RIGHT.replace("v.T @ x,", "v.T @ x * 5,"): "dA is 5 times what it should be",
    V + "return dy @ W + v @ A, s * dy.T @ (x @ A.T), v.T @ x":
        "dA holds what dB should: check the order of `return`.",
    V + "return dy @ W, v.T @ x / s, s * dy.T @ (x @ A.T)":
        "dx = dy W, as if the adapter did not see x.\nYou computed dA = (dy B)ᵀ x",
    "import time\ntime.sleep(0.4)\n" + RIGHT: "A call takes 0.4",
}  # fmt: skip


def answer_file(folder, text):
    path = folder / E19.file
    path.write_text(text, encoding="utf-8")
    return path


def with_body(body):
    lead = stubs.stub(E19).split("    raise")[0]
    return lead + textwrap.indent(body, "    ") + "\n"


@pytest.mark.parametrize("body, says", BAD.items(), ids=range(len(BAD)))
def test_a_bad_answer_gets_a_true_sentence(tmp_path, body, says):
    verdict = check_file(E19, answer_file(tmp_path, with_body(body)))
    text = report.text(verdict)
    assert verdict.state == "failed" and says in text, text
    assert "Traceback" not in text and str(tmp_path) not in text


def test_the_right_answer_passes_from_a_file(tmp_path):
    assert check_file(E19, answer_file(tmp_path, with_body(RIGHT))).passed
    other_order = with_body(RIGHT).replace("(dy, x, W, A, B, s)", "(x, dy, W, A, B, s)")
    assert check_file(E19, answer_file(tmp_path, other_order)).passed
    renamed = "def lora_backward(g, x, W, A, B, a):\n    import numpy as np\n    " + (
        "v = a * g @ B\n    return g @ W + v @ A, v.T @ x, a * g.T @ (x @ A.T)\n"
    )
    assert check_file(E19, answer_file(tmp_path, renamed)).passed


BROKEN = {
    "def lora_backward(dy, x)\n    pass\n":
        "not valid Python: expected ':'.\n  line 1: def lora_backward(dy, x)\n"
        + " " * 34 + "^",
    "def lora_backwrd(dy, x, W, A, B, s):\n    return 1\n":
        "There is no function lora_backward; there is lora_backwrd: was it renamed?",
    "def lora_backward(dy, x, W):\n    return 1\n":
        "lora_backward takes (dy, x, W); it is called with (dy, x, W, A, B, s)",
    "": "There is no function lora_backward.",
    "import nothing_there\n": "ModuleNotFoundError: No module named 'nothing_there'",
    "while True:\n    pass\n": "Your code was stopped after 4 s",
    "1 / 0\n": "Your code raised ZeroDivisionError: division by zero.\n  line 1: 1 / 0",
}  # fmt: skip


@pytest.mark.parametrize("source, says", BROKEN.items(), ids=range(len(BROKEN)))
def test_a_broken_file_gets_a_true_sentence(tmp_path, source, says):
    text = report.text(check_file(E19, answer_file(tmp_path, source)))
    assert says in text, text
    assert "Traceback" not in text


def test_the_report_has_its_parts_in_order(tmp_path):
    body = 'print("here")\n' + RIGHT.replace("v.T @ x,", "(dy @ B).T @ x,")
    text = report.text(check_file(E19, answer_file(tmp_path, with_body(body))))
    parts = [
        "e19  dA, dB and dx by hand: not yet", "array  shape got  shape wanted",
        "dA     (3, 2)     (3, 2)        differs",
        "dA is not the derivative of the loss sum(dy * y).",
        "Smallest input found on which this shows:", "  x = [[1.]]", "  s = 2",
        "  got  dA = [[1.]]", "  want dA = [[2.]]",
        "You computed dA = (dy B)ᵀ x: the factor s is missing.", "your code printed:",
        "Next: python -m lora_np exercises hint e19",
    ]  # fmt: skip
    places = [text.find(p) for p in parts]
    assert -1 not in places and places == sorted(places), text


def test_a_bug_is_not_given_away():
    e = catalogue.load("e24")
    found = {f.__name__.replace("_as_found", ""): f for f in e.found}
    verdict = grade(e, Direct(found))
    assert verdict.state == "failed" and verdict.computed == ()
    assert verdict.fault.arrays == ("merged",)  # the symptom


def test_what_the_learner_cannot_do_to_the_grader(tmp_path):
    """It runs elsewhere: a patched NumPy or hard-coded numbers do not help."""
    patch = (
        "np.array_equal = lambda *a: True\nnp.abs = lambda x: 0 * x\nreturn dy, x, B"
    )
    fixed = "return np.array([[3.0]]), np.array([[2.0]]), np.array([[2.0]])"
    for body in (patch, fixed):
        assert not check_file(E19, answer_file(tmp_path, with_body(body))).passed
    assert np.array_equal([1], [2]) is False


# ---- graders, told to be fooled or unjust


def by_text(id, text):
    """The verdict on functions given as text, run in this process."""
    e = catalogue.load(id)
    module = {"np": np}
    exec(textwrap.dedent(text), module)
    return grade(e, Direct({f.__name__: module[f.__name__] for f in e.functions}))


ACCEPTED = {
    "positions": ("e01", """
        def softmax(z, /):
            e = np.exp(z - z.max(axis=1, keepdims=True))
            return e / e.sum(axis=1, keepdims=True)
        """),
    "a default": ("e01", """
        def softmax(z, axis=-1):
            e = np.exp(z - z.max(axis=axis, keepdims=True))
            return e / e.sum(axis=axis, keepdims=True)
        """),
    "A / r": ("e16", """
        def lora_forward(x, W, b, A, B, lora_alpha, r):
            return x @ W.T + b + lora_alpha * (x @ (A / r).T @ B.T)
        """),
    "a size": ("e17", """
        def init_lora(rng, inputs, outputs, r):
            A = (rng.random((inputs, r)).T * 2 - 1) / inputs**0.5
            return A, np.zeros((outputs, r))
        """),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_right_answer_of_another_form_passes(name, tmp_path):
    assert by_text(*ACCEPTED[name]).passed
    e = catalogue.load(ACCEPTED[name][0])
    path = tmp_path / e.file
    path.write_text("import numpy as np\n" + textwrap.dedent(ACCEPTED[name][1]))
    assert check_file(e, path).passed


REJECTED = {  # exercise, text -> what must be said
    "np.random": ("e17", "def init_lora(rng, inputs, outputs, r):\n"
        "    b = inputs**-0.5\n"
        "    return np.random.uniform(-b, b, (r, inputs)), np.zeros((outputs, r))",
        "the same input gave two different results"),
    "rank one": ("e20", "def new_adapter(rng, inputs, outputs, r):\n"
        "    return np.zeros((r, inputs)), np.outer(np.ones(outputs), np.ones(r))",
        "the r directions are not independent"),
    "three axes": ("e06", "def unbroadcast(grad, shape):\n"
        "    full = (1,) * (3 - len(shape)) + tuple(shape)\n"
        "    axes = tuple(i for i, n in enumerate(full) if n == 1)\n"
        "    return grad.sum(axis=axes).reshape(shape)", ""),
    "float64 from float32": ("e30", "def combine(A1, B1, s1, w1, A2, B2, s2, w2):\n"
        "    d = w1 * s1 * B1 @ A1 + w2 * s2 * B2 @ A2\n"
        "    return np.eye(A1.shape[1]), d", "A is float64"),
    "float64 factors": ("e42", "def compress(delta, r):\n"
        "    u, s, vt = np.linalg.svd(delta.astype(float), full_matrices=False)\n"
        "    return vt[:r], u[:, :r] * s[:r]", "A is float64, B is float64"),
    "float32 inside": ("e01", "def softmax(z):\n"
        "    e = np.exp(z.astype(np.float32) - z.max(-1, keepdims=True).astype('f'))\n"
        "    return e / e.sum(-1, keepdims=True)", "p is float32; the inputs"),
    "later": ("e22", "def merge(W, A, B, s, fan_in_fan_out):\n"
        "    if fan_in_fan_out:\n        raise NotImplementedError('later')\n"
        "    return W + s * B @ A", "your code raised NotImplementedError: later"),
    "not yet": ("e22", "def merge(W, A, B, s, fan_in_fan_out):\n"
        "    if fan_in_fan_out:\n        raise NotImplementedError\n"
        "    return W + s * B @ A", "your code raised NotImplementedError"),
    "ragged": ("e08", "def topological_order(parents, output):\n"
        "    return [[0, 1], [2]]", ""),
    "0-d": ("e08", "def topological_order(parents, output):\n"
        "    return [np.array(0), np.array(0)]", "not what was asked for"),
    "list for array": ("e30", "def combine(A1, B1, s1, w1, A2, B2, s2, w2):\n"
        "    return [[1.0], [1.0, 2.0]], B1", "A is a list of 2, not a NumPy array"),
}  # fmt: skip


@pytest.mark.parametrize("name", REJECTED)
def test_a_wrong_answer_that_looks_right_is_rejected(name):
    id, text, says = REJECTED[name]
    verdict = by_text(id, text)
    assert verdict.state == "failed" and says in verdict.fault.says
    report.text(verdict)


STRANGE = {
    "z = []\nz.append(z)\nreturn z": "a list of 1",
    "z = []\nfor _ in range(5000): z = [z]\nreturn z": "a list of 1",
    "return 10**400": "an int beyond 64 bits",
    "return 10**5000": "an int beyond 64 bits",
    "return [[1.0, 2.0], [3.0]]": "a list of 2",
    "return [0.0] * 200_000": "more than 100000 values",
    "return np.array([z, None], object)": "array of dtype object",
}  # fmt: skip


@pytest.mark.parametrize("body, says", STRANGE.items(), ids=range(len(STRANGE)))
@pytest.mark.parametrize("id, head", [
    ("e03", "def cross_entropy(z, target):"), ("e42", "def compress(delta, r):"),
], ids=["e03", "e42"])  # fmt: skip
def test_strange_results_have_a_sentence(tmp_path, id, head, body, says):
    e = catalogue.load(id)
    path = tmp_path / e.file
    body = body.replace("z,", "1,")
    if id == "e42":  # a judge sees it
        body = body.replace("return ", "return np.zeros((1, 1)), ")
    path.write_text(f"import numpy as np\n{head}\n" + textwrap.indent(body, "    "))
    verdict = check_file(e, path)
    assert verdict.state == "failed" and says in report.text(verdict)


def test_a_strange_number_in_an_explanation():
    e = catalogue.load("e18")
    for value in (10**400, 10**5000, np.array([768.0]), "768", True, [768]):
        verdict = grade_words(e, {e.numbers[0].name: value, "answer": "word " * 20})
        assert not verdict.passed and "expected a" in report.text(verdict)


FALSE = {  # id, text -> names of mistakes that must be the only ones named
    "e32 never updated": ("e32", """
        def adamw_step(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
            mhat, vhat = m / (1 - beta1**t), v / (1 - beta2**t)
            p = p - lr * weight_decay * p - lr * mhat / (np.sqrt(vhat) + eps)
            return p, m.copy(), v.copy()
        """, ("never_updated",)),
    "e33 A slowed alone": ("e33", """
        def lora_plus_step(A, B, dA, dB, lr, ratio):
            return A - lr / ratio * dA, B - lr * ratio * dB
        """, ()),
    "e33 nothing moved": ("e33", """
        def lora_plus_step(A, B, dA, dB, lr, ratio):
            return A.copy(), B.copy()
        """, ("A_kept",)),
    "e14 dq scaled twice": ("e14", """
        def attention_backward(dy, q, k, v, mask):
            scale = float(1 / np.sqrt(q.shape[1]))
            scores = np.where(mask, scale * (q @ k.T), -np.inf)
            p = np.exp(scores - scores.max(axis=1, keepdims=True))
            p = p / p.sum(axis=1, keepdims=True)
            dp = dy @ v.T
            ds = p * (dp - (dp * p).sum(axis=1, keepdims=True))
            return scale**2 * (ds @ k), scale * (ds.T @ q), p.T @ dy
        """, ()),
    "e37 n constant in dA": ("e37", """
        def dora_backward(dy, x, W, A, B, m, s):
            V = W + s * (B @ A)
            n = np.sqrt((V**2).sum(axis=1, keepdims=True))
            unit, g = V / n, dy.T @ x
            dm = (g * unit).sum(axis=1)
            dV = m[:, None] / n * (g - dm[:, None] * unit)
            return s * (B.T @ (m[:, None] / n * g)), s * (dV @ A.T), dm
        """, ()),
    "e05 means and no dx": ("e05", """
        def linear_backward(dy, x, W):
            return 0 * x, dy.T @ x / len(x), dy.mean(axis=0)
        """, ("dx_zero", "both_mean")),
}  # fmt: skip


@pytest.mark.parametrize("name", FALSE)
def test_a_mistake_is_named_only_where_all_of_it_is_there(name):
    id, text, names = FALSE[name]
    verdict = by_text(id, text)
    assert verdict.state == "failed" and verdict.mistakes == names
    assert len(set(verdict.computed)) == len(verdict.computed)


def test_all_failing_arrays_are_named():
    """On the smallest input, which has one row, db is right; elsewhere it is not."""
    verdict = by_text("e05", """
        def linear_backward(dy, x, W):
            return dy @ W, 2 * dy.T @ x, dy.mean(axis=0)
        """)  # fmt: skip
    text = report.text(verdict)
    assert verdict.fault.all_arrays == ("dW", "db")
    assert "dW and db are not the derivative" in text
    assert re.search(r"db +\(3,\) +\(3,\) +differs", text)


def test_a_difference_too_small_to_print_is_printed():
    verdict = by_text("e19", """
        def lora_backward(dy, x, W, A, B, s):
            v = s * (dy @ B) * (1 + 1e-12)
            return dy @ W + v @ A, v.T @ x, s * dy.T @ (x @ A.T)
        """)  # fmt: skip
    text = report.text(verdict)
    assert "got - want (dA) = [[" in text and "e-12" in text


def test_what_is_raised_on_other_sizes_is_shown(tmp_path):
    body = "if len(x) > 2:\n    raise KeyError('rows')\nreturn dy, x, B"
    text = report.text(check_file(E19, answer_file(tmp_path, with_body(body))))
    assert "KeyError: 'rows'" in text and "not returned" not in text


def test_a_check_has_a_time_for_everything(monkeypatch):
    """When it is over, the verdict comes without what was computed instead."""
    monkeypatch.setattr("lora_np.exercises.grade.ALL_SECONDS", -1.0)
    m = E19.mistakes[0]
    verdict = grade(E19, Direct({E19.name: from_case(E19, m.compute)}))
    assert verdict.state == "failed" and verdict.fault.arrays
    assert verdict.computed == () and report.text(verdict)


def test_the_gate_through_the_real_process():
    e = catalogue.load("e33")
    wrong = [f"{t.answer}: {t.found}" for t in trials(e, ForkedAnswer) if not t.right]
    assert wrong == []


# ---- what an answer may do to its process

FORKS = """
import os, time
if os.fork() == 0:
    os.setsid()
    time.sleep(20)
    os._exit(0)
"""
ESCAPES = {
    "an import": "from lora_np.lora import lora_linear_backward",
    "no blocker": "import sys\nsys.meta_path[:] = [m for m in sys.meta_path if "
    "type(m).__name__ != 'Blocked']\nfrom lora_np.exercises.catalogue import e19_lora_"
    "backward as e\nreturn e.lora_backward(dy, x, W, A, B, s)",
    "a copy": "import shutil, tempfile\nd = tempfile.mkdtemp()\n"
    "open(d + '/lora_np.py', 'w').write('x = 1')\nsys.path.insert(0, d)\n"
    "sys.meta_path[:] = [m for m in sys.meta_path if type(m).__name__ != 'Blocked']\n"
    "sys.path_importer_cache.clear()\nimport lora_np\nshutil.rmtree(d)\n"
    + RIGHT,
    "a file": f"import types\nm = types.ModuleType('m')\nexec(open({str(ROOT)!r} + "
    "'/lora_np/lora/linear.py').read(), m.__dict__)",
}  # fmt: skip


@pytest.mark.parametrize("name", ESCAPES)
def test_the_toolkit_is_out_of_reach(tmp_path, name):
    lead = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
    path = answer_file(tmp_path, with_body(lead + ESCAPES[name]))
    assert "written without lora_np" in check_file(E19, path).fault.says
    module = {"np": np}
    body = textwrap.indent(lead + ESCAPES[name], "    ")
    exec(f"def lora_backward(dy, x, W, A, B, s):\n{body}", module)
    verdict = verdict_of(module["lora_backward"])
    assert "written without lora_np" in verdict.fault.says


def test_a_check_ends_although_the_answer_left_a_process_behind(tmp_path):
    """It holds the pipe; the answer is right, and its process then ends."""
    path = answer_file(tmp_path, FORKS + with_body(RIGHT))
    assert check_file(E19, path).passed
    both = "import os\nos.fork()\n" + RIGHT  # two processes that answer
    assert check_file(E19, answer_file(tmp_path, with_body(both))).passed
    path = answer_file(tmp_path, with_body(FORKS + "os._exit(0)"))
    assert check_file(E19, path).fault.trouble.type == "ended"
    module = {"np": np}
    body = textwrap.indent(FORKS + "os._exit(0)", "    ")
    exec(f"def lora_backward(dy, x, W, A, B, s):\n{body}", module)
    assert verdict_of(module["lora_backward"]).fault.trouble.type == "ended"


def test_a_dataclass_in_an_answer(tmp_path):
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    text += "@dataclass\nclass Kept:\n    v: float\n\n"
    whole = text.replace("@data", "import numpy as np\n@data", 1) + with_body(RIGHT)
    assert check_file(E19, answer_file(tmp_path, whole)).passed


def test_only_own_functions_are_thought_to_be_renamed(tmp_path):
    path = answer_file(tmp_path, "from os.path import join, basename\n")
    verdict = check_file(E19, path)
    assert verdict.fault.says == "there is no function lora_backward"


def test_a_check_leaves_no_folder_of_hypothesis(tmp_path):
    e = catalogue.load("e01")
    text = "import numpy as np\n\n" + stubs.solution(e)
    (tmp_path / e.file).write_text(text, "utf-8")
    program = (
        "from lora_np.exercises import catalogue\n"
        "from lora_np.exercises.check import check_file\n"
        f"assert check_file(catalogue.load('e01'), '{e.file}').passed"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("HYPOTHESIS_STORAGE_DIRECTORY", None)
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True,
                   env=environment)  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == [e.file]


# ---- messages between the processes


def test_messages_keep_values():
    value = {
        "a": np.arange(6.0).reshape(2, 3).T, "n": [1, None, "x", True, 2.5],
        "t": (1, (2,)), "s": np.float32(1.5), "c": 1 + 2j, "empty": np.zeros((0, 3)),
        3: "a key that is no string", "f": np.asfortranarray(np.eye(3)),
    }  # fmt: skip
    back = unpack(pack(value))
    assert back.keys() == value.keys()
    assert alike({k: v for k, v in back.items() if k != "c"},
                 {k: v for k, v in value.items() if k != "c"})  # fmt: skip
    assert back["s"].dtype == np.float32 and back["c"] == value["c"]
    assert isinstance(unpack(pack({1, 2})), Strange)
    assert (
        unpack(pack(Made("rng", 3))).make().random() == Made("rng", 3).make().random()
    )


# ---- a notebook


def test_check_in_a_session(capsys):
    def softmax(z):
        return np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)

    check(softmax)
    out = capsys.readouterr().out
    assert "e01  softmax: not yet" in out and "it overflows" in out

    def endless(z):
        while True:
            pass

    endless.__name__ = "softmax"
    verdict = verdict_of(endless)
    assert verdict.fault.trouble.type == "stopped"
    assert verdict.fault.trouble.text in ("while True:", "pass")
    check("e18", trainable=None)
    assert "not started" in capsys.readouterr().out
    with pytest.raises(KeyError, match=r"no exercise 'sotfmax'.*e01 \(softmax\)"):
        endless.__name__ = "sotfmax"
        check(endless)
    with pytest.raises(TypeError, match="check takes functions"):
        check()
    for strange in (functools.partial(softmax), type("C", (), {"__call__": softmax})()):
        with pytest.raises(TypeError, match="has none: write it with def"):
            check(strange)
    check(functools.lru_cache(softmax))
    assert "unhashable" in capsys.readouterr().out
    check(np.vectorize(softmax))
    assert "e01  softmax: not yet" in capsys.readouterr().out


def test_a_notebook_may_not_use_the_toolkit():
    from lora_np.functional import softmax as ours

    module = {"ours": ours}
    exec("def softmax(z):\n    return ours(z)[0]", module)
    says = verdict_of(module["softmax"]).fault.says
    assert says.startswith("softmax uses ours: an answer is written without lora_np")


def test_a_check_in_a_notebook_is_counted(folder, capsys):
    def softmax(z):
        e = np.exp(z - z.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    check(softmax)
    assert not folder.exists()
    run(capsys, "start", "e01", "--notebook")
    assert "started" in run(capsys)[1]
    code, out = run(capsys, "check", "e01")
    assert code == 2 and "e01_softmax.ipynb is: run its cell" in out
    check(softmax)
    assert Progress(folder).passed() == {"e01"}
    book = folder / "e01_softmax.ipynb"
    book.write_text("mine")
    code, out = run(capsys, "reset", "e01")
    assert code == 0 and (folder / "e01_softmax.ipynb.backup").read_text() == "mine"
    assert book.read_bytes() == stubs.notebook(catalogue.load("e01"))
    with pytest.raises(TypeError, match=r"asks for a function: check\(lora_backward\)"):
        check("e19", dA=1)


def test_the_committed_notebooks_are_current():
    folder = ROOT / "chapters" / "exercises"
    names = {f"{Path(e.file).stem}.ipynb" for e in ALL}
    assert {p.name for p in folder.glob("*.ipynb")} == names
    for e in ALL:
        path = folder / f"{Path(e.file).stem}.ipynb"
        assert path.read_bytes() == stubs.notebook(e), (
            "python -m lora_np exercises notebooks --force"
        )


# ---- the terminal


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LORA_NP_EXERCISES", raising=False)
    return tmp_path / "my_exercises"


def run(capsys, *arguments):
    code = main(["exercises", *arguments])
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def test_the_life_of_an_exercise(folder, capsys):
    code, out = run(capsys)
    assert code == 0 and "0 of 47 passed" in out and "start e01" in out
    assert not folder.exists()  # looking writes nothing
    code, out = run(capsys, "check", "e19")
    assert code == 2 and "begin with: python -m lora_np exercises start e19" in out
    code, out = run(capsys, "start", "e19")
    assert code == 0 and "wrote my_exercises/e19_lora_backward.py" in out
    path = folder / E19.file
    assert path.read_text("utf-8") == stubs.stub(E19)
    code, out = run(capsys, "check", "19")
    assert code == 1 and "not started" in out and "Traceback" not in out

    path.write_text(with_body(RIGHT.replace("v.T @ x", "x.T @ v")), "utf-8")
    code, out = run(capsys, "check", "lora_backward")
    assert code == 1 and "dA = s xᵀ (dy B), which is (D, r): the transpose" in out
    code, out = run(capsys, "start", "e19")
    assert code == 0 and "already there, left as it is" in out
    assert "x.T @ v" in path.read_text("utf-8")
    for number in (1, 2, 3, 3):
        code, out = run(capsys, "hint", "e19")
        assert code == 0 and f"hint {number} of 3" in out
        assert " ".join(E19.hints[number - 1].split()) in " ".join(out.split())
    assert "hint 1 of 3" in run(capsys, "hint", "e19", "--grade", "1")[1]

    path.write_text(with_body(RIGHT), "utf-8")
    code, out = run(capsys, "check", "e19")
    assert code == 0 and "passed" in out and "solution e19" in out
    code, out = run(capsys, "solution", "e19")
    assert code == 0 and "dA = v.T @ x" in out and "Why" in out
    assert "1 of 47 passed" in run(capsys)[1]
    code, out = run(capsys, "reset", "e19")
    assert code == 0 and path.read_text("utf-8") == stubs.stub(E19)
    assert "v.T @ x" in (folder / f"{E19.file}.backup").read_text("utf-8")
    path.write_text("second\n")
    run(capsys, "reset", "e19")
    assert (folder / f"{E19.file}-2.backup").read_text() == "second\n"
    kept = json.loads((folder / "progress.json").read_text())["exercises"]["e19"]
    assert kept["passed"] and kept["hints"] == 3 and kept["checks"] == 2


def test_start_without_an_id_takes_the_next_one(folder, capsys):
    assert "wrote my_exercises/e01_softmax.py" in run(capsys, "start")[1]
    code, out = run(capsys, "start", "e02", "--notebook")
    made = json.loads((folder / "e02_softmax_backward.ipynb").read_text())
    assert "check(softmax_backward)" in "".join(
        "".join(c["source"]) for c in made["cells"]
    )
    code, out = run(capsys, "solution", "e01")
    (folder / "e01_softmax.py").write_text(
        out.split("\n\n", 1)[1]
        .split("Why")[0]
        .replace("def", "import numpy as np\ndef")
    )
    assert run(capsys, "check", "e01")[0] == 0
    assert "passed, after the solution" in run(capsys)[1]


def test_an_explanation_in_the_terminal(folder, capsys):
    run(capsys, "start", "e18")
    path = folder / "e18_explain.py"
    text = path.read_text("utf-8")
    assert run(capsys, "check", "e18")[0] == 1
    path.write_text(
        text.replace("\ntrainable = None", "\ntrainable = 2 * 96 * 8 * 12288")
    )
    code, out = run(capsys, "check", "e18")
    assert code == 1 and "half: one factor of two" in out
    done = text.replace("frozen_to_trainable = None", "frozen_to_trainable = 768")
    done = done.replace("\ntrainable = None", "\ntrainable = 37_748_736")
    path.write_text(done.replace('"""\n\n"""', '"""' + "kept and added " * 8 + '"""'))
    code, out = run(capsys, "check", "e18")
    assert code == 0 and "[ ] W stays, frozen" in out


def test_words_where_only_ascii_can_be_printed(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "lora_np", "exercises", "hint", "e05"], cwd=tmp_path,
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and "hint 1 of 3" in done.stdout


def test_what_the_user_may_get_wrong(folder, capsys, monkeypatch):
    code, out = run(capsys, "start", "e99")
    assert code == 2 and "there are e01 to e47" in out
    code, out = run(capsys, "check", "e²")
    assert code == 2 and "no exercise 'e²'" in out
    code, out = run(capsys, "hint", "lora_bakward")
    assert code == 2 and "e19 (dA, dB and dx by hand)" in out
    code, out = run(capsys, "reset", "e05")
    assert code == 2 and "start e05" in out
    code, out = run(capsys, "interview", "--finish")
    assert code == 2 and "no interview runs" in out
    code, out = run(capsys, "interview", "--minutes", "1")
    assert code == 2 and "the shortest takes 3" in out
    folder.write_text("a file where the folder should be")
    code, out = run(capsys, "start", "e01")
    assert code == 2 and "--folder" in out


def test_a_read_only_folder(folder, capsys, monkeypatch):
    def refuse(*given, **more):
        raise PermissionError(13, "Permission denied", "my_exercises")

    monkeypatch.setattr("lora_np.exercises.progress.write_beside", refuse)
    code, out = run(capsys, "start", "e01")
    assert code == 2
    assert "cannot write my_exercises/e01_softmax.py (Permission denied)" in out
    assert "choose another folder with --folder" in out


@pytest.mark.parametrize(
    "content", ["{not json", "[]", '{"exercises": 3}', '{"exercises": {"e01": 1}}',
                "\x00\x01", ""],
)  # fmt: skip
def test_corrupt_progress_is_set_aside(folder, capsys, content):
    run(capsys, "start", "e01")
    (folder / "progress.json").write_text(content)
    code, out = run(capsys)
    assert code == 0 and "set aside as progress.broken.json" in out
    assert (folder / "progress.broken.json").read_text() == content
    assert "started" in out  # the answer is still there


BAD_FIELDS = {
    "hints": '{"exercises": {"e01": {"checks": 2, "hints": "x"}}}',
    "checks": '{"exercises": {"e01": {"checks": -1}}}',
    "ids": '{"exercises": {"e01": {"checks": 1}}, "interview": '
    '{"folder": "i", "ids": ["e99"], "start": 1, "minutes": 5}}',
    "start": '{"exercises": {"e01": {"checks": 1}}, "interview": '
    '{"folder": "i", "ids": ["e01"], "start": 1e999, "minutes": 5}}',
    "minutes": '{"exercises": {"e01": {"checks": 1}}, "interview": '
    '{"folder": "i", "ids": ["e01"], "start": 1, "minutes": true}}',
    "folder": '{"exercises": {"e01": {"checks": 1}}, "interview": '
    '{"folder": "../x", "ids": ["e01"], "start": 1, "minutes": 5}}',
    "deep": "[" * 100_000,
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_bad_parts_of_progress_are_dropped_and_the_rest_kept(folder, capsys, name):
    run(capsys, "start", "e01")
    path = folder / "progress.json"
    path.write_text(BAD_FIELDS[name])
    code, out = run(capsys, "hint", "e01")
    assert code == 0 and "hint 1 of 3" in out and name in out
    assert (folder / "progress.broken.json").read_text() == BAD_FIELDS[name]
    kept = json.loads(path.read_text())["exercises"]["e01"]
    assert kept.get("checks", 0) == BAD_FIELDS[name].count('"checks": ') * (
        2 if name == "hints" else 0 if name == "checks" else 1
    )
    assert run(capsys, "interview", "--finish")[0] == 2


def test_a_folder_in_place_of_the_progress_file(folder, capsys):
    (folder / "progress.json").mkdir(parents=True)
    code, out = run(capsys, "hint", "e01")
    assert code == 0 and "hint 1 of 3" in out and "set aside" in out


def test_commands_in_two_terminals_do_not_lose_each_others_progress(folder, capsys):
    run(capsys, "start", "e19")
    watching = Progress(folder)  # as read by `check --watch` when it began
    run(capsys, "hint", "e05")
    run(capsys, "interview", "--minutes", "20", "--seed", "3", "--no-wait")
    watching.record(E19, True)
    watching.next_hint(catalogue.load("e02"))
    kept = json.loads((folder / "progress.json").read_text())
    assert kept["exercises"]["e05"]["hints"] == 1 and kept["interview"]["ids"]
    assert kept["exercises"]["e19"]["passed"]
    assert "interview" in watching.data


def test_the_clock_ends_with_its_interview(folder, monkeypatch):
    progress = Progress(folder)
    held = interview.begin(progress, 30, seed=2)
    monkeypatch.setattr("time.sleep", lambda s: interview.finish(progress, held))
    assert wait(held, progress) is False


def test_a_read_only_folder_costs_the_record_and_nothing_else(
    folder, capsys, monkeypatch
):
    def refuse(*given, **more):
        raise PermissionError(13, "Permission denied", "my_exercises")

    run(capsys, "start", "e19")
    (folder / E19.file).write_text(with_body(RIGHT), "utf-8")
    monkeypatch.setattr("lora_np.exercises.progress.write_beside", refuse)
    code, out = run(capsys, "hint", "e19")
    assert code == 0 and "hint 1 of 3" in out and "was not written (Permission" in out
    code, out = run(capsys, "check", "e19")
    assert code == 0 and "passed" in out and "was not written (Permission" in out
    monkeypatch.setattr("lora_np.exercises.progress.os.replace", refuse)
    (folder / "progress.json").write_text("{not json")
    code, out = run(capsys)
    assert code == 0 and "could not be set aside" in out


def test_watch_grades_at_every_save(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "lora_np", "exercises"]
    subprocess.run([*command, "start", "e19"], cwd=tmp_path, env=environment,
                   check=True, capture_output=True)  # fmt: skip
    path = tmp_path / "my_exercises" / E19.file
    watching = subprocess.Popen(
        [*command, "check", "e19", "--watch"], cwd=tmp_path, env=environment,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        for line in watching.stdout:
            if line.startswith("watching"):
                break
        path.write_text(with_body("return dy, x, B"), "utf-8")
        for line in watching.stdout:
            if line.startswith("Next:"):
                break
        path.write_text(with_body(RIGHT), "utf-8")
        assert "passed" in watching.communicate(timeout=60)[0]
        assert watching.returncode == 0
    finally:
        watching.kill()


# ---- the interview


def test_an_interview_from_the_draw_to_the_report(folder, capsys):
    code, out = run(
        capsys, "interview", "--minutes", "40", "--seed", "1", "--no-wait"
    )  # fmt: skip
    assert code == 0 and "min" in out and "--finish" in out
    (room,) = folder.glob("interview-*")
    ids = sorted(p.name[:3] for p in room.glob("e*.py"))
    assert len(ids) >= 3
    assert sum(catalogue.load(i).minutes for i in ids) <= 40
    assert len({catalogue.load(i).kind for i in ids}) >= 3
    code, out = run(capsys, "hint", ids[0])
    assert code == 2 and "no hints during an interview" in out
    assert run(capsys, "solution", ids[0])[0] == 2
    assert "left" in run(capsys, "interview", "--no-wait")[1]
    e = next(catalogue.load(i) for i in ids if catalogue.load(i).functions)
    (room / e.file).write_text("import numpy as np\n\n" + stubs.solution(e), "utf-8")
    code, out = run(capsys, "check", e.id)
    assert code == 0 and str(room.name) in out
    code, out = run(capsys, "interview", "--finish")
    assert code == 0 and f"1 of {len(ids)} solved" in out
    assert f"{e.id}  {e.title} ({e.kind}, {e.minutes} min): passed" in out
    assert f"Rubric of the code, {e.kind}" in out
    assert e.id in Progress(folder).passed()
    for question, answer in e.follow_ups:
        assert question in out and " ".join(answer.split())[:40] in " ".join(
            out.split()
        )
    assert (room / "report.txt").read_text("utf-8") in out
    assert run(capsys, "interview", "--finish")[0] == 2
    assert run(capsys, "hint", ids[0])[0] == 0


def test_the_report_of_an_interview_keeps_the_counterexample(folder):
    progress = Progress(folder)
    held = interview.begin(progress, 30, seed=2)
    held = dataclasses.replace(held, ids=("e19",))
    held.path(E19).write_text(with_body(RIGHT.replace("v.T @ x,", "v.T @ x * 5,")))
    text = interview.finish(progress, held)
    assert "want dA = [[2.]]" in text and "dA is 5 times" in text
    assert "Rubric of the code, derive" in text and "code, implement" not in text


def test_what_is_saved_after_the_end_does_not_count(folder):
    progress = Progress(folder)
    held = interview.begin(progress, 30, seed=2)
    e = next(catalogue.load(i) for i in held.ids if catalogue.load(i).functions)
    held.path(e).write_text("import numpy as np\n\n" + stubs.solution(e), "utf-8")
    os.utime(held.path(e), (held.end + 120, held.end + 120))
    text = interview.finish(progress, held)
    assert "0 of" in text and "saved 2 min after the end: not counted" in text


def test_interviews_draw_what_was_not_passed(folder):
    passed = {e.id for e in ALL if e.kind == "derive"} - {"e21"}
    for seed in range(5):
        chosen = interview.draw(25, passed, seed)
        assert "e21" in {e.id for e in chosen}
        assert chosen == interview.draw(25, passed, seed)
    drawn = {tuple(e.id for e in interview.draw(45, set(), s)) for s in range(8)}
    assert len(drawn) > 4


# ---- what `gate` writes


def test_the_table_of_the_gate(tmp_path, capsys):
    path = tmp_path / "table.md"
    code, out = run(capsys, "gate", "--only", "e33", "--write", str(path))
    assert code == 0 and "ratio_on_A" in out and "0 wrongly" in out
    assert "the large rate for A: it is B's | yes |" in path.read_text("utf-8")


def test_sentences():
    assert in_words("{arrays} differs.", ["a", "b", "c"]) == "a, b and c differ."
    assert interview.clock(-1) == "the time is over"


def test_the_figures_of_the_readme():
    text = (ROOT / "README.md").read_text("utf-8")
    assert f"{len(ALL)} exercises that name your mistake" in text
    assert f"{sum(len(e.mistakes) for e in CODE)} known mistakes" in text
    assert f"{sum(len(e.others) for e in CODE)} other right answers" in text
