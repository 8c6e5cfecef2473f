"""Grading: the first law that an answer breaks, on the smallest input that shows it.

Order: is there a function, does it run, what does it return, are the shapes right, are
the numbers finite, are they right, is the type kept, are the inputs left alone. The
numbers wanted come from the toolkit's own forward (a backward: its numerical
derivative), never from the exercise's solution.
"""

import atexit
import difflib
import functools
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from lora_np.exercises.candidate import Outcome, Trouble
from lora_np.exercises.cases import Case, Cases
from lora_np.exercises.compare import (
    difference,
    equal,
    in_words,
    kind_of,
    kinds,
    wrong_container,
)
from lora_np.exercises.diagnose import Observed, alike, diagnose, right_answer
from lora_np.exercises.exercise import Exercise, Law, as_tuple, probes
from lora_np.exercises.stubs import untouched

EXAMPLES = 40  # drawn for each law
SECONDS = 2.0  # of drawing; a first failure stops it
SHRINK_SECONDS = 1.0
ALL_SECONDS = 4.5  # for a check; what is not found out by then is left out
ORDER = ("raised", "result", "shape", "finite", "dtype", "values", "changed")
JUDGED = (TypeError, ValueError, OverflowError, IndexError, AttributeError)


class Answer(Protocol):
    """What is graded; see `candidate`."""

    signatures: dict[str, list[str] | None]
    defined: list[str]
    source: str

    def call(self, name: str, arguments: dict[str, Any]) -> Outcome:
        """One call of the learner's function."""
        ...


@dataclass(frozen=True)
class Fault:
    """One broken law: the kind (of ORDER), a sentence, the input and both answers.

    arrays: what differs on this input. all_arrays: what differs on this or another.
    """

    kind: str
    says: str
    arrays: tuple[str, ...] = ()
    all_arrays: tuple[str, ...] = ()
    case: Case = field(default_factory=dict)
    got: tuple = ()
    want: tuple = ()
    trouble: Trouble | None = None
    printed: str = ""
    law: Law | None = None


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
    end = time.monotonic() + ALL_SECONDS
    if fault := missing(exercise, answer):
        return Verdict(exercise, "failed", fault)
    examiner = _Examiner(exercise, answer)
    cases = probes(exercise)
    first = examiner.examine(exercise.laws[0], cases[0])
    if first and first.trouble and first.trouble.type in ("stopped", "ended"):
        return Verdict(exercise, "failed", first)  # the process is gone
    if first and examiner.not_started(first, cases):
        return Verdict(exercise, "not started", first)
    fault = examiner.search()
    if fault is None:
        return Verdict(exercise, "passed")
    if fault.kind in ("values", "finite") and examiner.unstable(fault):
        says = "the same input gave two different results; nothing but it may count"
        fault = replace(fault, says=says, law=None)
    return explained(exercise, answer, fault, end)


def explained(exercise: Exercise, answer: Answer, fault: Fault, end: float) -> Verdict:
    """A fault with shapes, all arrays that differ, and what was computed instead."""
    if fault.trouble and fault.trouble.type in ("stopped", "ended"):
        return Verdict(exercise, "failed", fault)
    seen = Observed(exercise, answer, end)
    shapes = shape_table(exercise, seen) if seen.outputs else ()
    names: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()
    if fault.kind in ("shape", "finite", "values"):
        fault = replace(fault, all_arrays=everywhere(exercise, seen, fault))
        if fault.law and fault.kind == "values" and fault.law.judge is None:
            says = in_words(fault.law.says, list(fault.all_arrays))
            fault = replace(fault, says=says)
        names, sentences = diagnose(exercise, seen)
        if seen.trouble and not fault.trouble:
            t = seen.trouble
            place = f" (line {t.line}: {t.text.strip()})" if t.line else ""
            told = trouble_in_words(t)
            sentences += (f"On an input of other sizes {told}{place}.",)
    return Verdict(exercise, "failed", fault, shapes, sentences, names)


def everywhere(exercise: Exercise, seen: Observed, fault: Fault) -> tuple[str, ...]:
    """The outputs that differ on the smallest input or on a probe, in their order."""
    wrong = set(fault.arrays)
    for case, got in zip(seen.cases, seen.outputs):
        if fault.kind == "values" and got is not None and exercise.want is not None:
            want = wanted(exercise, case)
            law = fault.law or exercise.laws[0]
            wrong |= {n for n, y, w in zip(exercise.returns, got, want)
                      if not equal(y, w, law)}  # fmt: skip
    return tuple(n for n in exercise.returns if n in wrong)


