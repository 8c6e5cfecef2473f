"""The ledger: a claim, the code that tests it, the figures it gave, the verdict.

Every figure is written down beside its computation, and so is every verdict. `check`
computes both again; a figure or a verdict that came out otherwise is a contradiction.
"""

import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

HOLDS, REPAIRED = "holds", "holds when repaired"
FAILS, UNTESTABLE = "fails", "not testable"
VERDICTS = (HOLDS, REPAIRED, FAILS, UNTESTABLE)


@dataclass(frozen=True)
class Figure:
    """A computed number beside the one that is written in the code."""

    key: str
    what: str
    value: float
    written: str
    within: float
    unit: str

    @property
    def agrees(self) -> bool:
        """Whether the computed value is the written one, to `within`."""
        return abs(self.value - float(self.written)) <= self.within

    def __str__(self) -> str:
        if self.unit == "yes or no":
            return f"{self.what}: {'yes' if self.value else 'no'}"
        text = f"{self.value:,}" if isinstance(self.value, int) else self._rounded()
        return f"{self.what}: {text}{self.unit and ' ' + self.unit}"

    def _rounded(self) -> str:
        """With as many digits as the written value has; a written zero, its power."""
        if float(self.written) == 0.0 and self.value != 0.0:
            return f"{self.value:.0e}"
        if "e" in self.written:
            return f"{self.value:.{len(self.written.split('e')[0].partition('.')[2])}e}"
        return f"{self.value:.{len(self.written.partition('.')[2])}f}"


def half_a_digit(written: str) -> float:
    """Half a unit of the last written digit: what rounding may hide.

    >>> half_a_digit("0.68"), half_a_digit("3e-7")
    (0.005, 5e-08)
    """
    mantissa, _, exponent = written.partition("e")
    return 0.5 * 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


@dataclass
class Evidence:
    """What a claim's test collects: figures, and what they say of the claim."""

    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    verdict: str | None = None

    def figure(
        self, key: str, what: str, value: float, written: str, unit: str = "",
        within: float | None = None,
    ) -> float:  # fmt: skip
        """Record a number; `written` is what it came out as when this was written.

        It must round to the written digits; an integer must be equal. `within` widens
        this to an absolute tolerance, for results of training in float32, whose last
        digits differ between processors.
        """
        if any(key == f.key for f in self.figures):
            raise ValueError(f"the figure {key!r} is computed already")
        value = int(value) if isinstance(value, int | np.integer) else float(value)
        if within is None:
            within = 0.0 if isinstance(value, int) else 1.001 * half_a_digit(written)
        self.figures.append(Figure(key, what, value, written, within, unit))
        return value

    def note(self, text: str) -> None:
        """A sentence for the reader, for instance what an absent package would add."""
        self.notes.append(text)

    def conclude(self, as_stated: bool, repaired: bool = False) -> None:
        """The verdict that the figures give.

        as_stated: does the claim hold as it is printed? repaired: does it hold once the
        stated repair is made?
        """
        self.verdict = HOLDS if as_stated else REPAIRED if repaired else FAILS

    def undecidable(self) -> None:
        """There is no experiment that could decide the claim."""
        self.verdict = UNTESTABLE


@dataclass(frozen=True)
class Claim:
    """One claim of a document.

    said: the claim in our own words. because: the reason, with {key} for figures.
    """

    id: str
    said: str
    verdict: str
    because: str
    test: Callable[[Evidence], None]


@dataclass(frozen=True)
class Document:
    """An article: how a reader recognises it, and its claims."""

    name: str
    title: str
    author: str
    system: str
    claims: dict[str, Claim] = field(default_factory=dict)

    def claim(self, id: str, said: str, verdict: str, because: str) -> Callable:
        """Decorate the function that tests a claim.

        Raises ValueError for an id of another document or used twice, or a verdict that
        does not exist.
        """
        if not id.startswith(self.name + ".") or id in self.claims:
            raise ValueError(f"claim {id!r} is of another document or there already")
        if verdict not in VERDICTS:
            raise ValueError(f"verdict must be one of {VERDICTS}, got {verdict!r}")

        def add(test: Callable[[Evidence], None]) -> Callable[[Evidence], None]:
            self.claims[id] = Claim(id, said, verdict, because, test)
            return test

        return add


@dataclass
class Finding:
    """A claim after its test: figures, computed verdict, what contradicts."""

    id: str
    said: str
    written_verdict: str
    verdict: str | None
    because: str
    figures: list[Figure]
    notes: list[str]
    contradictions: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        own = {k: getattr(self, k) for k in ("id", "said", "verdict", "because",
                                             "notes", "contradictions")}  # fmt: skip
        figures = [
            {"key": f.key, "what": f.what, "value": f.value, "unit": f.unit,
             "written": f.written, "within": f.within}
            for f in self.figures
        ]  # fmt: skip
        return own | {"written_verdict": self.written_verdict, "figures": figures}


def check(claim: Claim) -> Finding:
    """Run a claim's test and compare with what is written.

    An exception in the test is a contradiction, not the end of the run.
    """
    evidence, wrong = Evidence(), []
    try:
        claim.test(evidence)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{last.filename.rsplit('/', 1)[-1]}, line {last.lineno}"
        wrong.append(f"the test raised {type(error).__name__}: {error} ({place})")
    wrong += [
        f"{f.what}: computed {f.value:.10g}, written {f.written} (± {f.within:.2g})"
        for f in evidence.figures
        if not f.agrees
    ]
    if not wrong and evidence.verdict != claim.verdict:
        wrong.append(f"verdict: computed {evidence.verdict!r}, "
                     f"written {claim.verdict!r}")  # fmt: skip
    if not evidence.figures and not wrong:
        wrong.append("the test computed no figure")
    because = claim.because
    try:
        because = because.format(**{f.key: f.value for f in evidence.figures})
    except (KeyError, ValueError) as error:
        if not any(w.startswith("the test raised") for w in wrong):
            wrong.append(f"the reason names a figure that was not computed: {error}")
    return Finding(
        claim.id, claim.said, claim.verdict, evidence.verdict, because,
        evidence.figures, evidence.notes, wrong,
    )  # fmt: skip


def select(documents: Iterable[Document], only: str | None = None) -> list[Claim]:
    """All claims, those of one document ("D4"), or one ("D4.3").

    Raises KeyError that lists the ids.
    """
    documents = list(documents)
    only = None if only is None else only.upper()  # "" is no id
    every = sorted(
        (c for d in documents for c in d.claims.values()),
        key=lambda c: (c.id.split(".")[0], int(c.id.split(".")[1])),
    )
    chosen = [c for c in every if only in (None, c.id, c.id.split(".")[0])]
    if not chosen:
        raise KeyError(
            f"no document or claim {only!r}; the documents are "
            f"{', '.join(d.name for d in documents)}, the claims "
            f"{', '.join(c.id for c in every)}"
        )
    return chosen
