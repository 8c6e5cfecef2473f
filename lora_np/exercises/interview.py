"""A mock interview: a drawn set, a clock, no hints, a report with rubric at the end."""

import random
import time
from dataclasses import dataclass
from pathlib import Path

from lora_np.exercises import catalogue, report, stubs
from lora_np.exercises.check import check_file, unchanged
from lora_np.exercises.exercise import KINDS, Exercise
from lora_np.exercises.grade import Verdict
from lora_np.exercises.progress import Progress, free_name
from lora_np.exercises.records import MOST_MINUTES
from lora_np.files.weights import write_beside

CODE_RUBRIC = {
    "implement": (
        "shapes said aloud before a line was written",
        "the formula named, not recalled as code",
        "tried on an input with pairwise different sizes, and on the extreme one",
        "the cost named: multiply-adds, and what is stored",
    ),
    "derive": (
        "the forward written in indices, and the chain rule named",
        "each gradient's shape checked against what it is the gradient of",
        "sums over shared uses found: rows, repeated ids, broadcast axes",
        "a gradient check proposed, with the step and why",
    ),
    "find the bug": (
        "the symptom reproduced before anything was changed",
        "the law named that the code breaks, and an input that shows it",
        "one cause repaired, not the symptom; nothing else touched",
        "a test proposed that would have caught it",
    ),
}


@dataclass(frozen=True)
class Interview:
    """One that runs: its folder, exercises, start (seconds since 1970) and length."""

    folder: Path
    ids: tuple[str, ...]
    start: float
    minutes: int

    @property
    def end(self) -> float:
        return self.start + 60 * self.minutes

    def path(self, exercise: Exercise) -> Path:
        """The candidate's file."""
        return self.folder / exercise.file


def draw(minutes: int, passed: set[str], seed: int | None) -> list[Exercise]:
    """Exercises that fit into the time: of each kind in turn, those not passed first.

    Raises ValueError where not even one fits.
    """
    rng = random.Random(seed)
    pools: dict[str, list[Exercise]] = {kind: [] for kind in KINDS}
    for e in catalogue.exercises():
        pools[e.kind].append(e)
    for pool in pools.values():
        rng.shuffle(pool)
        pool.sort(key=lambda e: e.id in passed)
    kinds = ["derive", "find the bug", "implement", "explain"]
    chosen: list[Exercise] = []
    left = minutes
    while kinds:
        kind = kinds.pop(0)
        fitting = [e for e in pools[kind] if e.minutes <= left and e not in chosen]
        if fitting:
            chosen.append(fitting[0])
            left -= fitting[0].minutes
            kinds.append(kind)
    if not chosen:
        shortest = min(e.minutes for e in catalogue.exercises())
        raise ValueError(
            f"no exercise fits into {minutes} minutes; the shortest takes {shortest}"
        )
    return sorted(chosen, key=lambda e: e.id)


def begin(progress: Progress, minutes: int, seed: int | None) -> Interview:
    """Draw, write the stubs into a folder of their own, and start the clock.

    Raises ValueError for a length that nothing fits or that exceeds a day.
    """
    if minutes > MOST_MINUTES:
        raise ValueError(f"an interview takes at most {MOST_MINUTES} minutes")
    chosen = draw(minutes, progress.passed(), seed)
    folder = free_name(progress.folder / time.strftime("interview-%Y%m%d-%H%M"))
    for e in chosen:
        write_beside(folder / e.file, stubs.stub(e).encode())
    made = Interview(folder, tuple(e.id for e in chosen), time.time(), minutes)
    with progress.change() as data:
        data["interview"] = {
            "folder": folder.name, "ids": list(made.ids),
            "start": made.start, "minutes": minutes,
        }  # fmt: skip
    return made


def running(progress: Progress) -> Interview | None:
    """The interview that was begun and not finished."""
    kept = progress.data.get("interview")
    if kept is None:
        return None
    return Interview(progress.folder / kept["folder"], tuple(kept["ids"]),
                     float(kept["start"]), kept["minutes"])  # fmt: skip


def finish(progress: Progress, held: Interview) -> str:
    """Grade everything, write the report, record what was done, end the interview."""
    graded = []
    for id in held.ids:
        e, path = catalogue.load(id), held.path(catalogue.load(id))
        there = path.is_file()
        if there and not unchanged(e, path):
            verdict = check_file(e, path)
        else:
            verdict = Verdict(e, "not started")
        late = path.stat().st_mtime - held.end if there else 0.0
        graded.append((e, verdict, late))
    text = _report(held, graded)
    write_beside(held.folder / "report.txt", text.encode())
    for e, verdict, late in graded:
        if verdict.state != "not started":
            progress.record(e, verdict.passed and late <= 0)
    with progress.change() as data:
        if running(progress) == held:
            data.pop("interview", None)
    return text


def _report(held: Interview, graded: list[tuple[Exercise, Verdict, float]]) -> str:
    used = min(time.time(), held.end) - held.start
    in_time = [e for e, v, late in graded if v.passed and late <= 0]
    lines = [
        f"Interview of {held.minutes} minutes, {used / 60:.0f} used: "
        f"{len(in_time)} of {len(graded)} solved",
        "",
    ]
    for e, verdict, late in graded:
        state = verdict.state
        if late > 0 and state != "not started":
            state += f", but saved {late / 60:.0f} min after the end: not counted"
        lines.append(f"{e.id}  {e.title} ({e.kind}, {e.minutes} min): {state}")
        lines += [f"      {line}" for line in _short(verdict)]
    lines += ["", "What an interviewer would ask next:"]
    for e, _, _ in graded:
        for question, answer in e.follow_ups:
            lines += ["", f"  {e.id}  {question}", *_wrapped(answer, "       ")]
    spoken = [e for e, _, _ in graded if e.rubric]
    if spoken:
        lines += ["", "Rubric of the explanations; each line is one point:"]
        for e in spoken:
            lines += [f"  {e.id}  {e.title}"]
            for point in e.rubric:
                lines += _wrapped(point, "      [ ] ")
    kinds = [kind for kind in CODE_RUBRIC if any(e.kind == kind for e, _, _ in graded)]
    for kind in kinds:
        lines += ["", f"Rubric of the code, {kind}; each line is one point:"]
        lines += [f"  [ ] {point}" for point in CODE_RUBRIC[kind]]
    return "\n".join(lines) + "\n"


def _short(verdict: Verdict) -> list[str]:
    """What was wrong, with the smallest input that shows it."""
    if verdict.numbers:
        return [f"{n}: {says}" for n, _, right, says in verdict.numbers if not right]
    if verdict.fault and verdict.state == "failed":
        shown = report.counterexample(verdict.fault, verdict.exercise)
        says = verdict.fault.says.split("\n")[:1]
        return [*says, *shown.splitlines(), *verdict.computed]
    return []


def _wrapped(text: str, lead: str) -> list[str]:
    return report.wrapped(text, lead)


def clock(seconds: float) -> str:
    """Time left in words.

    >>> clock(125), clock(-5)
    ('2 min 05 s left', 'the time is over')
    """
    if seconds <= 0:
        return "the time is over"
    return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s left"
