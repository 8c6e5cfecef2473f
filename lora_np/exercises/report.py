"""What a learner reads after a check."""

import math
import textwrap
from typing import Any

import numpy as np

from lora_np.exercises import stubs
from lora_np.exercises.examine import Fault
from lora_np.exercises.exercise import Exercise
from lora_np.exercises.grade import Verdict
from lora_np.exercises.worker import Made, Strange

WIDTH = 88


def text(verdict: Verdict) -> str:
    """The report: state, shapes, law, smallest input, what was computed, where to look.

    The same text on every run with the same answer.
    """
    e = verdict.exercise
    title = f"{e.id}  {e.title}"
    if verdict.state == "not started":
        return f"{title}: not started\n\n  {_start(e)}\n"
    if verdict.numbers:
        return f"{title}: {verdict.state}\n\n{_numbers(verdict)}"
    if verdict.passed:
        return _passed(title, e)
    assert verdict.fault
    parts = [f"{title}: not yet", _shapes(verdict), _law(verdict.fault, e)]
    parts += [counterexample(verdict.fault, e)]
    parts += ["\n".join(verdict.computed)]
    if verdict.fault.printed:
        parts.append("your code printed:\n" + _indented(verdict.fault.printed))
    parts.append(_next(verdict))
    return "\n\n".join(p for p in parts if p) + "\n"


def _passed(title: str, e: Exercise) -> str:
    return "\n".join([f"{title}: passed", "", *_further(e)]) + "\n"


def _further(e: Exercise) -> list[str]:
    """What is offered after a pass."""
    lines = ["An interviewer would ask next:"]
    for question, _ in e.follow_ups:
        lines += wrapped(question, "  ")
    lines += ["", "The answers, and the solution with its why:"]
    return [*lines, f"  python -m lora_np exercises solution {e.id}"]


def _start(e: Exercise) -> str:
    if e.kind == "explain":
        return "fill in the numbers and the answer in words"
    return f"replace `raise NotImplementedError` in {e.name}"


def _shapes(verdict: Verdict) -> str:
    if not verdict.shapes or verdict.fault is None or verdict.fault.trouble:
        return ""
    rows = [("array", "shape got", "shape wanted", "")]
    rows += [(*row, _remark(row, verdict.fault)) for row in verdict.shapes]
    widths = [max(len(r[i]) for r in rows) for i in range(4)]
    return "\n".join(
        "  " + "  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip()
        for row in rows
    )


def _remark(row: tuple[str, str, str], fault: Fault) -> str:
    name, got, want = row
    if got == "-":
        return "not returned"
    if got == "raised":
        return "see below"
    if not got.startswith("("):
        return "not an array"
    if got != want:
        return "wrong shape"
    wrong = name in (*fault.arrays, *fault.all_arrays)
    wrong = wrong and fault.kind in ("values", "finite")
    return "differs" if wrong else ""


def _law(fault: Fault, e: Exercise) -> str:
    sentence = fault.says
    own = {
        *e.returns,
        *(p for f in e.functions for p in [f.__name__, *e.parameters(f)]),
    }
    if sentence.split()[0].rstrip(",") not in own:
        sentence = sentence[:1].upper() + sentence[1:]
    if not sentence.endswith((".", "?", "!", ")")):
        sentence += "."
    t = fault.trouble
    if t is None or not t.line:
        return sentence
    place = f"  line {t.line}: {t.text.strip()}"
    if t.column and t.text:
        lead = len(f"  line {t.line}: ") + t.column - 1
        lead -= len(t.text) - len(t.text.lstrip())
        place += "\n" + " " * max(0, lead) + "^"
    return f"{sentence}\n{place}"


def counterexample(fault: Fault, e: Exercise) -> str:
    """The smallest input, and on it what came out and what is wanted."""
    if not fault.case or fault.kind in ("dtype", "result"):
        return ""
    names = [p for f in e.functions for p in e.parameters(f)]
    given = {k: fault.case[k] for k in dict.fromkeys(names) if k in fault.case}
    lines = ["Smallest input found on which this shows:"]
    lines += [_named(k, v) for k, v in given.items()]
    if fault.kind in ("values", "shape", "finite"):
        shown = [i for i, n in enumerate(e.returns) if n in fault.arrays]
        lines.append("on which")
        for i in shown:
            if i < len(fault.got):
                lines.append(_named(f"got  {e.returns[i]}", fault.got[i]))
            if i < len(fault.want):
                lines.append(_named(f"want {e.returns[i]}", fault.want[i]))
                lines += _apart(e.returns[i], fault, i)
    return "\n".join(lines)


