"""One answer on one input: what is the first thing wrong with it?"""

import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from lora_np.exercises.candidate import Outcome, Trouble
from lora_np.exercises.cases import Case
from lora_np.exercises.compare import difference, kind_of, kinds, wrong_container
from lora_np.exercises.diagnose import alike, right_answer
from lora_np.exercises.exercise import Exercise, Law, as_tuple
from lora_np.exercises.stubs import untouched

SECONDS = 2.0  # of drawing; a first failure stops it
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


class Examiner:
    """Examines one answer on many cases, for a limited time."""

    def __init__(self, exercise: Exercise, answer: Answer):
        self.exercise, self.answer = exercise, answer
        self.end = time.monotonic() + SECONDS
        self.calls, self.slowest = 0, 0.0

    def not_started(self, first: Fault, cases: tuple[Case, ...]) -> bool:
        """Whether this is the untouched stub, which raises NotImplementedError."""
        if not _unwritten(first):
            return False
        if self.answer.source:
            return untouched(self.exercise, self.answer.source)
        law = self.exercise.laws[0]
        return all(_unwritten(self.examine(law, case)) for case in cases[1:3])

    def unstable(self, fault: Fault) -> bool:
        """Whether the answer to the same input differs from call to call."""
        law = Law("", lambda d: {}, judge=lambda case, got: "again")
        again = self.examine(law, fault.case)
        same = again is not None and all(map(alike, again.got, fault.got))
        return again is not None and bool(again.got) and not same

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
            start = time.monotonic()
            outcome = self.answer.call(function.__name__, inputs)
            self.slowest = max(self.slowest, time.monotonic() - start)
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


def _unwritten(fault: Fault | None) -> bool:
    """Whether this is a stub's bare NotImplementedError."""
    trouble = fault.trouble if fault else None
    return trouble is not None and (trouble.type, trouble.message) == (
        "NotImplementedError", "",
    )  # fmt: skip


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
