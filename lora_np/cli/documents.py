"""documents: every claim of the five articles, computed again, with its verdict."""

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from tqdm import tqdm

from lora_np.cli.common import natural, table
from lora_np.data.fetch import SOURCES, available
from lora_np.documents import DOCUMENTS, optional
from lora_np.documents.ledger import Claim, Finding, check, select

HELP = "compute every claim of the five articles and its verdict"
EXAMPLE = """examples:
  python -m lora_np documents
  python -m lora_np documents --only D4
  python -m lora_np documents --only D4.3 --json

verdicts: holds; holds when repaired (wrong as printed, right with the stated repair);
fails; not testable. Exit status 1 when a computed figure or verdict is not the written
one, or a fetched set cannot be read. All 46 claims take
about a minute and a half on 2 cores (150 CPU-seconds).
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `documents`."""
    parser.add_argument(
        "--only", metavar="ID", help="a document (D4) or a claim (D4.3)"
    )
    parser.add_argument(
        "--optional",
        action="store_true",
        help="run the fetched optional sets instead of the ledger",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--jobs", type=natural, default=min(2, os.cpu_count() or 1),
                        help="processes; 0 or 1 for this one alone (2)")  # fmt: skip


# Long claims whose trainings no claim outside their group uses. All others share the
# adaptations of the base and go together, so that no process trains one again.
APART = (("D0.4", "D0.8"), ("D0.1",), ("D3.4",), ("D1.5",), ("D0.5",), ("D0.7",))


def groups(ids: list[str]) -> list[list[str]]:
    """The ids in groups that share no training, the largest first.

    >>> groups(["D0.4", "D0.6", "D0.8", "D0.9"])
    [['D0.6', 'D0.9'], ['D0.4', 'D0.8']]
    """
    apart = {i for group in APART for i in group}
    together = [i for i in ids if i not in apart]
    each = [together, *([i for i in group if i in ids] for group in APART)]
    return [group for group in each if group]


def check_by_id(id: str) -> Finding:
    """`check` of the claim called `id`."""
    return check(select(DOCUMENTS, id)[0])


def check_group(ids: list[str]) -> list[Finding]:
    """`check` of claims that share their runs, for a worker process."""
    return [check_by_id(id) for id in ids]


def findings_of(claims: list[Claim], jobs: int) -> Iterator[Finding]:
    """Findings as they come, computed in `jobs` processes."""
    if jobs < 2 or len(claims) < 2:
        yield from map(check, claims)
        return
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one each: see speed
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(check_group, g) for g in groups([c.id for c in claims])]
        for done in as_completed(waiting):
            yield from done.result()


def find(claims: list[Claim], jobs: int) -> list[Finding]:
    """Findings in the order of the claims."""
    bar = tqdm(total=len(claims), desc="claims", disable=None, leave=False)
    found = {}
    for finding in findings_of(claims, jobs):
        found[finding.id] = finding
        bar.update()
    bar.close()
    return [found[c.id] for c in claims]


def show(finding: Finding) -> None:
    """One claim on the terminal: id, verdict, what it says, figures, contradictions."""

    def wrapped(text: str, first: str = "      ", rest: str = "      ") -> str:
        return textwrap.fill(text, 88, initial_indent=first, subsequent_indent=rest)

    print(f"{finding.id:<6}[{finding.verdict or 'no verdict'}]")
    print(wrapped(finding.said))
    for figure in finding.figures:
        print(wrapped(str(figure), "        ", "          "))
    print(wrapped(finding.because))
    for note in finding.notes:
        print(wrapped(note, "      note: "))
    for line in finding.contradictions:
        print(wrapped(line, "      CONTRADICTION: ", "        "))


def run_optional() -> int:
    """Print what the optional sets gave; a sentence for each that is not here.

    1 when a set that is here cannot be read.
    """
    rows = [["task (LoRA r 8 on the embedded base)", "measure", "before", "after"]]
    unread = 0
    for name in tqdm(SOURCES, disable=None, leave=False):
        if available(name):
            try:
                found = optional.run(name)
            except ValueError as error:  # a corrupt archive costs its own row only
                rows.append([f"{name}: {error}", "", "", ""])
                unread += 1
                continue
            rows += [[r.task, r.measure, f"{r.before:.3f}", f"{r.after:.3f}"]
                     for r in found]  # fmt: skip
        else:
            rows.append(
                [f"{name}: not here; python -m lora_np fetch {name}", "", "", ""]
            )
    print(table(rows, right=[2, 3]))
    return 1 if unread else 0


def run(options: argparse.Namespace) -> int:
    """Print the ledger; 1 when something computed contradicts what is written."""
    if options.optional:
        if options.only or options.json:
            raise ValueError("--optional stands alone: it prints its own table")
        return run_optional()
    claims = select(DOCUMENTS, options.only)
    findings = {f.id: f for f in find(claims, options.jobs)}
    bad = [f for f in findings.values() if f.contradictions]
    if options.json:
        shown = [
            {"document": d.name, "title": d.title, "author": d.author,
             "system": d.system,
             "claims": [f.as_dict() for i, f in findings.items() if i in d.claims]}
            for d in DOCUMENTS
        ]  # fmt: skip
        json.dump({"documents": [d for d in shown if d["claims"]]}, sys.stdout,
                  ensure_ascii=False, indent=2)  # fmt: skip
        print()
        return 1 if bad else 0
    for d in DOCUMENTS:
        own = [f for i, f in findings.items() if i in d.claims]
        if own:
            print(f"\n{d.name}  {d.title}\n    {d.author}\n    {d.system}\n")
            for finding in own:
                show(finding)
    counts: dict[str, int] = {}
    for f in findings.values():
        counts[f.verdict or "no verdict"] = counts.get(f.verdict or "no verdict", 0) + 1
    summary = ", ".join(f"{n} x {verdict!r}" for verdict, n in counts.items())
    word = "claim" if len(findings) == 1 else "claims"
    print(f"\n{len(findings)} {word}: {summary}")
    print("every figure is as written, within its tolerance, and so is every verdict"
          if not bad else
          f"{len(bad)} contradicted: {', '.join(f.id for f in bad)}")  # fmt: skip
    return 1 if bad else 0
