"""Every array name, keyword and method that the package uses exists in real CuPy."""

import ast
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

PACKAGE = Path(__file__).parent.parent / "lora_np"
NEUTRAL = [
    *(PACKAGE / f"{name}.py" for name in ("backend", "graph", "tensor", "tape")),
    *(PACKAGE / "functional").glob("*.py"),
    *(PACKAGE / "lora").glob("*.py"),
    *(PACKAGE / "nn").glob("*.py"),
    PACKAGE / "training" / "optim.py",
    PACKAGE / "training" / "schedule.py",
    PACKAGE / "models" / "gpt.py",
]
NEUTRAL = [p for p in NEUTRAL if p.name != "bare.py"]  # NumPy only, by design
# np.… that makes no array on the way of the computation
HOST_NAMES = {
    "ndarray", "dtype", "float16", "float32", "float64", "uint8", "int64", "random",
    "finfo", "number", "generic",
}  # fmt: skip
# what host-side code may do with np in these files: draws, files, checks of ids
HOST_CALLS = {
    "init.py": {"zeros"}, "layers.py": {"zeros", "ones"}, "optim.py": {"array"},
    "gpt.py": {"tile", "arange"}, "backend.py": {"asarray"},
    "adapter_io.py": {"isfinite"},
}  # fmt: skip
NOT_ARRAYS = {  # attributes of other things than arrays that share a form
    "items", "values", "keys", "append", "update", "pop", "get", "add", "discard",
    "endswith", "startswith", "join", "replace", "format", "strip", "setdefault",
    "split", "index", "copy", "dumps", "__init__",
    "free", "data", "grad", "node", "uniform", "normal", "random", "bit_generator",
}  # fmt: skip


def uses(source):
    """(kind, name, keywords, line) for xp.name, np.name and get_xp(…).name."""
    tree = ast.parse(source)
    called = {id(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    for node in ast.walk(tree):
        if id(node) in called:
            continue
        call = node if isinstance(node, ast.Call) else None
        target = call.func if call else node
        if not isinstance(target, ast.Attribute):
            continue
        owner = target.value
        words = {k.arg for k in call.keywords if k.arg} if call else set()
        if isinstance(owner, ast.Attribute) and getattr(owner.value, "id", "") == "xp":
            yield "xp", f"{owner.attr}.{target.attr}", words, target.lineno
        elif isinstance(owner, ast.Name) and owner.id in ("xp", "np"):
            yield owner.id, target.attr, words, target.lineno
        elif isinstance(owner, ast.Call) and (
            getattr(owner.func, "id", "") == "get_xp"
        ):
            yield "xp", target.attr, words, target.lineno
        elif call:
            yield "method", target.attr, words, target.lineno


def parameters(function):
    """Names of parameters; for compiled ones from the first lines of the docstring."""
    try:
        return set(inspect.signature(function).parameters), False
    except (TypeError, ValueError):
        head = (function.__doc__ or "").split("\n\n")[0].replace("\\*", "*")
        inside = re.search(r"\((.*)\)", head, re.S)
        words = set(
            re.findall(r"[A-Za-z_][A-Za-z_0-9]*", inside.group(1) if inside else "")
        )
        return words, not inside


def faults(source, name, cupy):
    found = []
    for kind, attribute, keywords, line in uses(source):
        if kind == "np":
            allowed = HOST_NAMES | HOST_CALLS.get(name, set())
            if attribute not in allowed:
                found.append(f"{name}:{line}: np.{attribute} in a backend-neutral room")
            continue
        if kind == "xp":
            function = cupy
            for part in attribute.split("."):
                function = getattr(function, part, None)
            if function is None and attribute != "newaxis":
                found.append(f"{name}:{line}: CuPy has no {attribute}")
                continue
        else:
            if attribute in NOT_ARRAYS:
                continue
            if not hasattr(cupy.ndarray, attribute):
                if hasattr(np.ndarray, attribute):
                    found.append(f"{name}:{line}: CuPy's arrays have no .{attribute}")
                continue
            function = getattr(cupy.ndarray, attribute)
        if callable(function) and keywords:
            known, unknown_signature = parameters(function)
            if not unknown_signature and not keywords <= known | {"dtype"}:
                found.append(f"{name}:{line}: {attribute} has no {keywords - known}")
    return found


@pytest.fixture(scope="module")
def cupy():
    return pytest.importorskip(
        "cupy", reason="needs: pip install cupy-cuda12x (no GPU)"
    )


@pytest.mark.parametrize("path", NEUTRAL, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_surface_exists_in_cupy(path, cupy):
    assert faults(path.read_text("utf-8"), path.name, cupy) == []


@pytest.mark.parametrize(
    "slip",
    [
        "xp.vecdot(a, b)", "xp.errstate(all='ignore')", "xp.einsum_path('i', a)",
        "np.exp(x)", "np.zeros(3)", "x.sum(axis=0, initial=1)", "x.mean(where=m)",
        "xp.exp(x, where=m)", "xp.sum(x, initial=0)", "get_xp(x).nanmean_(x)",
        "xp.max(x, where=m)", "xp.linalg.nope(x)", "x.resize(3)",
    ],
)  # fmt: skip
def test_the_scan_notices_what_cupy_lacks(slip, cupy):
    assert len(faults(slip, "linear.py", cupy)) == 1


def test_np_calls_are_noticed_without_cupy():
    class Nothing:
        ndarray = None

    assert faults("np.exp(x)", "linear.py", Nothing) != []
