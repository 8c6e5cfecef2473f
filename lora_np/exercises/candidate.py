"""An answer under examination, wherever it runs: a file, a notebook, this process.

Each answers `call(function, arguments)` with an Outcome and never raises for what the
learner's code did: exceptions, endless loops and a process that ends are outcomes.
"""

import contextlib
import copy
import inspect
import linecache
import os
import queue
import re
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from lora_np.exercises import worker

CALL_SECONDS = 2.0
LOAD_SECONDS = 4.0  # an import of a large library may take some


@dataclass(frozen=True)
class Trouble:
    """What went wrong in the learner's code: an exception, or how it was ended."""

    type: str  # the exception's type, or "stopped" or "ended"
    message: str
    line: int = 0
    text: str = ""
    column: int = 0


@dataclass(frozen=True)
class Outcome:
    """The result of one call: a value, or trouble; which arguments it changed."""

    value: Any = None
    trouble: Trouble | None = None
    changed: tuple[str, ...] = ()
    printed: str = ""


class Direct:
    """Functions called in this process, without a limit: for the tests of the room."""

    def __init__(self, functions: Mapping[str, Callable]):
        self.functions = dict(functions)
        self.signatures: dict[str, list[str] | None] = dict.fromkeys(self.functions)
        self.defined, self.source = list(self.functions), ""

    def call(self, name: str, arguments: dict[str, Any]) -> Outcome:
        given = copy.deepcopy(arguments)
        file = file_of(self.functions[name])
        request = {"call": name, "arguments": given}
        return _outcome(worker.answer(request, self.functions, file))

    def close(self) -> None:
        """Nothing to end."""


def _outcome(reply: dict) -> Outcome:
    if "error" in reply:
        return Outcome(trouble=Trouble(**reply["error"]),
                       printed=reply.get("printed", ""))  # fmt: skip
    return Outcome(reply.get("value"), None, tuple(reply.get("changed", ())),
                   reply.get("printed", ""))  # fmt: skip


class Remote:
    """Code behind a pair of pipes: every answer is waited for, a limited time.

    source: the learner's text, or "" where it is not known. defined: the functions that
    it defines, not those that it imports.
    """

    file: str
    source: str
    signatures: dict[str, list[str] | None]
    defined: list[str]

    def __init__(self, into: IO[bytes], out: IO[bytes], stuck: str):
        self._into, self._stuck = into, stuck
        self._replies: queue.Queue = queue.Queue()
        self._over: Trouble | None = None
        threading.Thread(target=_listen, args=(out, self._replies), daemon=True).start()
        loaded, self.load_trouble = self._ask({"load": True}, LOAD_SECONDS)
        self.signatures = loaded.get("signatures", {}) if loaded else {}
        self.defined = loaded.get("defined", []) if loaded else []
        if loaded and "error" in loaded:
            self.load_trouble = Trouble(**loaded["error"])

    def _ask(self, request: dict, seconds: float) -> tuple[dict | None, Trouble | None]:
        if self._over:
            return None, self._over
        message = worker.pack({**request, "seconds": seconds})
        try:
            self._into.write(message)
            self._into.flush()
            reply = self._reply(seconds + 0.3)
        except queue.Empty:
            self._over = self._stopped(seconds)
        except OSError:
            reply = None
        if self._over is None and reply is None:
            self._over = self._ended()
        if self._over is not None:
            self.close()
            return None, self._over
        return reply, None

    def _reply(self, seconds: float) -> dict | None:
        """The next reply, or None if the process ended; raises queue.Empty.

        What the learner's code started may outlive it and hold the pipe open: so the
        process is asked for, not only the pipe.
        """
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(queue.Empty):
                return self._replies.get(timeout=0.1)
            if self._gone():
                with contextlib.suppress(queue.Empty):
                    return self._replies.get(timeout=0.2)
                return None
            if time.monotonic() > end:
                raise queue.Empty

    def _gone(self) -> bool:
        """Whether the process has ended."""
        raise NotImplementedError

    def call(self, name: str, arguments: dict[str, Any]) -> Outcome:
        """Call a function of the learner's, for at most CALL_SECONDS."""
        reply, trouble = self._ask({"call": name, "arguments": arguments}, CALL_SECONDS)
        return Outcome(trouble=trouble) if reply is None else _outcome(reply)

    def get(self, names: list[str]) -> dict[str, Any]:
        """Values in the learner's module."""
        reply, _ = self._ask({"get": names}, CALL_SECONDS)
        return {} if reply is None else reply.get("values", {})

    def _stopped(self, seconds: float) -> Trouble:
        """It took too long: where it stood, from the stack that the worker wrote."""
        line = 0
        with contextlib.suppress(OSError):
            for frame in Path(self._stuck).read_text("utf-8", "replace").splitlines():
                match = re.search(r'File "(.*)", line (\d+)', frame)
                if match and match.group(1) == self.file:
                    line = int(match.group(2))
                    break
        return Trouble(
            "stopped", f"stopped after {seconds:.0f} s: an endless loop?", line,
            source_line(self.file, line),
        )  # fmt: skip

    def _ended(self) -> Trouble:
        return Trouble("ended", "the process that ran your code ended by itself "
                       "(os._exit, a crash, or no memory left)")  # fmt: skip

    def close(self) -> None:
        """End the process, whatever it does."""
        raise NotImplementedError


