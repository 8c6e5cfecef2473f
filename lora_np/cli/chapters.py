"""chapters: make the notebooks from their sources, or check that they are current."""

import argparse
import math
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from lora_np.files.weights import write_beside

HELP = "make the notebooks again from their sources, or check that they are current"
EXAMPLE = """examples:
  python -m lora_np chapters                 check every notebook (runs them)
  python -m lora_np chapters --write         run and write every notebook
  python -m lora_np chapters --write 03_a_tape
"""
RTOL = 0.05  # of printed numbers: losses after training on another processor
_NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `chapters`."""
    parser.add_argument("names", nargs="*", help="chapters, without ending (all)")
    parser.add_argument("--write", action="store_true", help="write the notebooks")
    parser.add_argument("--folder", default="chapters", help="(chapters)")


def run(options: argparse.Namespace) -> int:
    """0 when every notebook is current (or was written)."""
    folder = Path(options.folder)
    there = sorted(p.stem for p in folder.glob("[0-9]*.py"))
    names = [Path(name).stem for name in options.names] or there
    if unknown := [name for name in names if name not in there and there]:
        raise ValueError(f"no chapter {unknown[0]!r}; there are {', '.join(there)}")
    if not names:
        raise ValueError(f"no chapters in {folder}; run this in the repository's root")
    faults = []
    for name in names:
        made = build(folder / f"{name}.py")
        path = folder / f"{name}.ipynb"
        if options.write:
            import nbformat

            write_beside(path, (nbformat.writes(made) + "\n").encode())
            print(f"wrote {path}")
        else:
            found = compare(read(path), made)
            faults += [f"{name}: {fault}" for fault in found]
            print(f"{name}: {'current' if not found else 'differs'}")
    for fault in faults:
        print(fault)
    return 1 if faults else 0


def build(source: Path) -> Any:
    """Convert one source and execute it; returns the notebook.

    Raises RuntimeError with the failing cell's error, ImportError in words.
    """
    jupytext, nbclient = _tools()
    if not source.is_file():
        raise FileNotFoundError(f"no chapter source {source}")
    notebook = jupytext.read(source)
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{i:03d}"  # the same on every run
    with tempfile.TemporaryDirectory() as away:
        client = nbclient.NotebookClient(
            notebook, timeout=300, kernel_name="python3",
            resources={"metadata": {"path": away}},
        )  # fmt: skip
        try:
            client.execute(env=_environment())
        except nbclient.exceptions.CellExecutionError as error:
            raise RuntimeError(f"{source}: {str(error)[-1500:]}") from error
    _clean(notebook)
    return notebook


def _environment() -> dict[str, str]:
    """The kernel finds this package, installed or not, and uses one BLAS thread."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": root + (os.pathsep + path if path else ""),
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }


def _tools() -> tuple[Any, Any]:
    try:
        import jupytext
        import nbclient
    except ImportError as error:
        raise RuntimeError(
            f"chapters need {error.name}; pip install -r requirements.txt"
        ) from error
    return jupytext, nbclient


def _clean(notebook: Any) -> None:
    """Take out what changes from run to run: times, versions, machine."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernel}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)


def read(path: Path) -> Any:
    """The committed notebook.  Raises FileNotFoundError."""
    import nbformat

    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; python -m lora_np chapters --write"
        )
    return nbformat.read(path, as_version=4)


def compare(old: Any, new: Any, rtol: float = RTOL) -> list[str]:
    """What differs: number of cells, sources, and text outputs of cells that are not
    tagged volatile. Numbers may differ by `rtol`."""
    if len(old.cells) != len(new.cells):
        return [f"has {len(old.cells)} cells, the source makes {len(new.cells)}"]
    found = []
    for i, (a, b) in enumerate(zip(old.cells, new.cells, strict=True)):
        if a.source != b.source or a.cell_type != b.cell_type:
            found.append(f"cell {i}: the source changed")
        elif not (
            a.cell_type != "code"
            or "volatile" in a.metadata.get("tags", [])
            or same_text(text_of(a), text_of(b), rtol)
        ):
            found.append(f"cell {i}: prints\n{text_of(b)}instead of\n{text_of(a)}")
    return found


def text_of(cell: Any) -> str:
    """All text that a code cell printed or returned; pictures are left out."""
    parts = []
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            parts.append(output.text)
        elif "data" in output and not any(
            k.startswith("image/") for k in output["data"]
        ):
            parts.append(output["data"].get("text/plain", "") + "\n")
    return "".join(parts)


def same_text(a: str, b: str, rtol: float) -> bool:
    """Equal but for numbers within rtol of each other (or of 1e-12, both tiny).

    >>> same_text("loss 2.00 in 3", "loss 2.01 in 3", 0.01)
    True
    >>> same_text("loss 2.0", "loss 3.0", 0.01)
    False
    """
    if _NUMBER.sub("#", a) != _NUMBER.sub("#", b):
        return False
    for x, y in zip(_NUMBER.findall(a), _NUMBER.findall(b), strict=True):
        p, q = float(x.replace(",", "")), float(y.replace(",", ""))
        if not math.isclose(p, q, rel_tol=rtol, abs_tol=1e-12) and not (
            abs(p) < 1e-9 and abs(q) < 1e-9
        ):
            return False
    return True
