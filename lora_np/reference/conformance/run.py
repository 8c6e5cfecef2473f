"""Running laws on a subject: one cell, all cells, and the cell's outcome."""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lora_np.reference.conformance.case import COLUMNS, Case
from lora_np.reference.conformance.check import Check
from lora_np.reference.conformance.laws import LAWS, Law
from lora_np.reference.conformance.observe import Observed
from lora_np.reference.conformance.protocol import NotOffered
from lora_np.reference.conformance.record import Literal, last_lines

PASS, FAIL, MISSING, ERROR = "pass", "fail", "not offered", "error"
SHRINK_SECONDS = 4.0


@dataclass(frozen=True)
class Outcome:
    """What came out of one law on one column.

    detail: why not offered, which check failed or what was raised. case: the smallest
    failing case in words. script: lines that reproduce it.
    """

    law: str
    layer: str
    option: str
    state: str
    detail: str = ""
    case: str = ""
    script: str = ""
    seconds: float = 0.0

    @property
    def place(self) -> str:
        """The cell in a word: law, layer, option."""
        return f"{self.law} on {self.layer}, {self.option}"


class _Enough(BaseException):
    """Leaves Hypothesis at once: nothing is offered, or no time is left to shrink."""


class _Broken(AssertionError):
    """A law does not hold."""


class _Cell:
    """One law on one column: the state that grows while cases are tried."""

    def __init__(self, subject: Any, law: Law, seconds: float):
        self.subject, self.law, self.seconds = subject, law, seconds
        self.missing: list[str] = []
        self.checks = 0
        self.failure: tuple[str, str, str, str] | None = None
        self.stop = float("inf")

    def attempt(self, case: Case) -> None:
        """Try one case; raises _Broken for Hypothesis to shrink."""
        if time.monotonic() > self.stop:
            raise _Enough
        if getattr(self.subject, "dora_constant_norm", False) and case.use_dora:
            case = replace(case, constant_norm=True)
        if hasattr(self.subject, "begin"):
            self.subject.begin()
        seen = Observed(self.subject)
        try:
            with np.errstate(all="ignore"):
                for check in self.law.run(seen, case):
                    self.checks += 1
                    if problem := check.error():
                        self._fail(FAIL, f"{check.label} {problem}", case, seen, check)
        except NotOffered as reason:
            self.missing.append(str(reason))
            if not self.checks and len(self.missing) >= 8:
                raise _Enough from None
        except _Broken:
            raise
        except (Exception, SystemExit) as error:
            said = f"{type(error).__name__}: {str(error).strip() or 'no message'}"
            place = where(error)
            self._fail(ERROR, said.split("\n")[0] + place, case, seen, None)

    def _fail(
        self, state: str, detail: str, case: Case, seen: Observed, check: Check | None
    ) -> None:
        if self.failure is None:
            self.stop = time.monotonic() + self.seconds
        script = reproduction(self.subject, self.law, case, seen, check)
        self.failure = state, detail, describe(case, seen.most), script
        raise _Broken(detail)


def where(error: BaseException) -> str:
    """The last line of the subject's that an exception passed."""
    frames = traceback.extract_tb(error.__traceback__)
    outside = [f for f in frames if "hypothesis" not in f.filename]
    if not outside:
        return ""
    last = outside[-1]
    parts = last.filename.replace("\\", "/").split("/")
    return f" ({'/'.join(parts[-2:])}:{last.lineno})"


