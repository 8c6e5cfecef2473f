"""Grading: the first law that an answer breaks, on the smallest input that shows it.

Order: is there a function, does it run, what does it return, are the shapes right, are
the numbers finite, are they right, is the type kept, are the inputs left alone. The
numbers wanted come from the toolkit's own forward (a backward: its numerical
derivative), never from the exercise's solution.
"""

import difflib
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lora_np.exercises.compare import equal, in_words, kind_of
from lora_np.exercises.diagnose import Observed, diagnose
from lora_np.exercises.examine import (
    Answer,
    Examiner,
    Fault,
    trouble_in_words,
    wanted,
)
from lora_np.exercises.exercise import Exercise, probes
from lora_np.exercises.smallest import search

ALL_SECONDS = 4.5  # for a check; what is not found out by then is left out


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
    examiner = Examiner(exercise, answer)
    cases = probes(exercise)
    first = examiner.examine(exercise.laws[0], cases[0])
    if first and first.trouble and first.trouble.type in ("stopped", "ended"):
        return Verdict(exercise, "failed", first)  # the process is gone
    if first and examiner.not_started(first, cases):
        return Verdict(exercise, "not started", first)
    fault = search(examiner)
    if fault is None:
        return Verdict(exercise, "passed")
    time_left = time.monotonic() + examiner.slowest < end
    if fault.kind in ("values", "finite") and time_left and examiner.unstable(fault):
        says = "the same input gave two different results; nothing but it may count"
        fault = replace(fault, says=says, law=None)
    return explained(exercise, answer, fault, end - examiner.slowest)


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
        if seen.trouble and seen.trouble.type not in ("stopped", "ended"):
            t = seen.trouble
            place = f" (line {t.line}: {t.text.strip()})" if t.line else ""
            told = trouble_in_words(t)
            sentences += (f"On another input {told}{place}.",)
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
