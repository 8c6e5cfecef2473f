"""The learner's file: made from the exercise, so that it cannot differ from it."""

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable

from lora_np.exercises.exercise import Exercise

AS_FOUND = "_as_found"  # suffix of a buggy function in the catalogue


@functools.cache
def source(function: Callable) -> str:
    """A function's source as it stands in the catalogue."""
    return textwrap.dedent(inspect.getsource(function))


def head(function: Callable) -> str:
    """Signature and docstring, with nothing done below them."""
    text = source(function)
    node = ast.parse(text).body[0]
    assert isinstance(node, ast.FunctionDef)
    last = node.body[0].end_lineno
    return "\n".join(text.split("\n")[:last]) + "\n    raise NotImplementedError\n"


def solution(exercise: Exercise) -> str:
    """The right functions; for an explanation, the rubric."""
    if exercise.functions:
        return "\n\n".join(source(f) for f in exercise.functions)
    return "\n".join(f"- {line}" for line in exercise.rubric) + "\n"


def _commented(text: str) -> str:
    paragraphs = textwrap.dedent(text).strip().split("\n\n")
    lines: list[str] = []
    for i, paragraph in enumerate(paragraphs):
        lines += [""] * (i > 0)
        if paragraph.startswith("    "):
            lines += paragraph.split("\n")
        else:
            lines += textwrap.wrap(" ".join(paragraph.split()), 78)
    return "\n".join(f"# {line}".rstrip() for line in lines) + "\n"


def question(exercise: Exercise) -> str:
    """Title, kind, minutes and the question, as comments."""
    first = (f"{exercise.id} · {exercise.title} ({exercise.kind}, about "
             f"{exercise.minutes} minutes)")  # fmt: skip
    return _commented(first + "\n\n" + textwrap.dedent(exercise.ask))


def body(exercise: Exercise) -> str:
    """What the learner works on: empty functions, buggy ones, or a form to fill in."""
    if exercise.kind == "explain":
        numbers = "".join(
            _commented(n.ask) + f"{n.name} = None\n\n" for n in exercise.numbers
        )
        return f'{numbers}answer = """\n\n"""\n'
    if exercise.found:
        return "\n\n".join(source(f).replace(AS_FOUND, "") for f in exercise.found)
    return "\n\n".join(head(f) for f in exercise.functions)


def stub(exercise: Exercise) -> str:
    """The whole file that `start` writes."""
    check = f"#\n# python -m lora_np exercises check {exercise.id}\n"
    numpy = "" if exercise.kind == "explain" else "import numpy as np\n\n\n"
    return question(exercise) + check + "\n" + numpy + body(exercise)


def untouched(exercise: Exercise, text: str) -> bool:
    """Whether every function to write has only the stub's `raise` in its body."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    names = {f.__name__ for f in exercise.functions}
    found = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in names]
    return bool(found) and all(_empty(node) for node in found)


def _empty(node: ast.FunctionDef) -> bool:
    body = node.body[ast.get_docstring(node) is not None :]
    return [ast.unparse(line) for line in body] == ["raise NotImplementedError"]


def notebook(exercise: Exercise) -> bytes:
    """The exercise as a notebook: question, cell to fill in, check.

    Raises RuntimeError where nbformat is missing.
    """
    try:
        import nbformat.v4 as nb
    except ImportError as error:
        raise RuntimeError(
            "a notebook needs nbformat: pip install jupyter; or work in the .py file"
        ) from error
    import nbformat

    first = f"# {exercise.id} · {exercise.title}\n\n"
    facts = f"*{exercise.kind}, about {exercise.minutes} minutes*\n\n"
    asked = textwrap.dedent(exercise.ask).strip()
    cells = [nb.new_markdown_cell(first + facts + asked)]
    if exercise.kind == "explain":
        work = body(exercise).rstrip()
        names = [n.name for n in exercise.numbers] + ["answer"]
        given = ", ".join(f"{n}={n}" for n in names)
        call = f'check("{exercise.id}", {given})'
    else:
        work = "import numpy as np\n\n\n" + body(exercise).rstrip()
        call = f"check({', '.join(f.__name__ for f in exercise.functions)})"
    cells += [
        nb.new_code_cell(work),
        nb.new_code_cell(f"from lora_np.exercises import check\n\n{call}"),
        nb.new_markdown_cell(_folded(exercise)),
    ]
    for i, cell in enumerate(cells):
        cell["id"] = f"cell-{i}"
    made = nb.new_notebook(cells=cells)
    made.metadata["kernelspec"] = {
        "display_name": "Python 3", "language": "python", "name": "python3",
    }  # fmt: skip
    return (nbformat.writes(made) + "\n").encode()


def _folded(exercise: Exercise) -> str:
    """Hints one below the other, each to be opened."""
    parts = [
        f"<details><summary>Hint {grade}</summary>\n\n{_code(hint)}\n\n</details>"
        for grade, hint in enumerate(exercise.hints, 1)
    ]
    command = f"`python -m lora_np exercises solution {exercise.id}`"
    return "\n\n".join(parts) + f"\n\nThe solution: {command}"


def _code(hint: str) -> str:
    return f"```python\n{textwrap.dedent(hint)}\n```" if hint[:4] == "    " else hint