def run_cell(
    subject: Any,
    law: Law,
    layer: str,
    option: str,
    effort: int = 1,
    shrink_seconds: float = SHRINK_SECONDS,
    most: int = 10**6,
) -> Outcome:
    """One law on one column, on drawn cases; a failing case is made small.

    effort: multiplies the law's number of cases; most: and no more than so many. Never
    raises for what the subject does, but a subject that hangs hangs here: see `worker`.
    """
    from hypothesis import HealthCheck, Phase, given, settings

    from lora_np.reference.strategies import cases

    cell = _Cell(subject, law, shrink_seconds)
    start = time.perf_counter()
    rules = settings(
        max_examples=min(law.examples * effort, most),
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )

    @rules
    @given(cases(layer, option))
    def attempt(case: Case) -> None:
        cell.attempt(case)

    try:
        attempt()
    except (_Enough, Exception):
        if not cell.failure and not cell.missing:
            raise
    took = time.perf_counter() - start
    if cell.failure:
        state, detail, case, script = cell.failure
        return Outcome(law.label, layer, option, state, detail, case, script, took)
    if not cell.checks:
        reason = cell.missing[0] if cell.missing else "nothing to ask here"
        return Outcome(law.label, layer, option, MISSING, reason, seconds=took)
    return Outcome(law.label, layer, option, PASS, seconds=took)


def cells(
    only: Sequence[str] = (),
    layers: Sequence[str] = (),
    options: Sequence[str] = (),
) -> Iterator[tuple[Law, str, str]]:
    """(law, layer, option) of the matrix; `only` takes groups and "group.name"."""
    for law in LAWS:
        if only and law.label not in only and law.group not in only:
            continue
        for layer, option in COLUMNS:
            if (
                (not layers or layer in layers)
                and (not options or option in options)
                and law.speaks_of(layer, option)
            ):
                yield law, layer, option


def run_all(
    subject: Any,
    chosen: Sequence[tuple[Law, str, str]],
    effort: int = 1,
    seen: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Every cell in this process."""
    found = []
    for law, layer, option in chosen:
        found.append(run_cell(subject, law, layer, option, effort))
        seen(found[-1])
    return found


def describe(case: Case, adapters: int = 1) -> str:
    """The case in a person's words, arrays as they would be typed."""
    lines = [f"r = {case.r}, lora_alpha = {case.lora_alpha:g}, dtype {case.dtype}"]
    shown = {**case.given, **case.factors, "dy": case.dy}
    for name, value in shown.items():
        if value is not None:
            lines.append(f"{name} = {Literal.of(value).replace('np.array', '')}")
    for number, other in enumerate(case.adapters[1:adapters], 2):
        factors = ", ".join(f"{n} = {Literal.of(a)}" for n, a in other.factors.items())
        lines.append(
            f"adapter {number}: r = {other.r}, lora_alpha = {other.lora_alpha:g}, "
            f"{factors.replace('np.array', '')}"
        )
    return "\n".join(lines)


def reproduction(
    subject: Any, law: Law, case: Case, seen: Observed, check: Check | None
) -> str:
    """The subject's own lines, or the calls that were made through the protocol."""
    head = f"# {law.label}: {law.says}\n"
    script = getattr(subject, "script", None)
    if script is not None:
        if check is None:
            return head + "\n".join(script.lines) + "\n"
        return head + script.text(check.label, check.got, check.want, check.limit)
    setup = getattr(subject, "setup", ("# subject = ...",))
    lines = [*setup, *stand_in(case), *seen.log.lines]
    if check is not None:
        lines += last_lines(seen.log.names, check)
    return head + "\n".join(lines) + "\n"


def stand_in(case: Case) -> list[str]:
    """Lines for an object with what factories read of a case, without this package."""
    kind = case.kind
    names = ("layer", "option", "r", "lora_alpha", "p", "dtype", "use_rslora",
             "use_dora", "fan_in_fan_out")  # fmt: skip
    items = ", ".join(f"{n}={getattr(case, n)!r}" for n in names)
    known = (f"weight={kind.weight!r}, inputs={kind.inputs!r}, "
             f"smooth_inputs={kind.smooth_inputs!r}")  # fmt: skip
    return [
        f"given = {Literal.of(case.given)}",
        f"factors = {Literal.of(case.factors)}",
        f"case = S({items}, given=given, factors=factors, W=given[{kind.weight!r}], "
        f"b=given.get('b'),",
        f"         dy={Literal.of(case.dy)}, inputs={Literal.of(case.inputs)},",
        f"         scale=lambda adapter=0: {case.scale()!r}, cast=lambda v: v, "
        f"kind=S({known}))",
    ]
