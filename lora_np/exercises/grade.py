"""Grading: the first law that an answer breaks, on the smallest input that shows it.

Order: is there a function, does it run, what does it return, are the shapes right, are
the numbers finite, are they right, is the type kept, are the inputs left alone. The
numbers wanted come from the toolkit's own forward (a backward: its numerical
derivative), never from the exercise's solution.
"""

import difflib
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from lora_np.exercises.candidate import Outcome, Trouble
from lora_np.exercises.cases import Case, Cases
from lora_np.exercises.diagnose import alike, diagnose
from lora_np.exercises.exercise import Exercise, Law, as_tuple, probes
from lora_np.exercises.worker import Made, Strange

EXAMPLES = 40  # drawn for each law
SECONDS = 2.0  # for a whole check; a first failure stops the drawing
SHRINK_SECONDS = 1.0
ORDER = ("raised", "result", "shape", "finite", "values", "dtype", "changed")


class Answer(Protocol):
    """What is graded; see `candidate`."""

    signatures: dict[str, list[str] | None]

    def call(self, name: str, arguments: dict[str, Any]) -> Outcome:
        """One call of the learner's function."""
        ...


@dataclass(frozen=True)
class Fault:
    """One broken law: the kind (of ORDER), a sentence, the input and both answers."""

    kind: str
    says: str
    arrays: tuple[str, ...] = ()
    case: Case = field(default_factory=dict)
    got: tuple = ()
    want: tuple = ()
    trouble: Trouble | None = None
    printed: str = ""


@dataclass(frozen=True)
class Verdict:
    """The result of a check. `state`: passed, failed, or not started."""

    exercise: Exercise
    state: str
    fault: Fault | None = None
    shapes: tuple[tuple[str, str, str], ...] = ()
    computed: tuple[str, ...] = ()  # sentences: what was computed instead
    mistakes: tuple[str, ...] = ()  # their names
    numbers: tuple[tuple[str, str, bool, str], ...] = ()

    @property
    def passed(self) -> bool:
        return self.state == "passed"


def grade(exercise: Exercise, answer: Answer) -> Verdict:
    """Examine an answer; see the module's first lines for the order."""
    if fault := missing(exercise, answer.signatures):
        return Verdict(exercise, "failed", fault)
    examiner = _Examiner(exercise, answer)
    cases = probes(exercise)
    first = examiner.examine(exercise.laws[0], cases[0])
    if first and first.trouble and first.trouble.type == "NotImplementedError":
        return Verdict(exercise, "not started", first)
    if first and first.trouble and first.trouble.type in ("stopped", "ended"):
        return Verdict(exercise, "failed", first)  # the process is gone
    fault = examiner.search()
    if fault is None:
        return Verdict(exercise, "passed")
    if fault.kind in ("values", "finite") and examiner.unstable(fault):
        says = "the same input gave two different results; nothing but it may count"
        fault = replace(fault, says=says)
    shapes = shape_table(exercise, answer, cases[0])
    names: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()
    if fault.kind in ("shape", "finite", "values"):
        names, sentences = diagnose(exercise, answer, fault.arrays)
    return Verdict(exercise, "failed", fault, shapes, sentences, names)


def missing(exercise: Exercise, there: dict[str, list[str] | None]) -> Fault | None:
    """Whether a function is absent or takes another number of inputs."""
    for function in exercise.functions:
        name, expected = function.__name__, exercise.parameters(function)
        if name not in there:
            near = difflib.get_close_matches(name, there, 1) or [*there][:1]
            slip = f"; there is {near[0]}: was it renamed?" if near else ""
            return Fault("raised", f"there is no function {name}{slip}")
        own = there[name]
        if own is not None and len(own) != len(expected):
            return Fault(
                "raised", f"{name} takes ({', '.join(own)}); it is called with "
                f"({', '.join(expected)})",
            )  # fmt: skip
    return None


