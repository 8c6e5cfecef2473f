"""Keeping what a subject was asked, as lines that run without this package.

Shims run their library through a Script: what the law saw and what the script repeats
are the same lines.
"""

from typing import Any

import numpy as np

from lora_np.reference.conformance.check import Check


class Literal:
    """Python source for arrays and numbers.

    >>> Literal.of(np.array([[1.0, -2.0]]))
    'np.array([[1.0, -2.0]])'
    """

    @staticmethod
    def of(value: Any) -> str:
        """np.array(...) with a dtype where it is not float64."""
        if isinstance(value, np.ndarray):
            kind = "" if value.dtype == np.float64 else f", dtype=np.{value.dtype}"
            if value.size == 0:
                kind = kind or ", dtype=np.float64"
                return f"np.zeros({value.shape}{kind})"
            return f"np.array({value.tolist()}{kind})"
        if isinstance(value, np.generic):
            return repr(value.item())
        if isinstance(value, dict):
            items = ", ".join(f"{k!r}: {Literal.of(v)}" for k, v in value.items())
            return "{" + items + "}"
        if isinstance(value, tuple | list):
            inside = ", ".join(map(Literal.of, value))
            one = "," if isinstance(value, tuple) and len(value) == 1 else ""
            return f"({inside}{one})" if isinstance(value, tuple) else f"[{inside}]"
        return repr(value)


class Script:
    """Lines of a library's own API, run as they are written down.

    >>> script = Script(); script.run("x = np.ones(2)"); script.value("x + 1", "y")
    array([2., 2.])
    >>> script.lines
    ['import numpy as np', 'x = np.ones(2)', 'y1 = x + 1']
    """

    def __init__(self, *imports: str):
        self.imports, self.lines = ("import numpy as np", *imports), list[str]()
        self.space: dict[str, Any] = {}
        self.names: dict[int, str] = {}
        self.kept: list[Any] = []  # so that an id stays that of its array
        self.count = 0
        for line in self.imports:
            self.run(line)

    def run(self, line: str) -> None:
        """Execute a line and keep it."""
        self.lines.append(line)
        exec(line, self.space)

    def fresh(self, stem: str) -> str:
        """A name that was not used before."""
        self.count += 1
        return f"{stem}{self.count}"

    def value(self, expression: str, stem: str) -> Any:
        """Give the expression's value a new name, and return it."""
        name = self.fresh(stem)
        self.run(f"{name} = {expression}")
        return self.named(name)

    def named(self, name: str) -> Any:
        """A value, remembered under its name."""
        found = self.space[name]
        self.names[id(found)] = name
        self.kept.append(found)
        return found

    def space_has_grad(self, place: str) -> bool:
        """Whether the tensor at this expression has a gradient; no line is kept."""
        return eval(f"{place}.grad is not None", self.space)

    def text(self, label: str, got: Any, want: Any, limit: Any) -> str:
        """The script with its last lines: got, want, and a failing assertion."""
        check = Check(label, got, want, limit)
        return "\n".join([*self.lines, *last_lines(self.names, check)]) + "\n"


def last_lines(names: dict[int, str], check: Check) -> list[str]:
    """got, want, and an assertion that fails while the fault is there."""
    source = [names.get(id(v)) or Literal.of(v) for v in (check.got, check.want)]
    lines = [f"got, want = {source[0]}, {source[1]}  # {check.label}"]
    lines.append('print("got ", got, "\\nwant", want)')
    if isinstance(check.got, str) or isinstance(check.want, str):
        return [*lines, "assert got == want"]
    top = float(np.max(check.limit)) if np.size(check.limit) else 0.0
    return [*lines, f"assert np.allclose(got, want, rtol=0, atol={top!r})"]