def _listen(out: IO[bytes], replies: queue.Queue) -> None:
    """Pass replies on until the pipe ends; nobody else reads it or closes it.

    Where something that the learner's code started holds the pipe open, this thread
    waits for it, and nobody waits for this thread.
    """
    with contextlib.suppress(Exception):
        while True:
            replies.put(worker.read(out))
    replies.put(None)
    with contextlib.suppress(OSError):
        out.close()


def file_of(function: Callable) -> str:
    """The file, or notebook cell, that a function was written in; "" if unknown."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code.co_filename if code else ""


def source_of(functions: Mapping[str, Callable]) -> str:
    """Their text, as far as Python knows it."""
    found = ""
    for function in functions.values():
        with contextlib.suppress(OSError, TypeError, IndentationError):
            found += textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    return found


def source_line(file: str, line: int) -> str:
    """One line of a file (or of a notebook's cell), or nothing."""
    linecache.checkcache(file)
    return linecache.getline(file, line).strip()


class FileAnswer(Remote):
    """A learner's file in a process of its own."""

    def __init__(self, path: str | Path):
        self.file = str(Path(path).resolve())
        self.source = Path(path).read_text("utf-8", "replace")
        handle, stuck = tempfile.mkstemp(prefix="lora_np_")
        os.close(handle)
        program = str(Path(worker.__file__).resolve())
        self.process = subprocess.Popen(
            [sys.executable, program, self.file, stuck],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            start_new_session=os.name == "posix", bufsize=0,
        )  # fmt: skip
        assert self.process.stdin and self.process.stdout
        super().__init__(self.process.stdin, self.process.stdout, stuck)

    def _gone(self) -> bool:
        return self.process.poll() is not None

    def close(self) -> None:
        """Kill the process with all that it started."""
        with contextlib.suppress(OSError, ProcessLookupError):
            if os.name == "posix":
                os.killpg(self.process.pid, 9)
            else:
                self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):
            self._into.close()
        with contextlib.suppress(OSError):
            os.unlink(self._stuck)


class ForkedAnswer(Remote):
    """Functions of this session, called in a fork of it."""

    def __init__(self, functions: Mapping[str, Callable]):
        self.file = file_of(next(iter(functions.values())))
        self.source = source_of(functions)
        handle, stuck = tempfile.mkstemp(prefix="lora_np_")
        os.close(handle)
        there, here = os.pipe(), os.pipe()
        self._ended_already = False
        self.pid = os.fork()
        if self.pid == 0:
            os.close(there[1])
            os.close(here[0])
            _serve_fork(dict(functions), there[0], here[1], stuck, self.file)
        os.close(there[0])
        os.close(here[1])
        into, out = os.fdopen(there[1], "wb", 0), os.fdopen(here[0], "rb", 0)
        super().__init__(into, out, stuck)

    def _gone(self) -> bool:
        if not self._ended_already:
            with contextlib.suppress(OSError):
                self._ended_already = os.waitpid(self.pid, os.WNOHANG)[0] != 0
        return self._ended_already

    def close(self) -> None:
        """Kill the fork with all that it started."""
        with contextlib.suppress(OSError):
            os.killpg(self.pid, 9)
        if not self._gone():
            with contextlib.suppress(OSError):
                os.kill(self.pid, 9)
                os.waitpid(self.pid, 0)
            self._ended_already = True
        with contextlib.suppress(OSError):
            self._into.close()
        with contextlib.suppress(OSError):
            os.unlink(self._stuck)


def _serve_fork(
    functions: dict, into: int, out: int, stuck: str, file: str
) -> None:  # pragma: no cover  (runs in the fork)
    """Never returns: whatever happens, the fork ends here."""
    try:
        os.setsid()
        with open(stuck, "w") as log, np.errstate(all="ignore"):
            worker.serve(
                os.fdopen(into, "rb"), os.fdopen(out, "wb"), log, lambda: functions,
                file,
            )  # fmt: skip
    except BaseException:
        pass
    finally:
        os._exit(0)