class _Examiner:
    """Examines one answer on many cases, for a limited time."""

    def __init__(self, exercise: Exercise, answer: Answer):
        self.exercise, self.answer = exercise, answer
        self.end = time.monotonic() + SECONDS
        self.calls = 0

    def search(self) -> Fault | None:
        """The first broken law, as small as Hypothesis can make it."""
        for law in self.exercise.laws:
            if fault := self.smallest(law):
                return fault
            for number in range(3):
                if fault := self.examine(law, law.case(Cases.probe(number))):
                    return fault
        return self.type_kept(self.exercise.laws[0].case(Cases.probe(0)))

    def smallest(self, law: Law) -> Fault | None:
        """Hypothesis draws cases of small whole numbers and shrinks a failing one."""
        from hypothesis import HealthCheck, Phase, Verbosity, given, settings
        from hypothesis import strategies as st

        best: list[Any] = []  # the smallest fault so far, and when shrinking ends

        @st.composite
        def drawn(draw: Callable) -> Case:
            return law.case(Cases(lambda low, high: draw(st.integers(low, high))))

        @settings(
            max_examples=EXAMPLES, derandomize=True, database=None, deadline=None,
            phases=(Phase.generate, Phase.shrink), verbosity=Verbosity.quiet,
            suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
        )  # fmt: skip
        @given(drawn())
        def body(case: Case) -> None:
            now = time.monotonic()
            if best and now > best[1]:
                if best[0] and _same(case, best[0].case):
                    raise _Broken
                return
            if not best and now > self.end:
                if self.calls < EXAMPLES:
                    best[:] = [self.slow(case), now]
                    raise _Broken
                return
            fault = self.examine(law, case)
            if fault and (not best or fault.kind == best[0].kind):
                best[:] = [fault, best[1] if best else now + SHRINK_SECONDS]
                if fault.trouble and fault.trouble.type in ("stopped", "ended"):
                    best[1] = 0.0  # the process is gone
                raise _Broken

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                body()
            except BaseException as error:
                if not best or isinstance(error, KeyboardInterrupt):
                    raise
        return best[0] if best else None

    def unstable(self, fault: Fault) -> bool:
        """Whether the answer to the same input differs from call to call."""
        law = Law("", lambda d: {}, judge=lambda case, got: "again")
        again = self.examine(law, fault.case)
        same = again is not None and all(map(alike, again.got, fault.got))
        return again is not None and bool(again.got) and not same

    def slow(self, case: Case) -> Fault:
        each = SECONDS / max(1, self.calls)
        return Fault("raised", f"a call takes {each:.2g} s on a small input; the check "
                     f"stops after {SECONDS:.0f} s", case=case)  # fmt: skip

    def examine(self, law: Law, case: Case) -> Fault | None:
        """The first thing wrong with the answer on one case, in the order of ORDER."""
        got: list[Any] = []
        changed: list[str] = []
        printed = ""
        for function in self.exercise.functions:
            inputs = {p: case[p] for p in self.exercise.parameters(function)}
            outcome = self.answer.call(function.__name__, inputs)
            self.calls += 1
            printed += outcome.printed
            if outcome.trouble:
                return Fault("raised", trouble_in_words(outcome.trouble), case=case,
                             trouble=outcome.trouble, printed=printed)  # fmt: skip
            count = len(self.exercise.returns) // len(self.exercise.functions)
            if complaint := wrong_container(outcome.value, count,
                                            self.exercise.returns):  # fmt: skip
                return Fault("result", complaint, case=case, got=(outcome.value,),
                             printed=printed)  # fmt: skip
            got += as_tuple(outcome.value)
            changed += outcome.changed
        want = wanted(self.exercise, case)
        fault = compare(self.exercise, law, case, tuple(got), want)
        if fault is None and changed:
            names = ", ".join(changed)
            fault = Fault(
                "changed", f"the input {names} was changed in place; the caller still "
                "needs it: work on a copy", tuple(changed), case,
            )  # fmt: skip
        return fault and replace(fault, printed=printed)

    def type_kept(self, case: Case) -> Fault | None:
        """float32 in, float32 out (of arrays that depend on float inputs)."""
        small = {
            k: v.astype(np.float32)
            if isinstance(v, np.ndarray) and v.dtype == np.float64
            else v
            for k, v in case.items()
        }
        if not any(getattr(v, "dtype", None) == np.float32 for v in small.values()):
            return None
        wrong = []
        got: list[Any] = []
        for function in self.exercise.functions:
            inputs = {p: small[p] for p in self.exercise.parameters(function)}
            outcome = self.answer.call(function.__name__, inputs)
            if outcome.trouble:
                return Fault("raised", trouble_in_words(outcome.trouble), case=small,
                             trouble=outcome.trouble)  # fmt: skip
            got += as_tuple(outcome.value)
        for name, y, w in zip(self.exercise.returns, got, wanted(self.exercise, case)):
            if isinstance(w, np.ndarray) and w.dtype == np.float64 and (
                getattr(y, "dtype", None) != np.float32
            ):  # fmt: skip
                wrong.append((name, str(getattr(y, "dtype", type(y).__name__))))
        if not wrong:
            return None
        listed = ", ".join(f"{name} is {kind}" for name, kind in wrong)
        return Fault(
            "dtype", f"the inputs are float32, but {listed}: the result must have the "
            "inputs' type. A NumPy float64 scalar (np.sqrt(8), np.float64(2)) or an "
            "array made by np.zeros(shape) promotes; float(...) and zeros_like do not.",
            tuple(name for name, _ in wrong), small, tuple(got),
        )  # fmt: skip


