"""The shims for torch libraries, and the findings: in an environment of their own.

python3 -m venv .venv-shims
.venv-shims/bin/pip install torch==2.13.0
.venv-shims/bin/pip install -e ".[shims]"
.venv-shims/bin/python -m pytest -q -m slow tests/test_shims.py
"""

import importlib.util
import re
from importlib import metadata

import pytest

from lora_np.cli.main import main
from lora_np.reference.conformance import findings
from lora_np.reference.conformance.laws import LAWS
from lora_np.reference.conformance.run import (
    ERROR,
    FAIL,
    PASS,
    cells,
    run_all,
    run_cell,
)

FOUND, VERSIONS, _ = findings.load()


def needs(*libraries):
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"needs: pip install {library}")


# ---- always: the record itself


def test_every_finding_is_whole_and_has_its_script():
    labels = {law.label for law in LAWS}
    assert len(FOUND) >= 40 and {f.package for f in FOUND} == {"peft", "loralib"}
    for f in FOUND:
        assert f.law in labels and f.judgement in findings.JUDGEMENTS
        assert f.says.endswith(".") and f.got and f.want and f.evidence
        text = f.script.read_text("utf-8")
        assert "lora_np" not in text and len(text.split("\n")) <= 45
    scripts = {p.stem for p in findings.FOLDER.glob("*.py")}
    assert scripts == {f.name for f in FOUND}


def test_every_failing_cell_is_explained_by_a_finding():
    by_name = {f.name: f for f in FOUND}
    columns = {(layer, option) for _, layer, option in cells()}
    for library in ("peft", "loralib"):
        summary, recorded = findings.failing(library)
        bad = sum(int(n) for n in re.findall(r"(\d+) (?:fail|error)", summary))
        assert len(recorded) == bad
        for (law, layer, option), name in recorded.items():
            assert by_name[name].package == library and (layer, option) in columns
            assert law in {known.label for known in LAWS}


def test_the_findings_are_listed(capsys):
    assert main(["conformance", "--findings"]) == 0
    out = capsys.readouterr().out
    assert f"{len(FOUND)} findings" in out and VERSIONS["peft"] in out


def test_a_script_that_breaks_is_no_finding(tmp_path, monkeypatch):
    monkeypatch.setattr(findings, "FOLDER", tmp_path)
    one = FOUND[0]
    one.script.write_text("raise SystemExit(1)")
    assert findings.still_there(one)
    one.script.write_text("raise SystemExit(0)")
    assert not findings.still_there(one)
    one.script.write_text("import nothing_there")
    with pytest.raises(RuntimeError, match="ModuleNotFoundError"):
        findings.still_there(one)


# ---- with torch


@pytest.mark.slow
@pytest.mark.parametrize("finding", FOUND, ids=lambda f: f.name)
def test_a_finding_is_still_there(finding):
    needs("torch", "transformers", finding.package)
    if metadata.version(finding.package) != VERSIONS[finding.package]:
        pytest.skip(f"was found in {finding.package} {VERSIONS[finding.package]}")
    assert findings.still_there(finding)


@pytest.mark.slow
@pytest.mark.parametrize("library", ["peft", "loralib"])
def test_the_matrix_is_as_recorded(library):
    """Every cell of the run: nothing fails but what a finding explains, and what was
    recorded fails again. (Other versions of Hypothesis draw other cases: a cell where
    only one case in fifty fails may pass, or one beside it fail.)"""
    needs("torch", "transformers", library)
    from lora_np.reference.subjects.find import find

    subject = find(library)
    if subject.version != VERSIONS[library]:
        pytest.skip(f"was run with {library} {VERSIONS[library]}")
    found = run_all(subject, list(cells()), seen=lambda o: None)
    broken = {(o.law, o.layer, o.option) for o in found if o.state in (FAIL, ERROR)}
    _, recorded = findings.failing(library)
    explained = {(law, layer) for law, layer, _ in recorded}
    assert {(law, layer) for law, layer, _ in broken} <= explained
    assert len(broken & set(recorded)) >= 0.9 * len(recorded)
    assert all(o.script for o in found if o.state in (FAIL, ERROR))
    assert sum(o.state == PASS for o in found) > 150


@pytest.mark.slow
def test_a_script_of_a_failing_law_runs_without_this_package(tmp_path):
    needs("torch", "peft")
    import subprocess
    import sys

    from lora_np.reference.subjects.find import find

    law = next(law for law in LAWS if law.label == "combining.one")
    outcome = run_cell(find("peft"), law, "linear", "rslora")
    script = tmp_path / "again.py"
    script.write_text(outcome.script)
    alone = "import sys, runpy; sys.modules['lora_np'] = None; "
    alone += f"runpy.run_path({str(script)!r})"
    done = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True)
    assert done.returncode == 1 and "AssertionError" in done.stderr, done.stderr


MODULE = """
import torch
from lora_np.reference.subjects.torch_module import TorchLayer


class LoraLinear(torch.nn.Module):
    def __init__(self, inside, outside, r, alpha):
        super().__init__()
        self.base = torch.nn.Linear(inside, outside)
        self.base.requires_grad_(False)
        self.lora_A = torch.nn.Parameter(torch.zeros(r, inside))
        self.lora_B = torch.nn.Parameter(torch.zeros(outside, r))
        self.scale = alpha / r

    def forward(self, x):
        return self.base(x) + self.scale * x @ self.lora_A.T @ self.lora_B.T

    def merge(self):
        self.base.weight.data += self.scale * self.lora_B @ self.lora_A
        self.scale = 0.0


def factory(case):
    from lora_np.reference.conformance.protocol import NotOffered

    if case.layer != "linear" or case.use_dora or case.use_rslora or case.p:
        raise NotOffered("plain linear layers only")
    layer = LoraLinear(case.W.shape[1], case.W.shape[0], case.r, case.lora_alpha)
    return TorchLayer(layer, case, weight="base.weight", bias="base.bias", A="lora_A",
                      B="lora_B", merge=LoraLinear.merge)
"""


@pytest.mark.slow
def test_a_plain_torch_module(tmp_path):
    needs("torch")
    from lora_np.reference.subjects.find import find

    path = tmp_path / "my_module.py"
    path.write_text(MODULE)
    found = run_all(find(f"{path}:factory"), list(cells((), ["linear"], ["plain"])))
    assert [o for o in found if o.state in (FAIL, ERROR)] == []
    assert sum(o.state == PASS for o in found) >= 15
    path = tmp_path / "wrong_module.py"
    path.write_text(MODULE.replace("data += self.scale * ", "data += "))
    found = run_all(find(f"{path}:factory"), list(cells(["algebra"], ["linear"])))
    failed = {o.law for o in found if o.state == FAIL}
    assert failed == {"algebra.merged forward", "algebra.merged weight"}
    path = tmp_path / "turned_module.py"
    path.write_text(MODULE.replace("torch.zeros(r, inside)", "torch.zeros(inside, r)"))
    law = next(law for law in LAWS if law.label == "algebra.forward")
    outcome = run_cell(find(f"{path}:factory"), law, "linear", "plain")
    assert outcome.state == ERROR and "transposed=('A',)" in outcome.detail
