"""conformance: run the laws of LoRA against an implementation."""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

from lora_np.cli.common import natural, table
from lora_np.files.weights import write_beside

HELP = "run the laws of LoRA against an implementation: ours, peft, loralib, yours"
EXAMPLE = """examples:
  python -m lora_np conformance                           ours, all laws
  python -m lora_np conformance --subject peft --html peft.html
  python -m lora_np conformance --subject my_lora.py:factory --only gradient
  python -m lora_np conformance --subject 'command:./my_lora'
  python -m lora_np conformance --laws                    what is asked, and why
  python -m lora_np conformance --mutants                 which law catches which fault
  python -m lora_np conformance --findings                what it found elsewhere
  python -m lora_np conformance --golden vectors/         cases with answers, as files

Exit status: 0 when no law fails, 1 when one does or raises, 2 for an error in words.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `conformance`."""
    add = parser.add_argument
    add(
        "--subject",
        default="lora_np",
        metavar="WHAT",
        help="lora_np, peft, loralib, FILE.py:factory, command:PROGRAM (lora_np)",
    )
    add(
        "--only",
        action="append",
        default=[],
        metavar="LAW",
        help="a group or group.law, more than once",
    )
    add("--layer", action="append", default=[], help="a layer, more than once")
    add("--option", action="append", default=[], help="an option, more than once")
    add(
        "--effort", type=natural, default=1, help="multiplies the cases of each law (1)"
    )
    add(
        "--timeout",
        type=natural,
        default=60,
        metavar="S",
        help="seconds for one cell, after which the subject's process is ended (60)",
    )
    add(
        "--jobs",
        type=natural,
        default=min(2, os.cpu_count() or 1),
        help="processes (2)",
    )
    add("--details", action="store_true", help="print every failure, not the first six")
    add(
        "--json", metavar="FILE", help="write everything as JSON; - for standard output"
    )
    add("--html", type=Path, metavar="FILE", help="write a page")
    add("--scripts", type=Path, metavar="FOLDER", help="write a script a failure")
    add("--laws", action="store_true", help="list the laws with their reasons")
    add(
        "--mutants",
        action="store_true",
        help="the kept wrong implementations and the laws that catch them (minutes)",
    )
    add(
        "--write",
        type=Path,
        metavar="FILE",
        help="with --mutants: the table as Markdown",
    )
    add(
        "--findings",
        action="store_true",
        help="what was found in released libraries, with versions and judgement",
    )
    add("--golden", type=Path, metavar="FOLDER", help="write the golden vectors")


def run(options: argparse.Namespace) -> int:
    """0 when everything holds."""
    if options.laws:
        return list_laws()
    if options.findings:
        return list_findings()
    if options.golden:
        return write_golden(options.golden)
    if options.mutants:
        return run_mutants(options)
    from lora_np.reference.conformance import report
    from lora_np.reference.conformance.worker import SubjectError, run_apart

    chosen = choose(options)
    start = time.perf_counter()
    try:
        name, version, found = run_apart(
            options.subject,
            chosen,
            max(1, options.effort),
            max(1, options.timeout),
            max(1, options.jobs),
            progress(len(chosen)),
        )
    except SubjectError as error:
        raise RuntimeError(str(error)) from None
    took = time.perf_counter() - start
    if options.json == "-":
        print(report.to_json(name, version, found), end="")
        return 1 if report.bad(found) else 0
    print(f"LoRA conformance of {name} {version}".rstrip() + "\n")
    print(report.matrix(found))
    if report.bad(found):
        most = None if options.details else 6
        print("\n" + report.details(found, most))
    print(f"\n{report.counts(found)}, in {took:.0f} s")
    write_files(options, name, version, found)
    return 1 if report.bad(found) else 0


def choose(options: argparse.Namespace) -> list:
    """The cells. Raises ValueError that lists what there is."""
    from lora_np.reference.conformance.case import OPTIONS
    from lora_np.reference.conformance.laws import LAWS
    from lora_np.reference.conformance.run import cells

    labels = [law.label for law in LAWS]
    groups = sorted({law.group for law in LAWS})
    for word in options.only:
        if word not in labels and word not in groups:
            raise ValueError(f"no law {word!r}; groups are {', '.join(groups)}, laws "
                             f"{', '.join(labels)}")  # fmt: skip
    for word in options.layer:
        if word not in OPTIONS:
            raise ValueError(f"no layer {word!r}; there are {', '.join(OPTIONS)}")
    known = sorted({o for found in OPTIONS.values() for o in found})
    for word in options.option:
        if word not in known:
            raise ValueError(f"no option {word!r}; there are {', '.join(known)}")
    chosen = list(cells(options.only, options.layer, options.option))
    if not chosen:
        raise ValueError("no law speaks of that layer with that option")
    return chosen


