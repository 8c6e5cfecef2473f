"""The laws as tests of somebody's own project, in two lines of their conftest.py:

    pytest_plugins = ["lora_np.reference.pytest_plugin"]
    lora_subject = "my_lora.py:factory"          # beside conftest.py; or a factory

Every law on every column is a test, conftest.py::group.law[layer-option]; what the
subject does not offer is skipped with the reason. `lora_only = ["gradient"]` chooses
laws, `lora_layers = ["linear"]` layers. The tests run in pytest's own process: a
subject that hangs or crashes is for the command, `python -m lora_np conformance`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lora_np.reference.conformance.laws import Law
from lora_np.reference.conformance.run import FAIL, MISSING, Outcome, cells, run_cell
from lora_np.reference.subjects.find import FactorySubject, find


class LawFailed(Exception):
    """A law that does not hold, with its report."""


class LawItem(pytest.Item):
    """One cell."""

    def __init__(self, *, subject: Any, law: Law, layer: str, option: str, **more: Any):
        super().__init__(**more)
        self.subject, self.law = subject, law
        self.layer, self.option = layer, option

    def runtest(self) -> None:
        """Skip what is not offered, fail with the smallest case."""
        outcome = run_cell(self.subject, self.law, self.layer, self.option)
        if outcome.state == MISSING:
            pytest.skip(f"not offered: {outcome.detail}")
        if outcome.state != "pass":
            raise LawFailed(told(self.law, outcome))

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """The report instead of a traceback."""
        if isinstance(excinfo.value, LawFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where it comes from."""
        return self.path, 0, self.name


def told(law: Law, outcome: Outcome) -> str:
    """The law, what differs, the smallest case, the lines that show it."""
    said = "does not hold" if outcome.state == FAIL else "could not be asked"
    return (
        f"{law.label} {said}: {law.says}\n{outcome.detail}\nwhy: {law.why}\n\n"
        f"smallest case found:\n{outcome.case}\n\n{outcome.script}"
    )


class LawFile(pytest.File):
    """The conftest.py that names a `lora_subject`, collected as its laws."""

    conftest: Any

    def collect(self) -> Iterator[LawItem]:
        """The matrix as items."""
        subject = subject_of(self.conftest)
        only = getattr(self.conftest, "lora_only", ())
        layers = getattr(self.conftest, "lora_layers", ())
        for law, layer, option in cells(only, layers):
            name = f"{law.label.replace(' ', '_')}[{layer}-{option.replace(' ', '_')}]"
            yield LawItem.from_parent(
                self, name=name, subject=subject, law=law, layer=layer, option=option
            )


def subject_of(conftest: Any) -> Any:
    """The conftest's `lora_subject`: a word for `find`, a factory, or a subject."""
    given = conftest.lora_subject
    if isinstance(given, str):
        file, _, name = given.rpartition(":")
        beside = Path(conftest.__file__).parent / file
        return find(f"{beside}:{name}" if beside.is_file() else given)
    return given if hasattr(given, "layer") else FactorySubject(given)


def pytest_collect_file(file_path: Path, parent: Any) -> LawFile | None:
    """A conftest.py with a `lora_subject` is a file of tests: so files, node ids and -k
    choose among them as among any others."""
    if file_path.name != "conftest.py":
        return None
    for plugin in parent.config.pluginmanager.get_plugins():
        here = getattr(plugin, "__file__", None) == str(file_path)
        if here and hasattr(plugin, "lora_subject"):
            made = LawFile.from_parent(parent, path=file_path)
            made.conftest = plugin
            return made
    return None
