"""The wrong implementations as subjects, and which law catches which.

The catalogue's wrong pairs take the place of the right ones in `OwnSubject`; faults of
a layer's life (starting, merging, combining, saving) are subclasses of `OwnLayer` in
which one method is wrong. Pairs that are no LoRA layer have no laws; `check_pair`
certifies them, and the table says so.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lora_np.reference import WRONG as CATALOGUE
from lora_np.reference import Draw, Wrong, check_pair, pair
from lora_np.reference.conformance.laws import LAWS, Law
from lora_np.reference.conformance.mutant_layers import LIVES, Life
from lora_np.reference.conformance.run import FAIL, run_cell
from lora_np.reference.subjects.own import ConstantNormSubject, OwnSubject

CASES = 8  # of a law for one mutant: enough to catch it, and the table takes minutes
CERTIFIED = "certified"  # stands for check_pair in the table
COLUMNS: dict[str, tuple[tuple[str, str], ...]] = {
    "lora_linear": (("linear", "plain"), ("linear", "dropout")),
    "dora_linear": (("linear", "dora"),),
    "dora_constant_norm": (("linear", "dora"),),
    "lora_embedding": (("embedding", "plain"),),
    "lora_conv1d": (("conv1d", "strided"), ("conv1d", "dilated")),
    "lora_conv2d": (("conv2d", "strided"), ("conv2d", "dilated")),
    "lora_qkv": (("qkv", "plain"), ("qkv", "shared heads")),
    "lora_self_attention": (("attention", "plain"),),
    "lora_tied": (("tied", "plain"),),
    "lora_linear_tasks": (("tasks", "plain"),),
    "lora_lstm": (("lstm", "plain"),),
}


@dataclass(frozen=True)
class Mutant:
    """A wrong subject with the columns on which it is tried."""

    label: str
    why: str
    columns: tuple[tuple[str, str], ...]
    subject: Any = None
    wrong: Wrong | None = None


@dataclass(frozen=True)
class Verdict:
    """The laws that a mutant breaks, in the order of the laws."""

    mutant: Mutant
    caught: tuple[str, ...] = field(default=())


def from_catalogue(w: Wrong) -> Mutant:
    """A wrong pair as a subject; one that is no LoRA layer has none."""
    if w.pair not in COLUMNS:
        return Mutant(w.label, w.why, (), None, w)
    right = pair(w.pair)
    both = w.forward or right.forward, w.backward or right.backward
    if w.pair == "dora_constant_norm":
        return Mutant(w.label, w.why, COLUMNS[w.pair], ConstantNormSubject(both), w)
    return Mutant(w.label, w.why, COLUMNS[w.pair], OwnSubject({w.pair: both}), w)


def from_life(life: Life) -> Mutant:
    """A fault in the life of a layer."""
    return Mutant(f"life:{life.name}", life.why, life.columns, life.subject())


def mutants() -> tuple[Mutant, ...]:
    """All: the catalogue, then the lives."""
    return (*map(from_catalogue, CATALOGUE), *map(from_life, LIVES))


def breaks(mutant: Mutant, law: Law) -> bool:
    """Whether the law fails on one of the mutant's columns: by what it computes, not
    by raising."""
    for layer, option in mutant.columns:
        if law.speaks_of(layer, option):
            outcome = run_cell(
                mutant.subject, law, layer, option, shrink_seconds=0, most=CASES
            )
            if outcome.state == FAIL:
                return True
    return False


def caught_by(mutant: Mutant, laws: tuple[Law, ...] = LAWS) -> Iterator[str]:
    """Labels of the laws that the mutant breaks, in the order in which they are tried.

    laws: which, and in which order; who only wants the first puts likely ones first.
    """
    if mutant.subject is None:
        w = mutant.wrong
        assert w is not None
        rows = []
        for case in range(4):
            square = {0: True, 1: False}.get(case)
            rows += check_pair(
                pair(w.pair),
                lambda whole, c=case, q=square: Draw.seeded(c, whole, q, c),
                w.forward,
                w.backward,
            )
        if any(r.passed is False for r in rows):
            yield CERTIFIED
        return
    for law in laws:
        if breaks(mutant, law):
            yield law.label


def unique(verdicts: list[Verdict]) -> dict[str, list[str]]:
    """law -> the mutants that no other law catches."""
    alone: dict[str, list[str]] = {law.label: [] for law in LAWS}
    for v in verdicts:
        if len(v.caught) == 1 and v.caught[0] in alone:
            alone[v.caught[0]].append(v.mutant.label)
    return alone


def markdown(verdicts: list[Verdict]) -> str:
    """The table, and the laws that are the only ones to catch something."""
    lines = [
        "# Wrong implementations and the laws that catch them",
        "",
        "Written by `python -m lora_np conformance --mutants --write FILE`. A mutant "
        "of the catalogue that is no LoRA layer is certified by `check`.",
        "",
        "| mutant | what is wrong | caught by |",
        "|---|---|---|",
    ]
    for v in verdicts:
        why = v.mutant.why.replace("|", "\\|")
        caught = ", ".join(v.caught) or "NOTHING"
        lines.append(f"| {v.mutant.label} | {why} | {caught} |")
    return "\n".join(lines) + "\n"


__all__ = ["Mutant", "Verdict", "caught_by", "mutants", "unique"]
