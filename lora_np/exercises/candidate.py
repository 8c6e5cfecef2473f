"""An answer under examination, wherever it runs: a file, a notebook, this process.

Each answers `call(function, arguments)` with an Outcome and never raises for what the
learner's code did: exceptions, endless loops and a process that ends are outcomes.
"""

import contextlib
import copy
import linecache
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
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

    def call(self, name: str, arguments: dict[str, Any]) -> Outcome:
        given = copy.deepcopy(arguments)
        file = self.functions[name].__code__.co_filename
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
    """Code behind a pair of pipes: every answer is waited for, a limited time."""

    file: str
    signatures: dict[str, list[str] | None]

    def __init__(self, into: IO[bytes], out: IO[bytes], stuck: str):
        self._into, self._out, self._stuck = into, out, stuck
        self._replies: queue.Queue = queue.Queue()
        self._over: Trouble | None = None
        threading.Thread(target=self._listen, daemon=True).start()
        self.signatures = {}
        loaded, self.load_trouble = self._ask({"load": True}, LOAD_SECONDS)
        if loaded is not None:
            self.signatures = loaded["signatures"]
            if "error" in loaded:
                self.load_trouble = Trouble(**loaded["error"])

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, OSError, ValueError, KeyError):
            while True:
                self._replies.put(worker.read(self._out))
        self._replies.put(None)

    def _ask(self, request: dict, seconds: float) -> tuple[dict | None, Trouble | None]:
        if self._over:
            return None, self._over
        message = worker.pack({**request, "seconds": seconds})
        try:
            self._into.write(message)
            self._into.flush()
            reply = self._replies.get(timeout=seconds + 0.5)
        except queue.Empty:
            self._over = self._stopped(seconds)
            self.close()
            return None, self._over
        except OSError:
            reply = None
        if reply is None:
            self._over = self._ended()
            self.close()
            return None, self._over
        reply.setdefault("signatures", {})
        return reply, None

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


def source_line(file: str, line: int) -> str:
    """One line of a file (or of a notebook's cell), or nothing."""
    linecache.checkcache(file)
    return linecache.getline(file, line).strip()


class FileAnswer(Remote):
    """A learner's file in a process of its own."""

    def __init__(self, path: str | Path):
        self.file = str(Path(path).resolve())
        handle, stuck = tempfile.mkstemp(prefix="lora_np_")
        os.close(handle)
        program = str(Path(worker.__file__).resolve())
        self.process = subprocess.Popen(
            [sys.executable, program, self.file, stuck],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            start_new_session=os.name == "posix",
        )  # fmt: skip
        assert self.process.stdin and self.process.stdout
        super().__init__(self.process.stdin, self.process.stdout, stuck)

    def close(self) -> None:
        """Kill the process with all that it started."""
        with contextlib.suppress(OSError, ProcessLookupError):
            if os.name == "posix":
                os.killpg(self.process.pid, 9)
            else:
                self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError, ValueError):
                pipe.close()  # type: ignore[union-attr]
        with contextlib.suppress(OSError):
            os.unlink(self._stuck)


class ForkedAnswer(Remote):
    """Functions of this session, called in a fork of it."""

    def __init__(self, functions: Mapping[str, Callable]):
        self.file = next(iter(functions.values())).__code__.co_filename
        handle, stuck = tempfile.mkstemp(prefix="lora_np_")
        os.close(handle)
        there, here = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _serve_fork(dict(functions), there[0], here[1], stuck, self.file)
        os.close(there[0])
        os.close(here[1])
        self._pipes = os.fdopen(there[1], "wb"), os.fdopen(here[0], "rb")
        super().__init__(*self._pipes, stuck)

    def close(self) -> None:
        """Kill the fork."""
        with contextlib.suppress(OSError):
            os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)
        for pipe in self._pipes:
            with contextlib.suppress(OSError, ValueError):
                pipe.close()
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
