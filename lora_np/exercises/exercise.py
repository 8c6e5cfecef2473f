"""What an exercise is: its question, right answer, laws, known mistakes and hints."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from lora_np.exercises.cases import Case, Cases
from lora_np.quotients import Loss

TOLERANCE = 1e-9  # beside a complex step (1e-13) and sums in another order
KINDS = ("implement", "derive", "find the bug", "explain")


@dataclass(frozen=True)
class Mistake:
    """A known wrong answer: what it computes, in words, and the code."""

    name: str
    says: str  # completes the sentence "You computed …"
    compute: Callable[[Case], tuple]


@dataclass(frozen=True)
class Law:
    """A property of the right answer.

    says: what was broken, for the report; {arrays} stands for the failing ones.
    case: draws inputs. exact: equality bit for bit, for cases of whole numbers.
    judge(case, got) -> a sentence or "": replaces the comparison with what is wanted,
    where more than one answer is right. again: a case of a second call, which the judge
    is then given as well: judge(case, got, got again).
    """

    says: str
    case: Callable[[Cases], Case]
    exact: bool = False
    judge: Callable[..., str] | None = None
    again: Callable[[Case], Case] | None = None
    tolerance: float = TOLERANCE


@dataclass(frozen=True)
class Number:
    """A number that an explanation must come up with.

    want: computes it. wrong: named wrong values, each with a sentence.
    """

    name: str
    ask: str
    want: Callable[[], float]
    wrong: Mapping[str, Callable[[], float]] = field(default_factory=dict)
    tolerance: float = 0.0  # relative; 0 for counts


@dataclass(frozen=True, kw_only=True, eq=False)
class Exercise:
    """One exercise; see the catalogue for how they read.

    functions: the right answer (source shown as the solution). found: for "find the
    bug", the functions as they were found. want: inputs -> the outputs, computed by
    the toolkit and not by `functions`. others: different right answers, that the
    grader must accept.
    """

    id: str
    title: str
    kind: str
    minutes: int
    difficulty: int  # 1 to 3
    needs: tuple[str, ...] = ()
    ask: str
    hints: tuple[str, str, str]
    why: str
    follow_ups: tuple[tuple[str, str], tuple[str, str]]
    read: str  # where to look in the toolkit and the chapters
    functions: tuple[Callable, ...] = ()
    found: tuple[Callable, ...] = ()
    returns: tuple[str, ...] = ()
    want: Callable[[Case], Any] | None = None
    laws: tuple[Law, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    others: tuple[Callable[[Any], Any], ...] = ()
    numbers: tuple[Number, ...] = ()
    rubric: tuple[str, ...] = ()
    view: Callable[[tuple], tuple] | None = None  # what mistakes are told apart by

    @property
    def name(self) -> str:
        """The function to write (the first, if several), or "" for an explanation."""
        return self.functions[0].__name__ if self.functions else ""

    @property
    def file(self) -> str:
        """The name of the learner's file."""
        return f"{self.id}_{self.name or 'explain'}.py"

    def parameters(self, function: Callable | None = None) -> list[str]:
        """Names of the inputs of a function (default: the first)."""
        return list(inspect.signature(function or self.functions[0]).parameters)


def as_tuple(value: Any) -> tuple:
    """One output or several, as a tuple.

    >>> as_tuple(3), as_tuple((1, 2))
    ((3,), (1, 2))
    """
    return value if isinstance(value, tuple) else (value,)


def mistake(
    name: str,
    says: str,
    all: Callable[[Any], Any] | None = None,
    /,
    **outputs: Callable[[Any], Any],
) -> tuple[str, str, Callable | None, dict]:
    """A mistake before it knows its exercise: all outputs wrong, or the named ones.

    The functions take the case as a namespace: lambda c: c.dy.T @ c.x
    """
    return name, says, all, outputs


def mistakes(
    right: Callable, returns: tuple[str, ...], *listed: tuple
) -> tuple[Mistake, ...]:
    """Bind mistakes to the right answer: outputs that are not named stay right."""
    inputs = list(inspect.signature(right).parameters)

    def bind(name: str, says: str, whole: Callable | None, parts: dict) -> Mistake:
        if unknown := set(parts) - set(returns):
            raise ValueError(f"mistake {name!r} changes {unknown}, not in {returns}")

        def compute(case: Case) -> tuple:
            c = SimpleNamespace(**case)
            if whole is not None:
                return as_tuple(whole(c))
            good = as_tuple(right(**{p: case[p] for p in inputs}))
            return tuple(
                parts[k](c) if k in parts else y
                for k, y in zip(returns, good, strict=True)
            )

        return Mistake(name, says, compute)

    return tuple(bind(*item) for item in listed)


def derivative(
    forward: Callable[[Any], Any],
    of: Mapping[str, str],
    *,
    cotangent: str | tuple[str, ...] = "dy",
    method: str = "complex",
) -> Callable[[Case], tuple]:
    """What a derived backward must return: our forward, differentiated numerically.

    forward: inputs as a namespace -> output(s). of: name of the gradient -> input.
    method: "exact" (steps of 1 and 2; for what is linear in each entry), "complex" or
    "central", as in `lora_np.quotients`. A probe of other than whole numbers takes the
    complex step where "exact" is asked for: the same slope, within rounding.

    >>> d = derivative(lambda c: c.x * c.w, {"dx": "x"}, method="exact")
    >>> d({"x": np.array([1.0]), "w": np.array([3.0]), "dy": np.array([2.0])})
    (array([6.]),)
    """
    names = (cotangent,) if isinstance(cotangent, str) else cotangent

    def want(case: Case) -> tuple:
        def f(**inputs: Any) -> tuple:
            return forward(SimpleNamespace(**inputs)), None

        loss = Loss(f, case, tuple(np.asarray(case[n]) for n in names))
        how = method
        if method == "exact" and not all(map(_whole, case.values())):
            how = "complex"
        quotient = {"exact": loss.exact, "complex": loss.complex_step,
                    "central": loss.central}[how]  # fmt: skip
        found = []
        for array in of.values():
            x = case[array]
            q = None if x is None else quotient(array)
            assert q is None or not q.bent.any(), f"not linear in {array}"
            found.append(None if q is None else q.want.astype(x.dtype))
        return tuple(found)

    return want


def _whole(value: Any) -> bool:
    """Whether arithmetic on it is exact: whole numbers, or a dyadic scale."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        return bool(np.array_equal(4 * value, np.round(4 * value)))
    return not isinstance(value, float) or float(4 * value).is_integer()


@functools.cache
def probes(exercise: Exercise) -> tuple[Case, ...]:
    """Three probes for each law of the exercise."""
    return tuple(
        law.case(Cases.probe(number)) for law in exercise.laws for number in range(3)
    )
