"""Between a law and a subject: what is missing is said, what is no array is an error.

For a subject without a script of its own the calls are written down as lines.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np

from lora_np.reference.conformance.case import Case
from lora_np.reference.conformance.protocol import NotOffered
from lora_np.reference.conformance.record import Literal

ARRAYS = ("forward", "weight", "delta", "forward_training", "mixed")
TABLES = ("gradients", "factors", "gradients_training", "accumulate", "checkpointed")


class Strange(TypeError):
    """A subject returned something that is no array."""


class Log:
    """Calls as source lines, with the names of what they returned."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.changed: list[str] = []  # arguments that a call changed in place
        self.names: dict[int, str] = {}
        self.kept: list[Any] = []

    def add(self, line: str, result: Any, name: str) -> None:
        """One call."""
        self.lines.append(line)
        self.names[id(result)] = name
        self.kept.append(result)
        parts = result.items() if isinstance(result, dict) else (
            enumerate(result) if isinstance(result, tuple) else ())  # fmt: skip
        for key, part in parts:
            self.names[id(part)] = f"{name}[{key!r}]"


class Observed:
    """A subject seen through its protocol."""

    def __init__(self, subject: Any):
        self.subject, self.log, self.layers = subject, Log(), 0
        self.most = 1  # adapters on one layer

    @property
    def files(self) -> str:
        """The format that saved files claim."""
        return getattr(self.subject, "files", "")

    def _ask(self, method: str, *arguments: Any) -> Any:
        found = getattr(self.subject, method, None)
        if found is None:
            raise NotOffered(method)
        return found(*arguments)

    def _wrap(self, layer: Any, call: str) -> "ObservedLayer":
        if layer is None:
            raise Strange("a layer was expected, got None")
        self.layers += 1
        name = f"layer{self.layers}"
        self.log.add(f"{name} = {call}", layer, name)
        return ObservedLayer(layer, name, self.log)

    def layer(self, case: Case, adapters: int = 1) -> "ObservedLayer":
        """See Subject.layer."""
        self.most = max(self.most, adapters)
        more = (adapters,) if adapters > 1 else ()
        made = self._ask("layer", copy.deepcopy(case), *more)
        call = getattr(self.subject, "call", "subject.layer")
        return self._wrap(made, f"{call}(case{''.join(f', {n}' for n in more)})")

    def initialisations(self, case: Case) -> tuple[Any, ...]:
        """See Subject.initialisations."""
        return tuple(self._ask("initialisations", case))

    def fresh(self, case: Case, init: Any, seed: int) -> "ObservedLayer":
        """See Subject.fresh."""
        made = self._ask("fresh", copy.deepcopy(case), init, seed)
        return self._wrap(made, f"subject.fresh(case, {init!r}, {seed})")

    def load(self, case: Case, folder: Path) -> "ObservedLayer":
        """See Subject.load."""
        return self._wrap(
            self._ask("load", copy.deepcopy(case), folder), "subject.load(case, folder)"
        )


class ObservedLayer:
    """A layer whose calls are checked and written down."""

    def __init__(self, layer: Any, name: str, log: Log):
        self._layer, self._name, self._log = layer, name, log

    @property
    def changed(self) -> list[str]:
        """Arguments that calls changed in place: they get copies, so that nobody else
        is disturbed."""
        return list(self._log.changed)

    @property
    def own_factors(self) -> bool:
        """Whether the factors have shapes of their own, so that no oracle speaks."""
        return getattr(self._layer, "own_factors", False)

    def __getattr__(self, method: str) -> Any:
        if method.startswith("_"):
            raise AttributeError(method)
        found = getattr(self._layer, method, None)
        if found is None:
            raise NotOffered(method)

        def call(*arguments: Any) -> Any:
            given_away = copy.deepcopy(arguments)
            result = checked(method, found(*given_away))
            for place, (now, then) in enumerate(
                zip(given_away, arguments, strict=True)
            ):
                if not _alike(now, then):
                    self._log.changed.append(f"argument {place + 1} of {method}")
            name = f"r{len(self._log.lines)}"
            given = ", ".join(Literal.of(a) for a in arguments)
            line = f"{name} = {self._name}.{method}({given})"
            self._log.add(line, result, name)
            return result

        return call


def _alike(a: Any, b: Any) -> bool:
    if isinstance(a, tuple | list):
        return all(map(_alike, a, b))
    if not isinstance(a, np.ndarray):
        return True
    return a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


def checked(method: str, result: Any) -> Any:
    """The result, if it is what the protocol says."""
    if method in ARRAYS:
        parts = result if isinstance(result, tuple) else (result,)
        for part in parts:
            _array(method, part)
    elif method in TABLES:
        if not isinstance(result, dict):
            raise Strange(f"{method} returned {_a(result)}, expected a dictionary")
        for name, part in result.items():
            if part is not None:
                _array(f"{method}()[{name!r}]", part)
    return result


def _array(where: str, value: Any) -> None:
    if not isinstance(value, np.ndarray | np.generic):
        raise Strange(f"{where} returned {_a(value)}, expected a NumPy array")
    if value.dtype.kind not in "fiu":
        raise Strange(f"{where} returned an array of {value.dtype}, expected numbers")


def _a(value: Any) -> str:
    return f"a {type(value).__name__}"
