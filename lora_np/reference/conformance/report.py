"""The matrix laws x layers x options as text, JSON and a page."""

import html
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lora_np.reference.conformance.case import COLUMNS
from lora_np.reference.conformance.laws import LAWS
from lora_np.reference.conformance.run import ERROR, FAIL, MISSING, PASS, Outcome

SIGNS = {PASS: ".", FAIL: "F", MISSING: "-", ERROR: "E"}
SAYS = {law.label: law for law in LAWS}


def bad(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that failed or raised."""
    return [o for o in outcomes if o.state in (FAIL, ERROR)]


def matrix(outcomes: Sequence[Outcome]) -> str:
    """A line a law, a sign a column; the columns are numbered and named below."""
    there = {(o.layer, o.option) for o in outcomes}
    columns = [c for c in COLUMNS if c in there]
    signs = {(o.law, o.layer, o.option): SIGNS[o.state] for o in outcomes}
    laws = [law.label for law in LAWS if any(o.law == law.label for o in outcomes)]
    width = max(map(len, laws), default=0)
    numbers = [f"{i:2d}" for i in range(1, len(columns) + 1)]
    lines = [" " * width + "  " + " ".join(numbers)]
    for label in laws:
        cells = " ".join(f" {signs.get((label, *c), ' ')}" for c in columns)
        lines.append(f"{label:<{width}}  {cells}".rstrip())
    lines += ["", ". pass   F fail   E error   - not offered   blank: not asked", ""]
    layers: dict[str, list[str]] = {}
    for i, (layer, option) in enumerate(columns, 1):
        layers.setdefault(layer, []).append(f"{i} {option}")
    lines += [f"{layer}: {', '.join(options)}" for layer, options in layers.items()]
    return "\n".join(lines)


def grouped(outcomes: Sequence[Outcome]) -> list[tuple[Outcome, list[Outcome]]]:
    """Failures with the same law and state together: (the first, the others)."""
    groups: dict[tuple[str, str, str], list[Outcome]] = {}
    for o in bad(outcomes):
        groups.setdefault((o.law, o.state, o.layer), []).append(o)
    return [(g[0], g[1:]) for g in groups.values()]


def details(outcomes: Sequence[Outcome], most: int | None = None) -> str:
    """Every failure with its smallest case and the lines that reproduce it."""
    groups, parts = grouped(outcomes), []
    for first, others in groups[:most]:
        law = SAYS[first.law]
        lines = [f"{first.state.upper()} {first.place}", law.says, f"  {first.detail}"]
        if others:
            also = ", ".join(f"{o.layer} {o.option}" for o in others)
            lines.append(f"  also on {also}")
        lines += [f"  why this law: {law.why}"]
        if first.case:
            lines += ["  smallest case found:", *_indented(first.case, "    ")]
        if first.script:
            lines += ["  to see it again:", *_indented(first.script, "    ")]
        parts.append("\n".join(lines))
    if most is not None and len(groups) > most:
        rest = len(groups) - most
        parts.append(f"{rest} more; --details shows all, --scripts FOLDER writes files")
    return "\n\n".join(parts)


def _indented(text: str, lead: str) -> list[str]:
    return [lead + line for line in text.rstrip().split("\n")]


def counts(outcomes: Sequence[Outcome]) -> str:
    """How many cells of each state.

    >>> counts([Outcome("a.b", "linear", "plain", PASS)])
    '1 cells: 1 pass, 0 fail, 0 error, 0 not offered'
    """
    found = Counter(o.state for o in outcomes)
    parts = ", ".join(f"{found[s]} {s}" for s in (PASS, FAIL, ERROR, MISSING))
    return f"{len(outcomes)} cells: {parts}"


def to_json(name: str, version: str, outcomes: Sequence[Outcome]) -> str:
    """Everything, for programs."""
    laws = [{"law": law.label, "says": law.says, "why": law.why} for law in LAWS]
    return json.dumps(
        {"subject": name, "version": version, "summary": counts(outcomes), "laws": laws,
         "cells": [vars(o) for o in outcomes]}, indent=1,
    ) + "\n"  # fmt: skip


_STYLE = """body{font:14px/1.4 system-ui,sans-serif;margin:2em;max-width:80em}
table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:2px 6px}
th.c{writing-mode:vertical-rl;text-align:left;font-weight:normal}
td.pass{background:#d9ecf7}td.fail{background:#e69f00}td.error{background:#cc79a7}
td.not{color:#888}pre{background:#f6f6f6;padding:8px;overflow:auto}"""


def to_html(name: str, version: str, outcomes: Sequence[Outcome]) -> str:
    """One page without scripts: the matrix, then every failure."""
    e = html.escape
    there = {(o.layer, o.option) for o in outcomes}
    columns = [c for c in COLUMNS if c in there]
    cells = {(o.law, o.layer, o.option): o for o in outcomes}
    head = "".join(f'<th class="c">{e(a)} {e(b)}</th>' for a, b in columns)
    rows = []
    for law in LAWS:
        if not any(o.law == law.label for o in outcomes):
            continue
        row = [f'<th title="{e(law.says)}">{e(law.label)}</th>']
        for c in columns:
            o = cells.get((law.label, *c))
            row.append("<td></td>" if o is None else
                       f'<td class="{o.state.split()[0]}" title="{e(o.detail)}">'
                       f"{SIGNS[o.state]}</td>")  # fmt: skip
        rows.append("<tr>" + "".join(row) + "</tr>")
    failures = "".join(
        f"<h3>{e(o.place)}</h3><p>{e(SAYS[o.law].says)} <b>{e(o.state)}:</b> "
        f"{e(o.detail)}</p><p>{e(SAYS[o.law].why)}</p><pre>{e(o.case)}</pre>"
        f"<pre>{e(o.script)}</pre>"
        for o in bad(outcomes)
    )
    title = f"LoRA conformance of {name} {version}"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{e(title)}</title><style>{_STYLE}</style><h1>{e(title)}</h1>"
        f"<p>{e(counts(outcomes))}. "
        "In the table . is a pass, F a fail, E an error, - not offered; "
        "empty: the law does not speak of it.</p>"
        f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>{failures}</html>\n"
    )


def write_scripts(outcomes: Sequence[Outcome], folder: Path) -> int:
    """Every failure's script as a file of its own; returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for o in bad(outcomes):
        if o.script:
            stem = f"{o.law}-{o.layer}-{o.option}".replace(" ", "_")
            text = o.script.encode("utf-8", "backslashreplace")
            (folder / f"{stem}.py").write_bytes(text)
            written += 1
    return written