class _Broken(Exception):
    """Tells Hypothesis that a case fails."""


def _same(a: Case, b: Case) -> bool:
    return a.keys() == b.keys() and all(repr(a[k]) == repr(b[k]) for k in a)


def wanted(exercise: Exercise, case: Case) -> tuple:
    """What the toolkit computes; () where a law's judge decides alone."""
    return as_tuple(exercise.want(case)) if exercise.want else ()


def trouble_in_words(trouble: Trouble) -> str:
    """An exception in a sentence; the learner's line stands below it in the report."""
    if trouble.type in ("stopped", "ended"):
        return f"your code was {trouble.message}" if trouble.type == "stopped" else (
            trouble.message
        )  # fmt: skip
    if "MemoryError" in trouble.type:
        return "your code asked for more than 2 GiB of memory on a small input"
    if trouble.type in ("SyntaxError", "IndentationError", "TabError"):
        return f"the file is not valid Python: {trouble.message}"
    return f"your code raised {trouble.type}: {trouble.message}".rstrip(": ")


def wrong_container(value: Any, count: int, names: tuple[str, ...]) -> str:
    """A sentence where the result is not `count` outputs or holds no numbers."""
    listed = ", ".join(names[:count])
    if value is None:
        return f"nothing was returned (None): is `return {listed}` missing?"
    if count > 1:
        if not isinstance(value, tuple):
            kind = _kind(value)
            return f"returned {kind}; return a tuple of {count}: {listed}"
        if len(value) != count:
            return f"returned {len(value)} values; return {count}: {listed}"
    elif isinstance(value, tuple):
        return f"returned a tuple of {len(value)}; return {listed} itself"
    for name, part in zip(names, as_tuple(value)):
        if isinstance(part, Strange):
            return f"{name} is {_kind(part)}, of which no number can be read"
        if np.iscomplexobj(part) and not isinstance(part, list | dict):
            return f"{name} is complex; the inputs are real"
    return ""


def _kind(value: Any) -> str:
    if isinstance(value, Strange):
        article = "an" if value.type_name[:1] in "aeiou" else "a"
        return f"{article} {value.type_name}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    return f"a {type(value).__name__}"


def compare(
    exercise: Exercise, law: Law, case: Case, got: tuple, want: tuple
) -> Fault | None:
    """Types, shapes, finite numbers, then values (or the law's own judge)."""
    names = exercise.returns

    def fault(kind: str, says: str, failing: list[str]) -> Fault:
        return Fault(kind, says, tuple(failing), case, got, want)

    if law.judge is not None:
        sentence = law.judge(case, got)
        return fault("values", sentence, list(names)) if sentence else None
    pairs = list(zip(names, got, want, strict=True))
    for name, y, w in pairs:
        if complaint := wrong_type(name, y, w):
            return fault("result", complaint, [name])
    bad = [n for n, y, w in pairs if np.shape(y) != np.shape(w)
           and not isinstance(w, list | dict | str)]  # fmt: skip
    if bad:
        return fault("shape", in_words("{arrays} has the wrong shape.", bad), bad)
    bad = [n for n, y, w in pairs if isinstance(w, np.ndarray | float)
           and np.isfinite(w).all() and not np.isfinite(y).all()]  # fmt: skip
    if bad:
        says = in_words("{arrays} is not finite: ", bad) + in_words(law.says, bad)
        return fault("finite", says, bad)
    bad = [n for n, y, w in pairs if not equal(y, w, law)]
    return fault("values", in_words(law.says, bad), bad) if bad else None