def _apart(name: str, fault: Fault, i: int) -> list[str]:
    """The difference, where both are printed alike."""
    got, want = fault.got[i], fault.want[i]
    both = [x for x in (got, want) if isinstance(x, np.ndarray | np.generic | float)]
    both = [x for x in both if np.asarray(x).dtype.kind in "iuf"]
    if len(both) < 2 or np.shape(got) != np.shape(want) or shown(got) != shown(want):
        return []
    with np.printoptions(precision=2, threshold=60, linewidth=70):
        text = str(np.asarray(got) - np.asarray(want))
    lead = f"  got - want ({name}) = "
    return [lead + text.replace("\n", "\n" + " " * len(lead))]


def _named(name: str, value: Any) -> str:
    """`  name = value`, arrays below each other, long ones cut."""
    lead = f"  {name} = "
    return lead + shown(value, len(lead))


def shown(value: Any, indent: int = 0) -> str:
    """A value as a learner would type it.

    >>> shown(np.array([[1.0, -2.0]])), shown(0.5), shown((2, 1))
    ('[[ 1. -2.]]', '0.5', '(2, 1)')
    """
    if isinstance(value, np.ndarray):
        if value.size == 0:
            return f"an empty array of shape {value.shape}"
        with np.printoptions(precision=6, suppress=True, threshold=60, linewidth=70):
            return str(value).replace("\n", "\n" + " " * indent)
    if isinstance(value, float | np.floating):
        return f"{value:.10g}" if math.isfinite(value) else str(float(value))
    if isinstance(value, Made):
        return (f"np.random.default_rng({value.values})" if value.kind == "rng" else
                _cubic(value))  # fmt: skip
    if isinstance(value, Strange):
        return f"a {value.type_name}"
    try:
        return str(value)[:300]
    except (ValueError, RecursionError):  # more digits, or depth, than Python prints
        return f"a {type(value).__name__} too large to print"


def _cubic(made: Made) -> str:
    a, b, c, pairs = (shown(v).replace("\n", "") for v in made.values)
    return (f"a function of x: sum(a x³ + b x² + c x) + sum(d x[:-1] x[1:]), with "
            f"a = {a}, b = {b}, c = {c}, d = {pairs}")  # fmt: skip


def wrapped(text: str, lead: str) -> list[str]:
    """A paragraph in lines of the report's width, indented below its lead.

    >>> wrapped("one two", "- ")
    ['- one two']
    """
    below = " " * len(lead)
    words = " ".join(text.split())
    return textwrap.wrap(
        words, WIDTH, initial_indent=lead, subsequent_indent=below,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def solution(exercise: Exercise) -> str:
    """The solution with its why, and what interviewers ask next."""
    lines = [f"{exercise.id}  {exercise.title}", ""]
    lines += [stubs.solution(exercise).rstrip(), "", "Why", ""]
    for paragraph in textwrap.dedent(exercise.why).strip().split("\n\n"):
        lines += [*wrapped(paragraph, "  "), ""]
    if exercise.numbers:
        lines += ["Numbers", ""]
        lines += [f"  {n.name} = {shown(float(n.want()))}" for n in exercise.numbers]
        lines += [""]
    lines += ["What interviewers ask next", ""]
    for question, answer in exercise.follow_ups:
        lines += [*wrapped(question, "  "), *wrapped(answer, "      "), ""]
    return "\n".join([*lines, f"To read: {exercise.read}"]) + "\n"


def _indented(block: str) -> str:
    return "\n".join("  " + line for line in block.rstrip().split("\n")[:12])


def _next(verdict: Verdict) -> str:
    e = verdict.exercise
    return f"Next: python -m lora_np exercises hint {e.id}    To read: {e.read}"


def _numbers(verdict: Verdict) -> str:
    e = verdict.exercise
    lines = [
        f"  {name} = {got}: {'right' if right else says}"
        for name, got, right, says in verdict.numbers
    ]
    if not verdict.passed:
        return "\n".join(lines) + f"\n\nTo read: {e.read}\n"
    lines += ["", "Compare your words with this; each line is one point:"]
    lines += [f"  [ ] {point}" for point in e.rubric]
    return "\n".join([*lines, "", *_further(e)]) + "\n"
