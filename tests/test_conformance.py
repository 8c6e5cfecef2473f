"""The command, the worker, other people's subjects: files, programs, pytest, torch."""

import json
import re
import subprocess
import sys
import textwrap

import pytest

from lora_np.cli.main import main
from lora_np.reference.conformance import report
from lora_np.reference.conformance.case import OPTIONS
from lora_np.reference.conformance.laws import LAWS
from lora_np.reference.conformance.run import ERROR, FAIL, MISSING, PASS, cells
from lora_np.reference.conformance.worker import SubjectError, run_apart
from lora_np.reference.subjects.find import find

FACTORY = '''
import numpy as np


class Layer:
    """A LoRA layer on a linear layer, by hand."""

    def __init__(self, case):
        self.case = case

    def forward(self, x):
        c, f = self.case, self.case.factors
        y = x @ c.W.T + c.lora_alpha / c.r * (x @ f["A"].T) @ f["B"].T
        return y if c.b is None else y + c.b

    def gradients(self, dy, x):
        s, f = self.case.lora_alpha / self.case.r, self.case.factors
        return {"A": s * (dy @ f["B"]).T @ x, "B": s * dy.T @ (x @ f["A"].T)}

    def {EXTRA}


def factory(case):
    return Layer(case)
'''
PLAIN = """delta(self):
        f = self.case.factors
        return self.case.scale() * f["B"] @ f["A"]"""


def subject_file(folder, extra=PLAIN, **replaced):
    """A FILE.py:factory, with one part replaced."""
    source = FACTORY.replace("{EXTRA}", extra)
    for old, new in replaced.values():
        assert old in source
        source = source.replace(old, new)
    path = folder / "my_lora.py"
    path.write_text(source, encoding="utf-8")
    return f"{path}:factory"


def linear(*only):
    return list(cells(only, ["linear"], ["plain"]))


def outcomes(spec, *only, seconds=20.0):
    return {o.law: o for o in run_apart(spec, linear(*only), seconds=seconds)[2]}


# ---- a subject in a file


def test_a_right_layer_in_a_file_passes_what_it_offers(tmp_path):
    found = outcomes(subject_file(tmp_path), "algebra", "gradient")
    assert {o.state for o in found.values()} == {PASS, MISSING}
    assert found["gradient.by hand"].state == PASS
    assert found["algebra.merged forward"].detail == "merge"


def test_a_wrong_layer_fails_small_and_its_script_runs_alone(tmp_path):
    """The script needs neither this package nor anything but the user's file."""
    spec = subject_file(tmp_path, wrong=("s * (dy @ f", "(dy @ f"))
    found = outcomes(spec, "gradient.by hand", "algebra.forward")
    assert found["algebra.forward"].state == PASS
    failed = found["gradient.by hand"]
    assert failed.state == FAIL and failed.detail.startswith("dA differs by")
    assert "A = ([[1.0, 1.0" in failed.case or "A = ([[1.0]])" in failed.case
    script = tmp_path / "again.py"
    script.write_text(failed.script, encoding="utf-8")
    alone = "import sys, runpy; sys.modules['lora_np'] = None; "
    alone += f"runpy.run_path({str(script)!r})"
    done = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True)
    assert done.returncode == 1 and "AssertionError" in done.stderr, done.stderr
    subject_file(tmp_path)  # mended: the same script now passes
    done = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(failed.script.strip().split("\n")) <= 16


BAD = {
    "return Layer(case)": {
        "import os; os._exit(4)": "the process ended by itself (exit status 4)",
        "import os; os.kill(os.getpid(), 11)": "ended by itself (exit status -11)",
        "raise RuntimeError('no CUDA device')": "RuntimeError: no CUDA device",
        "return None": "a layer was expected, got None",
        "return Layer(case).nothing": "AttributeError: 'Layer' object has no",
    },
    "return y if c.b is None else y + c.b": {
        "return y.tolist()": "forward returned a list, expected a NumPy array",
        "return None": "forward returned a NoneType, expected a NumPy array",
        "return y * 1j": "forward returned an array of complex128",
        "return y * np.nan": "y is not finite",
        "return y.T[:, :, None]": "y has shape",
        "return y, y": "y got 2 outputs, want 1 outputs",
        "1 / 0": "ZeroDivisionError: division by zero (",
        "import sys; sys.exit(3)": "SystemExit: 3",
    },
}


