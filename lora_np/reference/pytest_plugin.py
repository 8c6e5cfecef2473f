"""The laws as tests of somebody's own project, in two lines of their conftest.py:

    pytest_plugins = ["lora_np.reference.pytest_plugin"]
    lora_subject = "my_lora.py:factory"          # beside conftest.py; or a factory

Every law on every column is a test, named group.law[layer-option]; what the subject
does not offer is skipped with the reason. `lora_only = ["gradient"]` chooses laws,
`lora_layers = ["linear"]` layers.
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


class LawCollector(pytest.Collector):
    """All cells of one conftest's subject."""

    def __init__(self, *, conftest: Any, **more: Any):
        super().__init__(**more)
        self.conftest = conftest

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
        beside = Path(conftest.__file__).parent / given.rpartition(":")[0]
        return find(
            f"{beside}:{given.rpartition(':')[2]}" if beside.is_file() else given
        )
    return given if hasattr(given, "layer") else FactorySubject(given)


class LawPlugin:
    """Adds the items to the session, once."""

    def __init__(self, conftest: Any):
        self.conftest = conftest

    @pytest.hookimpl
    def pytest_collection_modifyitems(self, session: Any, items: list) -> None:
        """After the project's own tests, unless single tests were asked for."""
        collector = LawCollector.from_parent(
            session, name="lora_laws", nodeid="lora_laws", conftest=self.conftest
        )
        items.extend(collector.collect())


def pytest_plugin_registered(plugin: Any, manager: Any) -> None:
    """Whatever conftest names a `lora_subject` gets its laws."""
    if hasattr(plugin, "lora_subject") and not isinstance(plugin, LawPlugin):
        name = f"lora_laws_{getattr(plugin, '__file__', id(plugin))}"
        if not manager.has_plugin(name):
            manager.register(LawPlugin(plugin), name)
