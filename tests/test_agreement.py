"""Hand pair = tape of primitives = numerical derivative, for every pair; and every kept
wrong implementation is rejected."""

import importlib
import inspect
import pkgutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lora_np.functional
import lora_np.lora
from lora_np.cli.check import certify_pair
from lora_np.reference import PAIRS, WRONG, Draw, check_pair, pair, wrong
from lora_np.reference.strategies import draws


@pytest.mark.parametrize("name", [p.name for p in PAIRS])
@given(data=st.data())
def test_three_witnesses_agree(name, data):
    rows = check_pair(pair(name), lambda whole: data.draw(draws(whole)))
    assert [str(r) for r in rows if r.passed is False] == []
    methods = {r.method for r in rows if r.passed}
    assert {"tape", "central"} <= methods
    if not isinstance(pair(name).exact, str):
        assert "exact" in methods
    if pair(name).analytic is True:
        assert "complex" in methods


@pytest.mark.parametrize("name", [p.name for p in PAIRS])
def test_every_input_is_certified_or_absent(name):
    """No gradient slips through: each name in wrt has a row in some case."""
    seen = {r.array for r in certify_pair(pair(name), seed=1, cases=8)}
    assert {"d" + n for n in pair(name).wrt} <= seen


def backward_functions():
    found = {}
    for room in (lora_np.functional, lora_np.lora):
        for info in pkgutil.iter_modules(room.__path__, room.__name__ + "."):
            module = importlib.import_module(info.name)
            for name, f in inspect.getmembers(module, inspect.isfunction):
                if name.endswith("_backward") and f.__module__ == module.__name__:
                    found[name] = f
    return found


def unregistered(functions):
    registered = {p.backward for p in PAIRS}
    return sorted(n for n, f in functions.items() if f not in registered)


def test_every_backward_is_registered():
    assert len(backward_functions()) >= 25
    assert unregistered(backward_functions()) == []


def test_an_unregistered_backward_is_noticed():
    def new_layer_backward(dy, cache):
        return (dy,)

    assert unregistered({"new_layer_backward": new_layer_backward}) == [
        "new_layer_backward"
    ]


@pytest.mark.parametrize("name", [p.name for p in PAIRS])
def test_every_pair_has_wrong_implementations(name):
    own = [w for w in WRONG if w.pair == name]
    assert len(own) >= 3
    assert all(w.why and (w.forward or w.backward) for w in own)
    assert len({w.name for w in own}) == len(own)


def rejection(w, seed=0, cases=4):
    """Arrays that fail in the first case that notices: as the check command draws."""
    for case in range(cases):
        square = {0: True, 1: False}.get(case)

        def draw(whole, case=case, square=square):
            return Draw.seeded(1000 * seed + case, whole, square, case)

        rows = check_pair(pair(w.pair), draw, w.forward, w.backward)
        failed = {r.array for r in rows if r.passed is False}
        if failed:
            return failed
    return set()


@pytest.mark.parametrize("label", [w.label for w in WRONG])
def test_every_wrong_implementation_is_rejected(label):
    """By the cases of `check --wrong`, for several seeds, so never by luck."""
    for seed in range(3):
        assert rejection(wrong(label), seed), f"seed {seed}: {wrong(label).why}"


def test_wrong_implementations_fail_by_value_not_by_raising():
    """A fault that only ever raises would show nothing about the checks."""
    assert [w.label for w in WRONG if rejection(w) == {"(raised)"}] == []


def test_unknown_names_list_what_there_is():
    with pytest.raises(KeyError, match="lora_linear"):
        pair("lora_linaer")
    with pytest.raises(KeyError, match="linear:db_mean"):
        wrong("linear:nope")


def test_problems_obey_the_rules_for_inputs():
    """Different and square sizes, α ≠ r, B ≠ 0, N ≥ 2, repeats, r = 1 and large."""
    shapes, ranks = set(), set()
    for seed in range(40):
        p = pair("lora_linear").problem(Draw.seeded(seed))
        N, D = p["x_ND"].shape
        M, R = p["B_MR"].shape
        assert N >= 2 and p["B_MR"].all() and p["s"] != 1
        shapes.add(len({N, D, M}))
        ranks.add("one" if R == 1 else "large" if min(D, M) < R else "between")
        e = pair("lora_embedding").problem(Draw.seeded(seed))
        assert len(set(e["ids_N"])) < len(e["ids_N"])
    assert shapes == {1, 3} and ranks == {"one", "large", "between"}