@pytest.mark.parametrize(
    "old, new, says",
    [(old, new, says) for old, cases in BAD.items() for new, says in cases.items()],
)
def test_a_bad_subject_is_told_in_its_cell(tmp_path, old, new, says):
    spec = subject_file(tmp_path, bad=(old, new))
    found = outcomes(spec, "algebra.forward", "numeric.empty batch")
    assert len(found) == 2
    first = found["algebra.forward"]
    assert first.state in (FAIL, ERROR) and says in first.detail, first.detail


def test_an_endless_loop_is_ended_and_the_run_goes_on(tmp_path):
    endless = "while True:\n            pass\n        s, f = "
    spec = subject_file(tmp_path, loop=("s, f = ", endless))
    found = outcomes(spec, "gradient.balance", "algebra.forward", seconds=2.0)
    assert found["algebra.forward"].state == PASS
    late = found["gradient.balance"]
    assert late.state == ERROR and "no answer in 2 s, ended" in late.detail


def test_a_subject_that_cannot_be_built_is_one_sentence(tmp_path, capsys):
    (tmp_path / "broken.py").write_text("import nothing_there")
    cases = {
        "nonsense": "is none of lora_np, lora_np-constant-norm, peft, loralib",
        f"{tmp_path}/none.py:factory": "no ",
        f"{tmp_path}/broken.py:factory": "No module named 'nothing_there'",
        subject_file(tmp_path) + "y": "has no 'factoryy'; it has Layer, factory",
        "command:": "command: names no program",
    }
    for spec, says in cases.items():
        with pytest.raises(SubjectError, match="subject"):
            run_apart(spec, linear("algebra.forward"))
        assert main(["conformance", "--subject", spec, "--only", "files"]) == 2
        assert says in capsys.readouterr().err
    for library in ("peft", "loralib"):
        try:
            __import__(library)
        except ImportError:
            with pytest.raises(RuntimeError, match=f"{library} cannot|PEFT cannot"):
                find(library)
            assert main(["conformance", "--subject", library, "--only", "files"]) == 2
            assert f"pip install {library}" in capsys.readouterr().err


IN_PLACE = """
        self.W = case.W

    def merge(self):
        f = self.case.factors
        self.W += self.case.scale() * (f["B"] @ f["A"])
        self.merged = True

    def weight(self):
        return self.W

    merged = False
"""


def test_an_ordinary_in_place_layer_is_no_failure(tmp_path):
    """It holds the case's own arrays and merges into them."""
    merged = "c.W.T + (0 if self.merged else 1) * c.lora_alpha / c.r"
    spec = subject_file(
        tmp_path, where=("self.case = case\n", "self.case = case" + IN_PLACE),
        what=("c.W.T + c.lora_alpha / c.r", merged),
    )  # fmt: skip
    found = outcomes(spec, "algebra")
    assert found["algebra.merged forward"].state == PASS
    assert found["algebra.merged weight"].state == PASS


DORA = """
import numpy as np


class Dora:
    def __init__(self, case):
        self.c = case

    def parts(self):
        c, f = self.c, self.c.factors
        V = c.W + c.scale() * f["B"] @ f["A"]
        n = np.sqrt((V * V).sum(1))
        return V, n, f

    def forward(self, x):
        V, n, f = self.parts()
        y = x @ ((f["m"] / n)[:, None] * V).T
        return y if self.c.b is None else y + self.c.b

    def gradients(self, dy, x):
        V, n, f = self.parts()
        g, s = dy.T @ x, self.c.scale()
        dV, dm = (f["m"] / n)[:, None] * g, (g * V).sum(1) / n  # n held constant
        return {"A": s * f["B"].T @ dV, "B": s * dV @ f["A"].T, "m": dm}


def factory(case):
    return Dora(case)


factory.dora_constant_norm = True
"""


