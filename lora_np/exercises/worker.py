"""Runs a learner's code away from the grader: a process that answers calls.

Started with a file's path (or forked with a function, in a notebook), it reads requests
from a pipe and writes answers to one; the grader compares. Needs the standard library
and NumPy alone, and refuses to import lora_np: the answer is to be written, not found.

A message is a line of JSON with its arrays' bytes behind it.
"""

import contextlib
import faulthandler
import inspect
import io
import json
import linecache
import os
import struct
import sys
import types
from collections.abc import Callable
from typing import IO, Any

import numpy as np

MEMORY = 2 * 2**30  # bytes beyond what the process holds at its start
MOST_VALUES, MOST_DEPTH = 100_000, 40  # in one result
PRINTED = 2000  # characters of the learner's own prints that are passed on


# ---- messages


def pack(value: Any) -> bytes:
    """A value as bytes: a header's length, the header, the arrays.

    Raises ValueError for more values than a result may hold.

    >>> unpack(pack({"x": np.arange(2.0), "n": [1, None]}))
    {'x': array([0., 1.]), 'n': [1, None]}
    """
    plain = _Plain()
    header = json.dumps(plain.of(value)).encode()
    body = b"".join(plain.arrays)
    return struct.pack("<QQ", len(header), len(body)) + header + body


def unpack(message: bytes) -> Any:
    """The value that `pack` was given."""
    head, _ = struct.unpack("<QQ", message[:16])
    return _restored(json.loads(message[16 : 16 + head]), message[16 + head :])


class _Plain:
    """Values as JSON can hold them; arrays are collected beside."""

    def __init__(self) -> None:
        self.arrays: list[bytes] = []
        self.within: list[int] = []  # the containers on the way to the value
        self.where = self.count = 0

    def of(self, value: Any) -> Any:
        """The value as JSON; what it cannot hold becomes the name of its type."""
        self.count += 1
        if self.count > MOST_VALUES:
            raise ValueError(f"the result holds more than {MOST_VALUES} values")
        if isinstance(value, np.ndarray | np.generic):
            return self.array(value)
        if isinstance(value, int) and abs(value) >= 2**63:
            return {"strange": "int beyond 64 bits"}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, complex):
            return {"complex": [value.real, value.imag]}
        if isinstance(value, list | tuple | dict | Made):
            return self.container(value)
        return {"strange": f"{type(value).__module__}.{type(value).__qualname__}"}

    def array(self, value: np.ndarray | np.generic) -> dict:
        """Its dtype, shape and where its bytes begin."""
        if value.dtype.kind not in "biufc":
            return {"strange": f"array of dtype {value.dtype}"}
        kept = [value.dtype.str, list(value.shape), self.where]
        self.arrays.append(np.ascontiguousarray(value).tobytes())
        self.where += len(self.arrays[-1])
        return {"array" if isinstance(value, np.ndarray) else "scalar": kept}

    def container(self, value: Any) -> Any:
        """Its contents, unless it contains itself or is nested too deep."""
        if id(value) in self.within:
            return {"strange": f"{type(value).__name__} that contains itself"}
        if len(self.within) > MOST_DEPTH:
            return {"strange": f"{type(value).__name__} nested too deep"}
        self.within.append(id(value))
        try:
            if isinstance(value, Made):
                return {"made": [value.kind, self.of(value.values)]}
            if isinstance(value, dict):
                items = [[self.of(k), self.of(v)] for k, v in value.items()]
                return {"dict": items}
            items = [self.of(v) for v in value]
            return {"tuple": items} if isinstance(value, tuple) else items
        finally:
            self.within.pop()


