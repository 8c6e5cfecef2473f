"""What the subcommands share: tables, the base model, common options."""

import argparse
from collections.abc import Sequence

import numpy as np

from lora_np.backend import select
from lora_np.data import BASE
from lora_np.models import GPT, load_model


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Rows of text as aligned columns; the first row is the head.

    >>> print(table([["a", "n"], ["bb", "1"]], right=[1]))
    a   n
    --  -
    bb  1
    """
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        cells = [
            c.rjust(w) if i in right else c.ljust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    rule = "  ".join("-" * w for w in widths)
    return "\n".join([line(rows[0]), rule, *(line(r) for r in rows[1:])])


def heading(text: str) -> None:
    """A section title on standard output.

    >>> heading("Merge")
    <BLANKLINE>
    Merge
    =====
    """
    print(f"\n{text}\n{'=' * len(text)}")


def base_model(backend: str = "numpy", dtype: type = np.float32) -> GPT:
    """The committed pretrained model on the wanted backend."""
    model = load_model(BASE, dtype)
    model.to(select(backend))
    return model


def add_common(parser: argparse.ArgumentParser) -> None:
    """--seed and --backend, spelled alike everywhere."""
    parser.add_argument(
        "--seed", type=natural, default=0, help="seed of every draw (0)"
    )
    parser.add_argument("--backend", choices=("numpy", "cupy"), default="numpy",
                        help="array library; cupy needs a GPU (numpy)")  # fmt: skip


def natural(text: str) -> int:
    """An integer of 0 or more, for argparse.

    >>> natural("3")
    3
    """
    try:
        value = int(text)
    except ValueError:
        value = -1
    if value < 0:
        raise argparse.ArgumentTypeError(
            f"expected an integer of 0 or more, got {text!r}"
        )
    return value