def test_dora_with_a_constant_norm_is_a_method_of_its_own(tmp_path):
    path = tmp_path / "dora.py"
    chosen = list(cells(["gradient"], ["linear"], ["dora"]))
    for text, state in ((DORA, PASS), (DORA.replace("= True", "= False"), FAIL)):
        path.write_text(text)
        found = {o.law: o for o in run_apart(f"{path}:factory", chosen)[2]}
        assert found["gradient.by hand"].state == state


# ---- the command


def test_the_command_prints_writes_and_returns(tmp_path, capsys):
    spec = subject_file(tmp_path, wrong=("s * (dy @ f", "(dy @ f"))
    page, record, scripts = (tmp_path / n for n in ("p.html", "r.json", "scripts"))
    code = main(["conformance", "--subject", spec, "--only", "gradient", "--layer",
                 "linear", "--option", "plain", "--html", str(page), "--json",
                 str(record), "--scripts", str(scripts)])  # fmt: skip
    out = capsys.readouterr().out
    assert code == 1
    assert re.search(r"gradient.by hand +F\n", out) and "1 plain" in out
    assert "FAIL gradient.by hand on linear, plain" in out and "to see it again" in out
    kept = json.loads(record.read_text("utf-8"))
    asked = len(linear("gradient"))
    assert kept["subject"] == "factory" and len(kept["cells"]) == asked
    assert {"law", "layer", "option", "state", "detail"} <= set(kept["cells"][0])
    text = page.read_text("utf-8")
    assert text.count("<tr>") == 1 + asked
    assert 'class="fail"' in text and "<script" not in text
    assert (scripts / "gradient.by_hand-linear-plain.py").is_file()
    code = main(["conformance", "--subject", spec, "--only", "algebra.forward",
                 "--layer", "linear", "--option", "plain", "--json", "-"])  # fmt: skip
    assert code == 0
    assert json.loads(capsys.readouterr().out)["cells"][0]["state"] == PASS


def test_what_a_subject_prints_or_says_does_not_break_the_report(tmp_path, capfd):
    """stdout is the report's; a lone surrogate in a message is escaped."""
    noise = "print('noise'); raise ValueError('a' + chr(0xD800))"
    spec = subject_file(tmp_path, loud=("return Layer(case)", noise))
    page, scripts = tmp_path / "p.html", tmp_path / "scripts"
    chosen = ["--subject", spec, "--only", "algebra.forward", "--layer", "linear",
              "--option", "plain"]  # fmt: skip
    assert main(["conformance", *chosen, "--json", "-"]) == 1
    assert json.loads(capfd.readouterr().out)["cells"][0]["state"] == ERROR
    files = ["--html", str(page), "--scripts", str(scripts)]
    assert main(["conformance", *chosen, *files]) == 1
    assert "a\\ud800" in page.read_text("utf-8") and list(scripts.iterdir())


def test_a_page_escapes_what_a_subject_says():
    o = report.Outcome(
        "algebra.forward", "linear", "plain", FAIL, "<b>&", "x < 1", "a&b"
    )
    text = report.to_html("<me>", "1", [o])
    assert "&lt;b&gt;&amp;" in text and "<me>" not in text


def test_words_that_name_nothing(capsys):
    for arguments, says in (
        (["--only", "grad"], "no law 'grad'; groups are algebra, combining"),
        (["--layer", "dense"], "no layer 'dense'; there are linear, embedding"),
        (["--option", "qlora"], "no option 'qlora'; there are bfloat16"),
        (["--layer", "lstm", "--option", "rslora"], "no law speaks of that layer"),
    ):
        assert main(["conformance", *arguments]) == 2
        assert says in capsys.readouterr().err


def test_the_laws_are_listed(capsys):
    assert main(["conformance", "--laws"]) == 0
    out = capsys.readouterr().out
    assert "algebra.merged forward" in out and f"{len(LAWS)} laws" in out