def progress(total: int) -> Any:
    """A bar on standard error, if that is a terminal."""
    from tqdm import tqdm

    bar = tqdm(total=total, disable=not sys.stderr.isatty(), leave=False, unit="cell")

    def seen(outcome: Any) -> None:
        bar.update()
        if bar.n >= total:
            bar.close()

    return seen


def write_files(options: argparse.Namespace, name: str, version: str,
                found: list) -> None:  # fmt: skip
    """JSON, page and scripts, where they are asked for."""
    from lora_np.reference.conformance import report

    if options.json:
        write_beside(Path(options.json), plain(report.to_json(name, version, found)))
        print(f"wrote {options.json}")
    if options.html:
        write_beside(options.html, plain(report.to_html(name, version, found)))
        print(f"wrote {options.html}")
    if options.scripts:
        count = report.write_scripts(found, options.scripts)
        print(f"wrote {count} scripts into {options.scripts}")


def plain(text: str) -> bytes:
    """UTF-8; what a subject said and UTF-8 cannot hold is escaped.

    >>> plain("a" + chr(0xD800))
    b'a\\\\ud800'
    """
    return text.encode("utf-8", "backslashreplace")


def list_laws() -> int:
    """Every law in a line, with its reason below."""
    from lora_np.reference.conformance.laws import LAWS

    for law in LAWS:
        print(f"{law.label}\n  {law.says}\n  {law.why}")
        if law.layers:
            print(f"  layers: {', '.join(law.layers)}")
    print(f"\n{len(LAWS)} laws")
    return 0


def list_findings() -> int:
    """Each with its numbers, and where its script lies."""
    from lora_np.reference.conformance import findings

    found, versions, day = findings.load()
    known = ", ".join(f"{name} {version}" for name, version in versions.items())
    print(f"{len(found)} findings, run on {day} with {known}\n")
    for f in found:
        print(f"{f.package} {versions[f.package]}: {f.says}")
        print(f"  got {f.got}; want {f.want}; law {f.law}")
        print(f"  {f.judgement}: {f.evidence}")
        if f.upstream:
            print(f"  upstream: {f.upstream}")
        print(f"  {f.script}\n")
    return 0


def write_golden(folder: Path) -> int:
    """The golden vectors with their format page and the reader in C."""
    from lora_np.reference.conformance import golden

    count = golden.write_golden(folder)
    for name in ("FORMAT.md", "read_golden.c"):
        if (golden.FOLDER / name).resolve() != (folder / name).resolve():
            write_beside(folder / name, (golden.FOLDER / name).read_bytes())
    print(f"wrote {count} cases into {folder}: index.json, data.bin, FORMAT.md")
    return 0


def run_mutants(options: argparse.Namespace) -> int:
    """The table mutants x laws; 1 if a mutant is caught by none."""
    from tqdm import tqdm

    from lora_np.reference.conformance import mutants

    found = [mutants.Verdict(m, tuple(mutants.caught_by(m)))
             for m in tqdm(mutants.mutants(), disable=None, leave=False)]  # fmt: skip
    rows = [["mutant", "what is wrong", "caught by"]]
    rows += [[v.mutant.label, v.mutant.why, shown(v.caught)] for v in found]
    print(table(rows))
    print("\n" + summary(found))
    if options.write:
        write_beside(options.write, mutants.markdown(found).encode())
        print(f"wrote {options.write}")
    return 1 if any(not v.caught for v in found) else 0


def shown(caught: tuple[str, ...]) -> str:
    """The first law, and how many more."""
    if not caught:
        return "NOTHING"
    more = f" and {len(caught) - 1} more" if len(caught) > 1 else ""
    return caught[0] + more


def summary(found: list) -> str:
    """How many are caught, and which laws catch nothing that others miss."""
    from lora_np.reference.conformance import mutants

    alone = mutants.unique(found)
    missed = [v.mutant.label for v in found if not v.caught]
    lines = [f"{len(found)} wrong implementations, {len(found) - len(missed)} caught"]
    lines += [f"not caught: {', '.join(missed)}"] if missed else []
    lines += ["the only law to catch some of them:"]
    lines += [f"  {law}: {', '.join(names)}" for law, names in alone.items() if names]
    rest = ", ".join(law for law, names in alone.items() if not names)
    lines += [f"laws that catch nothing that others miss: {rest}"]
    return "\n".join(lines)
