"""The quality gate: what every exercise's grader must accept, reject and name."""

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from lora_np.exercises.candidate import Direct
from lora_np.exercises.exercise import Exercise
from lora_np.exercises.grade import Verdict, grade
from lora_np.exercises.stubs import AS_FOUND, stub


@dataclass(frozen=True)
class Trial:
    """One answer given to one grader: what was expected of it, and what came out."""

    exercise: str
    answer: str
    expected: str  # "passed", "not started", or the name of a mistake
    found: str
    seconds: float

    @property
    def right(self) -> bool:
        return self.expected == self.found


def trials(
    exercise: Exercise, kind: Callable[[dict[str, Callable]], Any] = Direct
) -> Iterator[Trial]:
    """The stub, the solution, every mistake and every other right answer.

    kind: where the answers run; ForkedAnswer as a notebook's do, in a process each.
    """

    def trial(name: str, expected: str, functions: dict[str, Callable]) -> Trial:
        start = time.perf_counter()
        answer = kind(functions)
        try:
            verdict = grade(exercise, answer)
        finally:
            answer.close()
        took = time.perf_counter() - start
        return Trial(exercise.id, name, expected, _found(verdict), took)

    first = {f.__name__: f for f in exercise.functions}
    if exercise.found:
        found = {f.__name__.replace(AS_FOUND, ""): f for f in exercise.found}
        yield trial("as found", "failed", found)
    else:
        yield trial("stub", "not started", stub_functions(exercise))
    yield trial("solution", "passed", first)
    for m in exercise.mistakes:
        wrong = from_case(exercise, m.compute)
        yield trial(m.name, m.name, first | {exercise.name: wrong})
    for number, other in enumerate(exercise.others, 1):
        own = from_case(exercise, functools.partial(_spread, other))
        label = f"other {number}"
        yield trial(label, "passed", first | {exercise.name: own})


def _found(verdict: Verdict) -> str:
    return verdict.mistakes[0] if len(verdict.mistakes) == 1 else verdict.state


def _spread(other: Callable[[Any], Any], case: dict) -> Any:
    return other(SimpleNamespace(**case))


def from_case(exercise: Exercise, compute: Callable[[dict], Any]) -> Callable:
    """A function of the case as a learner's function of its inputs."""
    names = exercise.parameters()

    def function(*inputs: Any) -> Any:
        value = compute(dict(zip(names, inputs, strict=True)))
        return value[0] if isinstance(value, tuple) and len(value) == 1 else value

    return function


def stub_functions(exercise: Exercise) -> dict[str, Callable]:
    """The functions of the untouched stub."""
    module: dict[str, Any] = {}
    exec(compile(stub(exercise), exercise.file, "exec"), module)
    return {f.__name__: module[f.__name__] for f in exercise.functions}


def counts(ts: list[Trial]) -> tuple[int, int, int, int, str]:
    """(mistakes, named rightly, other right answers, accepted, slowest)."""
    fixed = ("stub", "as found", "solution")
    others = [t for t in ts if t.answer.startswith("other ")]
    wrong = [t for t in ts if t not in others and t.answer not in fixed]
    return (
        len(wrong), sum(t.right for t in wrong), len(others),
        sum(t.right for t in others), f"{max(t.seconds for t in ts):.2f}",
    )  # fmt: skip


def markdown(found: dict[Exercise, list[Trial]]) -> str:
    """The table exercises x mistakes: what each grader names when it meets it."""
    lines = [
        "# Exercises and the mistakes that their graders name",
        "",
        "Written by `python -m lora_np exercises gate --write FILE`. Every mistake "
        "below is given to its grader as an answer, which must reject it and name it; "
        "every other right answer must pass.",
        "",
        "| exercise | answer | the grader says | right |",
        "|---|---|---|---|",
    ]
    for e, ts in found.items():
        says = {m.name: m.says for m in e.mistakes}
        for t in ts:
            told = says.get(t.found, t.found)
            mark = "yes" if t.right else f"NO, expected {t.expected}"
            told = told.replace("|", "\\|")
            lines.append(f"| {e.id} {e.title} | {t.answer} | {told} | {mark} |")
    return "\n".join(lines) + "\n"