def test_golden_vectors_are_written_with_page_and_reader(tmp_path, capsys):
    assert main(["conformance", "--golden", str(tmp_path)]) == 0
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"index.json", "data.bin", "FORMAT.md", "read_golden.c"}
    page = (tmp_path / "FORMAT.md").read_text("utf-8")
    for option in ("float32", "bfloat16", "fan_in_fan_out"):
        assert option in page and any(option in o for o in OPTIONS["linear"])


# ---- a program

PROGRAM = """
import json, struct, sys
from pathlib import Path

request, reply = map(Path, sys.argv[1:])
index = json.loads((request / "index.json").read_text())
data = (request / "data.bin").read_bytes()
if index["layer"] != "linear" or "dora" in index["option"]:
    sys.stderr.write("linear layers without DoRA")
    sys.exit(3)
arrays = {}
for a in index["arrays"]:
    letter = {"float64": "d", "int64": "q"}.get(a["dtype"])
    if letter is None:
        sys.exit(3)
    flat = struct.unpack_from(f"<{a['count']}{letter}", data, a["offset"])
    columns = a["shape"][-1] if len(a["shape"]) == 2 else max(1, a["count"])
    arrays[a["name"]] = [flat[i : i + columns] for i in range(0, a["count"], columns)]
x, W, A, B, s = (arrays[n] for n in ("x", "W", "A", "B", "s"))
delta = [[s[0][0] * sum(B[m][r] * A[r][d] for r in range(len(A)))
          for d in range(len(W[0]))] for m in range(len(W))]
merged = [[w + d for w, d in zip(*rows)] for rows in zip(W, delta)]
b = arrays.get("b", [[0.0] * len(W)])[0]
y = [[sum(p * q for p, q in zip(row, m)) + c for m, c in zip(merged, b)] for row in x]
answers = {"forward": ("y", y), "delta": ("delta", delta), "merge": ("merged", merged)}
if index["operation"] not in answers:
    sys.exit(3)
name, rows = answers[index["operation"]]
flat = [v for row in rows for v in row]
(reply / "data.bin").write_bytes(struct.pack(f"<{len(flat)}d", *flat))
line = {"name": name, "dtype": "float64", "offset": 0, "count": len(flat),
        "shape": [len(rows), len(rows[0]) if rows else len(W)]}
(reply / "index.json").write_text(
    json.dumps({"format": "lora_np arrays 1", "arrays": [line]}))
"""


def program(folder, old="", new=""):
    path = folder / "program.py"
    path.write_text(PROGRAM.replace(old, new) if old else PROGRAM, encoding="utf-8")
    return f"command:{sys.executable} {path}"


def test_a_program_without_numpy_is_a_subject(tmp_path):
    laws = ("algebra.forward", "algebra.update", "algebra.merged forward",
            "gradient.by hand")  # fmt: skip
    found = outcomes(program(tmp_path), *laws)
    assert [found[law].state for law in laws] == [PASS, PASS, PASS, MISSING]
    wrong = outcomes(program(tmp_path, "s[0][0] * sum", "sum"), *laws[:1])
    failed = wrong["algebra.forward"]
    assert failed.state == FAIL
    script = tmp_path / "again.py"
    script.write_text(failed.script, encoding="utf-8")
    alone = "import sys, runpy; sys.modules['lora_np'] = None; "
    alone += f"runpy.run_path({str(script)!r})"
    done = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True)
    assert done.returncode == 1 and "AssertionError" in done.stderr, done.stderr
    program(tmp_path)  # mended
    done = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "old, new, says",
    [
        ("request, reply", "1 / 0; request, reply", "exit status 1: ZeroDivisionError"),
        ('"name": name', '"name": "z"', "the reply has no array 'y'; it has z"),
        ("lora_np arrays 1", "mine", "is not in the format"),
        ('"count": len(flat)', '"count": 10**6', "does not lie in data.bin"),
        ('(reply / "index', 'sys.exit(0); (reply / "index', "FileNotFoundError"),
    ],
)
def test_a_bad_program_is_told(tmp_path, old, new, says):
    found = outcomes(program(tmp_path, old, new), "algebra.forward")
    assert found["algebra.forward"].state == ERROR
    assert says in found["algebra.forward"].detail


