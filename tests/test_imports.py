"""Who may import whom, what importing costs, and where array calls may be made."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lora_np"

# room -> rooms it may import; a room may always import itself
MAY = {
    "backend": set(),
    "graph": {"backend"},
    "report": {"backend"},
    "quotients": {"backend"},
    "numerics": {"backend", "report", "quotients"},
    "functional": {"backend"},
    "lora": {"backend", "functional"},
    "tensor": {"backend", "graph"},
    "tape": {"backend", "graph", "tensor"},
    "files": {"backend"},
    "data": {"backend", "files"},
    "nn": {"backend", "functional", "lora", "tape", "graph", "files"},
    "models": {"backend", "functional", "tape", "graph", "nn", "files"},
    "training": {
        "backend",
        "functional",
        "lora",
        "tape",
        "graph",
        "nn",
        "models",
        "files",
    },
    # nn, training, files: what its subjects, which stand for a user, work with
    "reference": {
        "backend",
        "functional",
        "lora",
        "tape",
        "graph",
        "numerics",
        "nn",
        "training",
        "files",
    },
    "plots": {"backend", "graph", "tape", "numerics", "files"},
    "documents": {
        "backend",
        "functional",
        "lora",
        "tape",
        "graph",
        "nn",
        "models",
        "training",
        "files",
        "data",
        "reference",
    },
    "exercises": {
        "functional",
        "lora",
        "quotients",
        "files",
    },
    "cli": {
        "documents",
        "exercises",
        "report",
        "backend",
        "functional",
        "lora",
        "tape",
        "graph",
        "numerics",
        "nn",
        "models",
        "training",
        "files",
        "data",
        "reference",
        "plots",
    },
    "__main__": {"cli"},
    "__init__": set(),
}
HEAVY = {
    "matplotlib": {"plots"},
    "PIL": {"plots"},
    "hypothesis": {"reference", "exercises"},
}


def imports_of(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((a.name, node.lineno) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level + (node.module or ""), node.lineno
            elif node.module == "lora_np":
                yield from ((f"lora_np.{a.name}", node.lineno) for a in node.names)
            else:
                yield node.module or "", node.lineno


def room_of(path):
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def faults(room, source):
    found = []
    for name, line in imports_of(ast.parse(source)):
        parts = name.split(".")
        if name.startswith("."):
            found.append(
                f"line {line}: relative import; write lora_np.{name.strip('.')}"
            )
        if parts[0] == "lora_np" and len(parts) > 1:
            if parts[1] != room and parts[1] not in MAY[room]:
                found.append(f"line {line}: {room} imports {parts[1]}")
        elif (parts[0] in HEAVY and room not in HEAVY[parts[0]]) or parts[0] in (
            "cupy",
            "torch",
        ):
            found.append(f"line {line}: {room} imports {parts[0]}")
    return found


SOURCES = sorted(  # the findings are scripts for others' libraries, never imported
    p for p in PACKAGE.rglob("*.py") if p.parent.name != "findings"
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_import_rule(path):
    assert faults(room_of(path), path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "room, line",
    [
        ("functional", "from lora_np.tape import Tensor"),
        ("tape", "from lora_np import functional"),
        ("lora", "import lora_np.nn"),
        ("training", "from lora_np.reference import PAIRS"),
        ("nn", "import matplotlib.pyplot"),
        ("backend", "import cupy"),
        ("reference", "from lora_np.documents import D4"),
        ("training", "import lora_np.documents"),
        ("functional", "from ..tape import Tensor"),
    ],
)
def test_the_import_rule_can_fail(room, line):
    assert len(faults(room, line)) == 1


def test_the_oracle_shares_nothing_with_what_it_judges():
    """NumPy and its own files: our layers agreeing with it is evidence, no circle."""
    for path in (PACKAGE / "reference" / "oracle").glob("*.py"):
        for name, line in imports_of(ast.parse(path.read_text("utf-8"))):
            own = name.startswith(("numpy", "lora_np.reference.oracle"))
            standard = name.split(".")[0] in sys.stdlib_module_names
            assert own or standard, f"{path.name}:{line}: {name}"


@pytest.mark.parametrize(
    "module",
    ["lora_np", "lora_np.reference", "lora_np.lora", "lora_np.reference.oracle"],
)
def test_importing_is_light(module):
    code = (
        f"import sys, {module}; "
        "print([m for m in ('matplotlib', 'hypothesis', 'tqdm', 'safetensors', "
        "'torch', 'IPython', 'cupy', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_importing_does_not_touch_the_allocator():
    for path in SOURCES:
        tree = ast.parse(path.read_text("utf-8"))
        for node in tree.body:
            for call in ast.walk(node) if isinstance(node, ast.Expr) else ():
                name = getattr(getattr(call, "func", None), "id", "")
                assert name != "tune_allocator", path