def in_words(law: str, arrays: list[str]) -> str:
    """A law in words with the names of the arrays, in the plural where there are more.

    >>> in_words("{arrays} is wrong", ["dx"]), in_words("{arrays} is wrong", ["a", "b"])
    ('dx is wrong', 'a and b are wrong')
    """
    listed = arrays[-1]
    if len(arrays) > 1:
        listed = f"{', '.join(arrays[:-1])} and {arrays[-1]}"
        for one, more in (
            ("is", "are"), ("has", "have"), ("does", "do"), ("differs", "differ"),
            ("belongs", "belong"),
        ):  # fmt: skip
            law = law.replace("{arrays} " + one, "{arrays} " + more)
    return law.format(arrays=listed)


def wrong_type(name: str, y: Any, w: Any) -> str:
    """A sentence where an output is of another kind than wanted."""
    if w is None:
        return "" if y is None else f"{name} must be None here, got {_kind(y)}"
    if y is None:
        return f"{name} is None"
    if isinstance(w, np.ndarray):
        if not isinstance(y, np.ndarray | np.generic):
            return f"{name} is {_kind(y)}, not a NumPy array"
        if w.dtype.kind == "f" and y.dtype.kind in "iub":
            return f"{name} has dtype {y.dtype}; the inputs are float"
    elif isinstance(w, bool | str):
        if not isinstance(y, type(w) | np.bool_):
            return f"{name} is {_kind(y)}, expected {_kind(w)}"
    elif isinstance(w, int | float):
        number = isinstance(y, int | float | np.number) and not isinstance(y, bool)
        if not number and not (isinstance(y, np.ndarray) and y.shape == ()):
            return f"{name} is {_kind(y)}, expected a number"
    elif isinstance(w, list | dict) and not isinstance(y, type(w)):
        return f"{name} is {_kind(y)}, expected a {type(w).__name__}"
    return ""


def equal(y: Any, w: Any, law: Law) -> bool:
    """Bit for bit where the law is exact on whole numbers, else within tolerance."""
    if isinstance(w, dict):
        return y.keys() == w.keys() and all(equal(y[k], w[k], law) for k in w)
    if isinstance(w, list):
        return len(y) == len(w) and all(
            np.shape(a) == np.shape(b) and equal(a, b, law) for a, b in zip(y, w)
        )
    if w is None or isinstance(w, str | bool):
        return y == w if not isinstance(y, np.ndarray) else False
    if not isinstance(w, Made) and np.size(w) == 0:
        return np.size(y) == 0
    y, w = np.asarray(y), np.asarray(w)
    if law.exact and np.array_equal(8 * w, np.round(8 * w)):
        return bool(np.array_equal(y, w))
    error = float(np.abs(y - w).max())
    return error <= law.tolerance * max(1e-3, float(np.abs(w).max()))


def shape_table(
    exercise: Exercise, answer: Answer, case: Case
) -> tuple[tuple[str, str, str], ...]:
    """(array, shape got, shape wanted) on a probe, whose sizes all differ."""
    want = wanted(exercise, case)
    rows = []
    at = 0
    per = len(exercise.returns) // len(exercise.functions)
    for function in exercise.functions:
        inputs = {p: case[p] for p in exercise.parameters(function)}
        outcome = answer.call(function.__name__, inputs)
        values: tuple = as_tuple(outcome.value) if outcome.trouble is None else ()
        for i in range(per):
            name = exercise.returns[at]
            w = want[at] if want else None
            y = values[i] if i < len(values) else None
            if isinstance(w, np.ndarray):
                rows.append((name, _shape(y), str(w.shape)))
            at += 1
    return tuple(rows)


def _shape(value: Any) -> str:
    if isinstance(value, np.ndarray | np.generic):
        return str(value.shape)
    return "-" if value is None else _kind(value)
