"""Dispatch, and errors as one sentence."""

import argparse
import sys
from collections.abc import Sequence
from types import ModuleType

from lora_np.cli import (
    adapt,
    bench,
    chapters,
    check,
    conformance,
    documents,
    exercises,
    fetch,
    figures,
    generate,
    job,
    pretrain,
)

COMMANDS: dict[str, ModuleType] = {
    "check": check, "adapt": adapt, "generate": generate, "figures": figures,
    "pretrain": pretrain, "bench": bench, "chapters": chapters,
    "documents": documents, "exercises": exercises, "fetch": fetch,
    "conformance": conformance,
}  # fmt: skip
EXPECTED = (ValueError, TypeError, KeyError, IndexError, OSError, RuntimeError,
            FloatingPointError, OverflowError, ModuleNotFoundError)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    """The parser with every subcommand.

    >>> build_parser().parse_args(["check"]).command
    'check'
    """
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m lora_np", formatter_class=form,
        description="LoRA in NumPy, certified. Without a subcommand: certify, adapt, "
        "sample, merge,\nsave and draw, on the embedded model and texts.",
        epilog=job.EXAMPLE,
    )  # fmt: skip
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    job.add_arguments(parser)
    commands = parser.add_subparsers(dest="command", metavar="command")
    for name, module in COMMANDS.items():
        sub = commands.add_parser(
            name, help=module.HELP, description=module.HELP, epilog=module.EXAMPLE,
            formatter_class=form,
        )  # fmt: skip
        sub.add_argument("--debug", action="store_true", help="show tracebacks")
        module.add_arguments(sub)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (2 for an error in words)."""
    for stream in (sys.stdout, sys.stderr):  # formulas also where only ASCII is known
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    parser = build_parser()
    given = sys.argv[1:] if arguments is None else list(arguments)
    before = next((given[:i] for i, word in enumerate(given) if word in COMMANDS), [])
    if any(word.startswith("-") and word != "--debug" for word in before):
        parser.error(f"options stand after the subcommand: python -m lora_np "
                     f"{given[len(before)]} {' '.join(before)} ...")  # fmt: skip
    options = parser.parse_args(given)
    options.debug = options.debug or "--debug" in before
    module = COMMANDS.get(options.command, job)
    try:
        return module.run(options)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 1
    except EXPECTED as error:
        if options.debug:
            raise
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        if isinstance(error, OSError) and error.strerror:
            text = error.strerror if error.filename is None else error
        print(f"error: {text}", file=sys.stderr)
        return 2
