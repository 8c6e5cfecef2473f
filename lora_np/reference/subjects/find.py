"""Subjects by name: ours, the shims, FILE.py:factory, command:PROGRAM."""

import importlib.util
import inspect
import shlex
import sys
from pathlib import Path
from typing import Any

from lora_np.reference.conformance.protocol import NotOffered

SHIMS = {
    "lora_np": ("own", "OwnSubject"),
    "lora_np-constant-norm": ("own", "ConstantNormSubject"),
    "peft": ("peft", "PeftSubject"),
    "loralib": ("loralib", "LoralibSubject"),
}


def find(spec: str) -> Any:
    """The subject that a word names.

    "lora_np", "peft", "loralib"; "FILE.py:factory", where factory(case) gives a layer
    (or is a Subject, class or object); "command:PROGRAM ARGUMENTS".
    Raises ValueError for another word, FileNotFoundError, AttributeError, and
    RuntimeError for a library that is not installed, with what to install.
    """
    if spec in SHIMS:
        module, name = SHIMS[spec]
        found = importlib.import_module(f"lora_np.reference.subjects.{module}")
        try:
            return getattr(found, name)()
        except NotOffered as error:
            raise RuntimeError(str(error)) from None
    if spec.startswith("command:"):
        from lora_np.reference.subjects.command import CommandSubject

        return CommandSubject(shlex.split(spec.removeprefix("command:")))
    path, _, name = spec.rpartition(":")
    if not path.endswith(".py"):
        raise ValueError(
            f"--subject {spec!r} is none of {', '.join(SHIMS)}, FILE.py:factory, "
            "command:PROGRAM; for a file write its name, a colon and the factory"
        )
    return from_file(Path(path), name)


def from_file(path: Path, name: str) -> Any:
    """The factory (or subject) called `name` in a Python file."""
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: --subject FILE.py:factory wants a file")
    sys.path.insert(0, str(path.resolve().parent))
    made = importlib.util.spec_from_file_location(path.stem, path)
    assert made and made.loader
    module = importlib.util.module_from_spec(made)
    sys.modules[path.stem] = module
    made.loader.exec_module(module)
    if not hasattr(module, name):
        own = [n for n, v in vars(module).items() if callable(v) and n[0] != "_"
               and getattr(v, "__module__", "") == path.stem]  # fmt: skip
        raise AttributeError(
            f"{path} has no {name!r}; it has {', '.join(own) or 'none'}"
        )
    found = getattr(module, name)
    if isinstance(found, type):
        found = found()
    return found if hasattr(found, "layer") else FactorySubject(found, path, name)


class FactorySubject:
    """A function case -> layer as a subject; what else it has is found on it.

    The function may carry as attributes what a Subject has: `fresh`, `initialisations`,
    `load`, `files`, `dora_constant_norm`.
    """

    call = "factory"  # how a script makes a layer

    def __init__(self, factory: Any, path: Path | None = None, name: str = ""):
        self.factory = factory
        self.name = name or getattr(factory, "__name__", "subject")
        self.version = ""
        for method in (
            "fresh",
            "initialisations",
            "load",
            "files",
            "dora_constant_norm",
        ):
            if hasattr(factory, method):
                setattr(self, method, getattr(factory, method))
        where = f'runpy.run_path("{path}")["{name}"]' if path else self.name
        self.setup = (
            "import runpy",
            "from types import SimpleNamespace as S",
            "import numpy as np",
            f"factory = {where}",
        )

    def layer(self, case: Any, adapters: int = 1) -> Any:
        """factory(case), or factory(case, adapters) for several."""
        return self.factory(case) if adapters == 1 else self._several(case, adapters)

    def _several(self, case: Any, adapters: int) -> Any:
        try:
            inspect.signature(self.factory).bind(case, adapters)
        except TypeError:
            raise NotOffered("several adapters: factory(case, adapters)") from None
        return self.factory(case, adapters)
