"""check: certify every hand-derived gradient with three witnesses."""

import argparse

from lora_np.cli.common import natural, table
from lora_np.numerics import Row
from lora_np.reference import PAIRS, Draw, Pair, check_pair, pair, wrong
from lora_np.report import ZERO

HELP = "certify every hand-derived gradient"
EXAMPLE = """examples:
  python -m lora_np check
  python -m lora_np check --only lora_linear --verbose
  python -m lora_np check --wrong lora_linear:no_scale    (must fail and name the array)
"""
METHODS = ("tape", "exact", "complex", "central")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `check`."""
    parser.add_argument("--only", metavar="PAIR", help="one pair instead of all")
    parser.add_argument(
        "--wrong",
        metavar="PAIR:NAME",
        help="swap in a kept wrong implementation; the check must fail",
    )
    parser.add_argument("--list-wrong", action="store_true",
                        help="list the kept wrong implementations")  # fmt: skip
    parser.add_argument(
        "--cases",
        type=natural,
        default=4,
        help="problems drawn for each pair (4), every fourth square",
    )
    parser.add_argument(
        "--seed", type=natural, default=0, help="seed of the problems (0)"
    )
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="worst entry, got, want, absolute error of every array",
    )


def run(options: argparse.Namespace) -> int:
    """0 when everything agrees, 1 when something does not."""
    if options.list_wrong:
        from lora_np.reference import WRONG

        print(
            table([["pair:name", "what is wrong"], *([w.label, w.why] for w in WRONG)])
        )
        return 0
    if options.cases < 1:
        raise ValueError("--cases must be 1 or more: no case certifies nothing")
    swap = wrong(options.wrong) if options.wrong else None
    if swap and options.only not in (None, swap.pair):
        raise ValueError(f"--wrong {options.wrong} is about {swap.pair}, but --only "
                         f"{options.only} leaves that out")  # fmt: skip
    only = swap.pair if swap else options.only
    pairs = (pair(only),) if only else PAIRS
    results = {
        p.name: certify_pair(p, options.seed, options.cases, swap) for p in pairs
    }
    if options.verbose:
        for name, rows in results.items():
            print(name)
            for row in rows:
                print("  " + str(row))
    code = report(results)
    if swap and code:
        print(f"The fault was caught, as it must be: {swap.why}")
    return code


def certify_pair(p: Pair, seed: int, cases: int, swap: object = None) -> list[Row]:
    """Rows of all cases: case 0 square, case 1 not, the rest as drawn.

    >>> all(r.passed is not False for r in certify_pair(pair("linear"), 0, 2))
    True
    """
    rows: list[Row] = []
    for case in range(cases):
        square = {0: True, 1: False}.get(case)
        rows += check_pair(
            p, lambda whole, case=case, square=square:
            Draw.seeded(1000 * seed + case, whole, square, case),
            getattr(swap, "forward", None), getattr(swap, "backward", None),
        )  # fmt: skip
    return rows


def worst_rows(rows: list[Row]) -> dict[str, dict[str, Row]]:
    """array -> method -> the worst row of all cases (a failed one before any other)."""
    worst: dict[str, dict[str, Row]] = {}
    for r in rows:
        held = worst.setdefault(r.array, {}).get(r.method)
        if held is None or _badness(r) > _badness(held):
            worst[r.array][r.method] = r
    return worst


def _badness(r: Row) -> tuple:
    known = r.relative == r.relative and r.note != ZERO
    return (r.passed is False, r.passed is not None, r.relative if known else -1.0)


def _cell(r: Row | None, notes: list[str]) -> str:
    if r is None:
        return ""
    if r.passed is None:
        if r.note not in notes:
            notes.append(r.note)
        return f"n/a ({notes.index(r.note) + 1})"
    if r.passed is False:
        return "FAILED"
    if r.method == "exact":
        return "equal" + (f", {r.kinks} kinks" if r.kinks else "")
    if r.relative != r.relative or r.note == ZERO:
        return "0"
    return f"{r.relative:.0e}"


def report(results: dict[str, list[Row]]) -> int:
    """Print the table, the reasons for n/a and every failure; 1 if there is one."""
    notes: list[str] = []
    lines = [["pair", "array", "tape", "exact h=1", "complex step", "central"]]
    for name, rows in results.items():
        for array, by_method in worst_rows(rows).items():
            cells = [
                "-" if m not in by_method and array.startswith("y")
                else _cell(by_method.get(m), notes)
                for m in METHODS
            ]  # fmt: skip
            lines.append([name, array, *cells])
    print(table(lines))
    print("\nRelative error max|got - want| / max|want|; y is the output itself.")
    for i, note in enumerate(notes):
        print(f"  n/a ({i + 1}): {note}")
    failed = [(n, r) for n, rows in results.items() for r in rows if r.passed is False]
    for name, r in failed[:20]:
        print(f"FAILED {name} {r}")
    arrays = sum(len(worst_rows(rows)) for rows in results.values())
    verdict = f"{len(failed)} failures" if failed else "all agree"
    print(f"{len(results)} pairs, {arrays} arrays: {verdict}")
    return 1 if failed else 0


def largest_errors(results: dict[str, list[Row]]) -> dict[str, dict[str, float]]:
    """pair -> method -> largest relative error, for the figure."""
    out: dict[str, dict[str, float]] = {}
    for name, rows in results.items():
        for r in rows:
            if r.passed and r.method and r.relative == r.relative and (
                r.note != ZERO
            ):  # fmt: skip
                held = out.setdefault(name, {}).get(r.method, 0.0)
                out[name][r.method] = max(held, r.relative)
    return out
