"""Every notebook is current: regenerated, executed, compared; the comparison bites."""

import copy
import re
from pathlib import Path

import pytest

from lora_np.cli import chapters

FOLDER = Path(__file__).parent.parent / "chapters"
NAMES = sorted(p.stem for p in FOLDER.glob("[0-9]*.py"))

jupytext = pytest.importorskip("jupytext", reason="needs: pip install jupytext")
pytest.importorskip("nbclient", reason="needs: pip install jupyter")


def test_there_are_chapters_and_nothing_else():
    assert NAMES[:6] == [
        "00_start_here", "01_lora_by_hand", "02_is_the_gradient_right", "03_a_tape",
        "04_tiny_transformer", "05_adapting_with_lora",
    ]  # fmt: skip
    assert {p.stem for p in FOLDER.glob("*.ipynb")} == set(NAMES)


LONG = {n for n in NAMES if n[:2] in ("05", "06", "07", "08", "09", "10", "11")}
RUN = [pytest.param(n, marks=[pytest.mark.slow] * (n in LONG)) for n in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_has_its_source(name):
    """Also where running it is slow: cells as in the .py, each with its output."""
    kept = chapters.read(FOLDER / f"{name}.ipynb")
    source = jupytext.read(FOLDER / f"{name}.py")
    assert [c.source for c in kept.cells] == [c.source for c in source.cells]


@pytest.mark.parametrize("name", RUN)
def test_the_notebook_is_current_and_runs(name):
    made = chapters.build(FOLDER / f"{name}.py")
    assert chapters.compare(chapters.read(FOLDER / f"{name}.ipynb"), made) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_form_of_a_chapter(name):
    notebook = chapters.read(FOLDER / f"{name}.ipynb")
    words = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    assert "?" in words.split("\n")[0]  # opens with a question
    assert words.count("**Predict") >= 3
    assert "## Three questions" in words and "<details>" in words
    assert re.search(r"\((\d\d_\w+)\.ipynb\)\s*$", words)  # ends with a link onward
    for target in re.findall(r"\((\d\d_\w+)\.ipynb\)", words):
        assert target in NAMES
    assert all(
        c.get("execution_count") for c in notebook.cells if c.cell_type == "code"
    )


SOURCE = '''# %% [markdown]
r"""
# Is this a chapter?
"""

# %%
print("loss 2.00")

# %% tags=["volatile"]
print("took 3.1 s")
'''


@pytest.fixture
def notebook(tmp_path):
    (tmp_path / "n.py").write_text(SOURCE)
    return chapters.build(tmp_path / "n.py"), tmp_path


def test_stale_and_failing_notebooks_fail(notebook):
    made, folder = notebook
    assert chapters.compare(made, made) == []

    def changed(edit):
        other = copy.deepcopy(made)
        edit(other.cells)
        return chapters.compare(other, made)

    def output(cells, i, text):
        cells[i].outputs[0]["text"] = text

    assert "source changed" in changed(lambda c: c[1].update(source="print(1)"))[0]
    assert "prints" in changed(lambda c: output(c, 1, "loss 2.20\n"))[0]
    assert "prints" in changed(lambda c: output(c, 1, "gain 2.00\n"))[0]
    assert "cells" in changed(lambda c: c.pop())[0]
    assert changed(lambda c: output(c, 1, "loss 2.01\n")) == []  # rounding elsewhere
    assert changed(lambda c: output(c, 2, "took 9.9 s\n")) == []  # volatile
    (folder / "n.py").write_text(SOURCE.replace("print(", "prnt(", 1))
    with pytest.raises(RuntimeError, match="prnt"):
        chapters.build(folder / "n.py")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no chapter source"):
        chapters.build(tmp_path / "x.py")
    with pytest.raises(FileNotFoundError, match="chapters --write"):
        chapters.read(tmp_path / "x.ipynb")