def missing(exercise: Exercise, answer: Answer) -> Fault | None:
    """Whether a function is absent or takes another number of inputs."""
    for function in exercise.functions:
        name, expected = function.__name__, exercise.parameters(function)
        if name not in answer.signatures:
            near = difflib.get_close_matches(name, answer.defined, 1)
            near = near or answer.defined[:1]
            slip = f"; there is {near[0]}: was it renamed?" if near else ""
            return Fault("raised", f"there is no function {name}{slip}")
        own = answer.signatures[name]
        required = [n for n in own or () if not n.endswith("=")]
        if own is not None and not len(required) <= len(expected) <= len(own):
            listed = ", ".join(n.rstrip("=") for n in own)
            return Fault(
                "raised", f"{name} takes ({listed}); it is called with "
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

    def not_started(self, first: Fault, cases: tuple[Case, ...]) -> bool:
        """Whether this is the untouched stub, which raises NotImplementedError."""
        if not _unwritten(first):
            return False
        if self.answer.source:
            return untouched(self.exercise, self.answer.source)
        law = self.exercise.laws[0]
        return all(_unwritten(self.examine(law, case)) for case in cases[1:3])

    def smallest(self, law: Law) -> Fault | None:
        """Hypothesis draws cases of small whole numbers and shrinks a failing one."""
        from hypothesis import HealthCheck, Phase, Verbosity, given, settings
        from hypothesis import strategies as st

        leave_no_folder()
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
            if now > (best[1] if best else self.end):
                if not best and self.calls < EXAMPLES:
                    best[:] = [self.slow(case), now]
                raise _Enough
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
            except _Enough:
                pass
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
        outputs = self.outputs(case)
        if isinstance(outputs, Fault):
            return outputs
        got, changed, printed = outputs
        want = wanted(self.exercise, case)
        names = self.exercise.returns
        found = kinds(names, got, want or right_answer(self.exercise, case))
        if found is None:
            judged = self.judged(law, case, got) if law.judge else None
            if isinstance(judged, Fault):
                return judged
            found = difference(law, names, got, want or got, judged)
        if found:
            kind, says, arrays = found
            return Fault(kind, says, tuple(arrays), (), case, got, want,
                         printed=printed, law=law)  # fmt: skip
        if not changed:
            return None
        return Fault(
            "changed", f"the input {', '.join(changed)} was changed in place; the "
            "caller still needs it: work on a copy", tuple(changed), (), case,
            printed=printed,
        )  # fmt: skip

    def outputs(self, case: Case) -> tuple[tuple, list[str], str] | Fault:
        """What all functions return, which inputs were changed, what was printed."""
        got: list[Any] = []
        changed: list[str] = []
        printed = ""
        names = self.exercise.returns
        count = len(names) // len(self.exercise.functions)
        for function in self.exercise.functions:
            inputs = {p: case[p] for p in self.exercise.parameters(function)}
            outcome = self.answer.call(function.__name__, inputs)
            self.calls += 1
            printed += outcome.printed
            if outcome.trouble:
                return Fault("raised", trouble_in_words(outcome.trouble), case=case,
                             trouble=outcome.trouble, printed=printed)  # fmt: skip
            own = names[len(got) : len(got) + count]
            if complaint := wrong_container(outcome.value, count, own):
                return Fault("result", complaint, case=case, got=(outcome.value,),
                             printed=printed)  # fmt: skip
            got += as_tuple(outcome.value)
            changed += outcome.changed
        return tuple(got), changed, printed

    def judged(self, law: Law, case: Case, got: tuple) -> str | Fault:
        """What the law's own judge says, after a second call where it asks for one."""
        assert law.judge is not None
        more: tuple = ()
        if law.again is not None:
            second = self.outputs(law.again(case))
            if isinstance(second, Fault):
                return second
            more = (second[0],)
        try:
            return law.judge(case, got, *more)
        except JUDGED:  # a list of anything may have come back
            listed = ", ".join(f"{n} is {kind_of(y)}" for n, y in
                               zip(self.exercise.returns, got))  # fmt: skip
            return Fault("result", f"{listed}: not what was asked for", case=case)

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
        outputs = self.outputs(small)
        if isinstance(outputs, Fault):
            return outputs
        want = wanted(self.exercise, case) or right_answer(self.exercise, case)
        wrong = [
            (name, str(getattr(y, "dtype", type(y).__name__)))
            for name, y, w in zip(self.exercise.returns, outputs[0], want)
            if isinstance(w, np.ndarray) and w.dtype == np.float64
            and getattr(y, "dtype", None) != np.float32
        ]  # fmt: skip
        if not wrong:
            return None
        listed = ", ".join(f"{name} is {kind}" for name, kind in wrong)
        return Fault(
            "dtype", f"the inputs are float32, but {listed}: the result must have the "
            "inputs' type. A NumPy float64 scalar (np.sqrt(8), np.float64(2)) or an "
            "array made by np.zeros(shape) promotes; float(...) and zeros_like do not.",
            tuple(name for name, _ in wrong), (), small, outputs[0],
        )  # fmt: skip


@functools.cache
def leave_no_folder() -> None:
    """Let Hypothesis keep its notes elsewhere than in the current folder.

    Once a process, and not where a folder was chosen or is there.
    """
    from hypothesis.configuration import set_hypothesis_home_dir

    if "HYPOTHESIS_STORAGE_DIRECTORY" in os.environ or os.path.isdir(".hypothesis"):
        return
    folder = tempfile.mkdtemp(prefix="lora_np_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    set_hypothesis_home_dir(folder)


def _unwritten(fault: Fault | None) -> bool:
    """Whether this is a stub's bare NotImplementedError."""
    trouble = fault.trouble if fault else None
    return trouble is not None and (trouble.type, trouble.message) == (
        "NotImplementedError", "",
    )  # fmt: skip


class _Broken(Exception):
    """Tells Hypothesis that a case fails."""


class _Enough(BaseException):
    """Ends Hypothesis, which would go on for long; no Exception, so not a failure."""


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


def shape_table(exercise: Exercise, seen: Observed) -> tuple[tuple[str, str, str], ...]:
    """(array, shape got, shape wanted) on a probe, whose sizes all differ."""
    want = wanted(exercise, seen.cases[0])
    got = seen.outputs[0]
    return tuple(
        (name, _shape(got[i] if got and i < len(got) else None, got is None),
         str(want[i].shape))
        for i, name in enumerate(exercise.returns)
        if want and isinstance(want[i], np.ndarray)
    )  # fmt: skip


def _shape(value: Any, raised: bool) -> str:
    if isinstance(value, np.ndarray | np.generic):
        return str(value.shape)
    if raised:
        return "raised"
    return "-" if value is None else kind_of(value)