# ---- pytest


def run_pytest(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip


def test_two_lines_in_a_conftest(tmp_path):
    subject_file(tmp_path)
    (tmp_path / "conftest.py").write_text(
        'pytest_plugins = ["lora_np.reference.pytest_plugin"]\n'
        'lora_subject = "my_lora.py:factory"\n'
        'lora_layers = ["linear"]\nlora_only = ["gradient.by hand", "algebra"]\n'
    )
    (tmp_path / "test_own.py").write_text("def test_own():\n    assert 1 + 1 == 2\n")
    done = run_pytest(tmp_path, "-k", "plain or own")
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout
    assert "skipped" in done.stdout
    subject_file(tmp_path, wrong=("s * (dy @ f", "(dy @ f"))
    done = run_pytest(tmp_path, "-k", "plain or own")
    assert done.returncode == 1
    assert "gradient.by hand does not hold" in done.stdout
    assert "smallest case found:" in done.stdout and "Traceback" not in done.stdout


def test_laws_are_chosen_like_other_tests(tmp_path):
    subject_file(tmp_path)
    (tmp_path / "conftest.py").write_text(
        'pytest_plugins = ["lora_np.reference.pytest_plugin"]\n'
        'lora_subject = "my_lora.py:factory"\n'
    )
    (tmp_path / "test_own.py").write_text("def test_own():\n    assert 1 + 1 == 2\n")
    assert "1 passed" in run_pytest(tmp_path, "test_own.py").stdout
    one = "conftest.py::algebra.forward[linear-plain]"
    assert "1 passed" in run_pytest(tmp_path, one).stdout
    found = run_pytest(tmp_path, "--collect-only").stdout
    assert one in found and f"{len(list(cells())) + 1} tests collected" in found


def test_a_factory_itself_in_a_conftest(tmp_path):
    subject_file(tmp_path)
    (tmp_path / "conftest.py").write_text(
        textwrap.dedent("""
        import sys
        from pathlib import Path

        sys.path.insert(0, str(Path(__file__).parent))
        from my_lora import factory as lora_subject

        pytest_plugins = ["lora_np.reference.pytest_plugin"]
        lora_only = ["algebra.forward"]
    """)
    )
    done = run_pytest(tmp_path, "-k", "linear-plain")
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout


# ---- JAX and torch, where they are installed

JAX = """
from lora_np.reference.subjects.jax_function import JaxLayer


def lora_linear(x, W, b, A, B, s):
    y = x @ W.T + s * (x @ A.T) @ B.T
    return y if b is None else y + b


def factory(case):
    return JaxLayer(lora_linear, case)
"""


def test_a_jax_function(tmp_path):
    pytest.importorskip("jax", reason="needs: pip install jax")
    (tmp_path / "j.py").write_text(JAX)
    laws = ("algebra.forward", "gradient.by hand", "gradient.own derivative")
    found = outcomes(f"{tmp_path}/j.py:factory", *laws)
    assert {o.state for o in found.values()} == {PASS}
    (tmp_path / "j.py").write_text(JAX.replace("s * (x", "(x"))
    assert outcomes(f"{tmp_path}/j.py:factory", *laws[:1])[laws[0]].state == FAIL


def test_a_missing_library_is_not_offered_with_what_to_install(tmp_path):
    for library in ("jax", "torch"):
        source = {
            "jax": JAX,
            "torch": "from lora_np.reference.subjects.torch_module import TorchLayer\n"
            "def factory(case):\n    return TorchLayer(None, case, weight='w')\n",
        }[library]
        path = tmp_path / f"{library}_subject.py"
        path.write_text(f"import sys\nsys.modules[{library!r}] = None\n" + source)
        found = outcomes(f"{path}:factory", "algebra.forward")
        assert found["algebra.forward"].state == MISSING
        assert f"pip install {library}" in found["algebra.forward"].detail
