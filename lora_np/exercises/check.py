"""Checking an answer: a file in the terminal, or functions in a notebook."""

import inspect
import math
import numbers
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lora_np.exercises import catalogue, report, stubs
from lora_np.exercises.candidate import (
    Direct,
    FileAnswer,
    ForkedAnswer,
    Trouble,
    source_line,
)
from lora_np.exercises.compare import kind_of
from lora_np.exercises.examine import Fault, trouble_in_words
from lora_np.exercises.exercise import Exercise, Number
from lora_np.exercises.grade import Verdict, grade
from lora_np.exercises.progress import existing
from lora_np.exercises.worker import REFUSED

WORDS = 10  # fewer are no answer to "explain"


def check(*functions: Callable | str, **values: Any) -> None:
    """Check an answer in a notebook, and print the report.

    check(my_function): the exercise is found by the function's name; where an exercise
    has two functions, pass both. check("e18", trainable=..., answer="..."): an
    explanation. The functions run in a fork of this session with limits of time and
    memory (on Windows, which has no fork, without). The result is added to the progress
    of the terminal, where there is a folder my_exercises with some (or this is it).
    """
    verdict = verdict_of(*functions, **values)
    print(report.text(verdict), end="")
    kept = existing()
    if kept is not None and verdict.state != "not started":
        kept.record(verdict.exercise, verdict.passed)
        for note in kept.notes:
            print(f"note: {note}")


def verdict_of(*functions: Callable | str, **values: Any) -> Verdict:
    """As `check`, returning the verdict instead of printing it."""
    if len(functions) == 1 and isinstance(functions[0], str):
        exercise = catalogue.find(functions[0])
        if exercise.functions:
            raise TypeError(
                f"{exercise.id} asks for a function: check({exercise.name})"
            )
        return grade_words(exercise, values)
    if not functions or not all(callable(f) for f in functions):
        raise TypeError(
            "check takes functions, check(softmax), or an id with values, "
            'check("e18", trainable=..., answer="...")'
        )
    named = {_name(f): f for f in functions if not isinstance(f, str)}
    exercise = catalogue.find(next(iter(named)))
    for name, function in named.items():
        if used := borrowed(function):
            says = f"{name} uses {used}: {REFUSED}"
            return Verdict(exercise, "failed", Fault("raised", says))
    if hasattr(os, "fork"):
        answer = ForkedAnswer(named)
        try:
            return grade(exercise, answer)
        finally:
            answer.close()
    return grade(exercise, Direct(named))


def _name(function: Callable) -> str:
    """A function's name; partials and objects that can be called have none."""
    name = getattr(function, "__name__", None)
    if not isinstance(name, str):
        raise TypeError(
            f"check finds the exercise by the function's name, and a "
            f"{type(function).__name__} has none: write it with def"
        )
    return name


def borrowed(function: Callable) -> str:
    """The name by which a function uses something of lora_np, or ""."""
    inner = inspect.unwrap(function)
    code = getattr(inner, "__code__", None)
    for name in code.co_names if code else ():
        value = inner.__globals__.get(name)  # type: ignore[attr-defined]
        home = value.__name__ if inspect.ismodule(value) else (
            getattr(value, "__module__", None)
        )  # fmt: skip
        thing = callable(value) or inspect.ismodule(value)
        if thing and str(home).split(".")[0] == "lora_np":
            return name
    return ""


def check_file(exercise: Exercise, path: str | Path) -> Verdict:
    """Check a learner's file; it runs in a process of its own.

    Raises FileNotFoundError that says how to start.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no {path}; begin with: python -m lora_np exercises start {exercise.id}"
        )
    answer = FileAnswer(path)
    try:
        if answer.load_trouble is not None:
            return _not_loaded(exercise, answer.load_trouble, answer.file)
        if exercise.kind == "explain":
            names = [n.name for n in exercise.numbers] + ["answer"]
            return grade_words(exercise, answer.get(names))
        return grade(exercise, answer)
    finally:
        answer.close()


def _not_loaded(exercise: Exercise, trouble: Trouble, file: str) -> Verdict:
    """The file does not even run: a syntax error, an import, an endless loop."""
    if trouble.line and not trouble.text:
        text = source_line(file, trouble.line)
        trouble = Trouble(trouble.type, trouble.message, trouble.line, text)
    fault = Fault("raised", trouble_in_words(trouble), trouble=trouble)
    return Verdict(exercise, "failed", fault)


def grade_words(exercise: Exercise, values: Mapping[str, Any]) -> Verdict:
    """An explanation: its numbers are checked, its words must exist.

    The rubric is shown once the numbers are right.
    """
    known = {n.name for n in exercise.numbers} | {"answer"}
    if unknown := set(values) - known:
        raise TypeError(
            f"{exercise.id} asks for {', '.join(sorted(known))}; got {min(unknown)}"
        )
    words = values.get("answer") or ""
    given = [values.get(n.name) for n in exercise.numbers]
    if all(v is None for v in given) and not str(words).strip():
        return Verdict(exercise, "not started", numbers=())
    rows = [
        (n.name, report.shown(v), *_judged(n, v))
        for n, v in zip(exercise.numbers, given, strict=True)
    ]
    count = len(words.split()) if isinstance(words, str) else 0
    if count < WORDS:
        says = "say it in a few sentences first; the rubric comes then"
        rows.append(("answer", f"{count} words", False, says))
    state = "passed" if all(right for _, _, right, _ in rows) else "failed"
    return Verdict(exercise, state, numbers=tuple(rows))


def _judged(number: Number, value: Any) -> tuple[bool, str]:
    """Whether a number is right, and what it is if it is a known wrong one."""
    if value is None:
        return False, "not filled in"
    if isinstance(value, np.ndarray) and value.shape == ():
        value = value[()]
    if not isinstance(value, numbers.Real) or isinstance(value, bool | np.bool_):
        return False, f"expected a number, got {kind_of(value)}"
    try:
        got = float(value)
    except OverflowError:
        got = math.inf
    if not math.isfinite(got):
        return False, "expected a finite number"

    def same(a: float, b: float) -> bool:
        return math.isclose(a, b, rel_tol=max(number.tolerance, 1e-12), abs_tol=1e-12)

    if same(got, number.want()):
        return True, ""
    for says, compute in number.wrong.items():
        if same(got, compute()):
            return False, says
    return False, "not right"


def unchanged(exercise: Exercise, path: str | Path) -> bool:
    """Whether a file is still the stub, apart from white space at the ends of lines."""

    def lines(text: str) -> list[str]:
        return [line.rstrip() for line in text.strip().splitlines()]

    return lines(Path(path).read_text("utf-8", "replace")) == lines(
        stubs.stub(exercise)
    )