def _restored(value: Any, body: bytes) -> Any:
    if isinstance(value, list):
        return [_restored(v, body) for v in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind in ("array", "scalar"):
        dtype, shape, where = content
        count = int(np.prod(shape))
        flat = np.frombuffer(body, dtype, count, where).copy()
        return flat.reshape(shape) if kind == "array" else flat[0]
    if kind == "complex":
        return complex(*content)
    if kind == "tuple":
        return tuple(_restored(v, body) for v in content)
    if kind == "dict":
        return {_restored(k, body): _restored(v, body) for k, v in content}
    if kind == "made":
        return Made(content[0], _restored(content[1], body))
    return Strange(content)


class Strange:
    """Stands for a value of a type that is no array, number or container."""

    def __init__(self, type_name: str):
        self.type_name = type_name.removeprefix("builtins.")


class Made:
    """An argument that is made on the learner's side: a generator or a function."""

    def __init__(self, kind: str, values: Any):
        self.kind, self.values = kind, values

    def __deepcopy__(self, memo: dict) -> "Made":
        return self

    def make(self) -> Any:
        """The argument itself, of one of two kinds.

        rng: a NumPy generator from a seed. cubic: f(x) = Σ a x³ + b x² + c x plus the
        products of neighbours, Σ d_i x_i x_{i+1}.
        """
        if self.kind == "rng":
            return np.random.default_rng(self.values)
        a, b, c, pairs = self.values

        def f(x: np.ndarray) -> float:
            x = np.asarray(x)
            flat = x.ravel()
            return float(
                (a * x**3 + b * x**2 + c * x).sum()
                + (pairs * flat[:-1] * flat[1:]).sum()
            )

        return f


def read(stream: IO[bytes]) -> Any:
    """The next message; raises EOFError at the end of the stream."""
    head = _exactly(stream, 16)
    return unpack(head + _exactly(stream, sum(struct.unpack("<QQ", head))))


def _exactly(stream: IO[bytes], count: int) -> bytes:
    """So many bytes; a pipe without a buffer gives them in parts."""
    parts = []
    while count:
        part = stream.read(min(count, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


# ---- the learner's side


REFUSED = "an answer is written without lora_np; use NumPy alone"


def _ours(module: str) -> bool:
    return module.split(".")[0] == "lora_np"


class Blocked:
    """Refuses `import lora_np`."""

    def find_spec(self, name: str, *rest: Any) -> None:
        if _ours(name):
            raise ImportError(REFUSED)


def refuse_the_package() -> None:
    """No import of lora_np, and no file of it opened; an audit hook cannot be removed.

    In a fork the package is there already: it is forgotten.
    """
    package = os.path.dirname(os.path.dirname(os.path.realpath(__file__))) + os.sep
    for name in filter(_ours, [*sys.modules]):
        del sys.modules[name]

    def hook(event: str, arguments: tuple) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if path.startswith(package):
                raise ImportError(REFUSED)

    sys.addaudithook(hook)
    sys.meta_path.insert(0, Blocked())  # type: ignore[arg-type]


class Bounded(io.TextIOBase):
    """Keeps the first characters that are written, and forgets the rest."""

    def __init__(self) -> None:
        self.kept = ""

    def write(self, text: str) -> int:
        self.kept += text[: max(0, PRINTED - len(self.kept))]
        return len(text)


def limit_memory() -> None:
    """Allow `MEMORY` bytes more than now, where the system knows such a limit."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        held = 0
        if os.path.exists("/proc/self/statm"):
            with open("/proc/self/statm") as file:
                held = int(file.read().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, hard))


def described(error: BaseException, file: str) -> dict:
    """An exception at the learner's line: type, message, line number and text."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return {"type": type(error).__name__, "message": error.msg,
                "line": error.lineno or 0, "text": (error.text or "").rstrip("\n"),
                "column": error.offset or 0}  # fmt: skip
    line, trace = 0, error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    text = linecache.getline(file, line).strip() if line else ""
    return {"type": type(error).__name__, "message": str(error), "line": line,
            "text": text, "column": 0}  # fmt: skip


def answer(request: dict, functions: dict[str, Any], file: str) -> dict:
    """The reply to one request: call a function, or read a module's value."""
    if "get" in request:
        names = request["get"]
        return {"values": {n: functions[n] for n in names if n in functions}}
    function, given = functions[request["call"]], request["arguments"]
    arguments = {k: v.make() if isinstance(v, Made) else v for k, v in given.items()}
    before = {k: _frozen(v) for k, v in given.items()}
    try:
        with np.errstate(all="ignore"):
            value = called(function, arguments)
    except BaseException as error:
        return {"error": described(error, file)}
    changed = [k for k, v in given.items() if _frozen(v) != before[k]]
    return {"value": value, "changed": changed}


def parameters(function: Callable) -> list[str] | None:
    """Names of a function's parameters, with "=" after those that have a default.

    None where it takes any, or cannot say.

    >>> parameters(lambda x, W, b=None: x), parameters(lambda *given: 0)
    (['x', 'W', 'b='], None)
    """
    try:
        listed = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in listed):
        return None
    return [p.name + "=" * (p.default is not p.empty) for p in listed]


def called(function: Callable, arguments: dict[str, Any]) -> Any:
    """By keyword where the names are those expected, else in the expected order."""
    names = parameters(function)
    if names is not None and not _unnamed(function):
        required = {n for n in names if not n.endswith("=")}
        if required <= set(arguments) <= {n.rstrip("=") for n in names}:
            return function(**arguments)
    return function(*arguments.values())


def _unnamed(function: Callable) -> bool:
    """Whether some parameters are positional only: def f(x, /)."""
    listed = inspect.signature(function).parameters.values()
    return any(p.kind is p.POSITIONAL_ONLY for p in listed)


def _frozen(value: Any) -> bytes:
    return b"" if isinstance(value, Made) else pack(value)


def load(path: str) -> dict[str, Any]:
    """The learner's module as a dictionary; whatever it raises passes through."""
    module = types.ModuleType("answer")
    module.__file__ = path
    sys.modules["answer"] = module  # dataclasses and pickle look it up
    with open(path, "rb") as file:
        source = file.read()
    exec(compile(source, path, "exec"), module.__dict__)
    return module.__dict__


def serve(
    into: IO[bytes], out: IO[bytes], stuck: Any, load_it: Callable[[], dict], file: str
) -> None:
    """Load, then answer requests until the pipe closes.

    stuck: a file to which the stack is written when a call exceeds its time.
    """
    printed, own = Bounded(), os.getpid()
    sys.stdin = io.StringIO()
    sys.stdout = sys.stderr = printed  # type: ignore[assignment]
    refuse_the_package()
    limit_memory()

    def reply(make: Callable[[], dict], seconds: float) -> bool:
        faulthandler.dump_traceback_later(seconds, file=stuck)
        try:
            content = make()
        except BaseException as error:
            content = {"error": described(error, file)}
        faulthandler.cancel_dump_traceback_later()
        if "error" not in content and any(map(_ours, [*sys.modules])):
            content = {"error": described(ImportError(REFUSED), file)}  # from a copy
        if os.getpid() != own:
            os._exit(0)  # a fork that the answer made has nothing to say
        try:
            message = pack({**content, "printed": printed.kept})
        except (Exception, MemoryError) as error:
            message = pack({"error": described(error, file)})
        out.write(message)
        out.flush()
        printed.kept = ""
        return "error" not in content

    functions: dict[str, Any] = {}
    first = read(into)
    if not reply(lambda: loaded(functions, load_it), first["seconds"]):
        return
    while True:
        request = read(into)
        reply(lambda: answer(request, functions, file), request["seconds"])  # noqa: B023


def loaded(functions: dict[str, Any], load_it: Callable[[], dict]) -> dict:
    """Fill `functions`; their parameters, and the names of those defined there."""
    functions.update(load_it())
    own = {k: v for k, v in functions.items()
           if callable(v) and not isinstance(v, type)}  # fmt: skip
    home = functions.get("__name__")
    return {
        "signatures": {k: parameters(v) for k, v in own.items()},
        "defined": [k for k, v in own.items()
                    if home is None or getattr(v, "__module__", None) == home],
    }  # fmt: skip


def main() -> None:
    """python worker.py ANSWER.py STUCK: requests on stdin, replies on stdout."""
    path, stuck = sys.argv[1:3]
    into, out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")  # not inherited
    sys.path[0] = os.path.dirname(os.path.abspath(path))
    with open(os.devnull, "r+b") as nowhere, open(stuck, "w") as file:
        os.dup2(nowhere.fileno(), 0)
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
        with contextlib.suppress(EOFError, BrokenPipeError):
            serve(into, out, file, lambda: load(path), path)


if __name__ == "__main__":
    main()
