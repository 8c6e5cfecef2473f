"""The learner's folder: answers, and one small file of progress.

Several commands may run at once (`check --watch` in one terminal, hints in another):
the file is read again, under a lock, before anything in it is changed.
"""

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lora_np.exercises import catalogue, records, stubs
from lora_np.exercises.exercise import Exercise
from lora_np.files.weights import write_beside

FOLDER = "my_exercises"
FILE = "progress.json"


def default_folder() -> Path:
    """$LORA_NP_EXERCISES, or my_exercises in the current folder."""
    return Path(os.environ.get("LORA_NP_EXERCISES") or FOLDER)


def existing() -> "Progress | None":
    """The progress that a notebook in this folder, or beside my_exercises, adds to."""
    for folder in (default_folder(), Path(".")):
        with contextlib.suppress(OSError, ValueError, RecursionError):
            kept = json.loads((folder / FILE).read_text("utf-8"))
            if isinstance(kept, dict) and isinstance(kept.get("exercises"), dict):
                return Progress(folder)
    return None


class Progress:
    """What was started, tried and passed. A file that cannot be read is set aside.

    data: the content when it was last read. notes: sentences for the learner about what
    happened to the file.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.notes: list[str] = []
        self._said: set[str] = set()
        self.data = self._read()

    def _read(self) -> dict[str, Any]:
        path = self.folder / FILE
        if not path.exists():
            return {"exercises": {}}
        try:
            found = json.loads(path.read_text("utf-8"))
        except RecursionError:
            return self._aside(path, {"exercises": {}}, ["nested too deep"])
        except (ValueError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            return self._aside(path, {"exercises": {}}, [reason])
        data, bad = records.cleaned(found)
        return self._aside(path, data, bad) if bad else data

    def _aside(self, path: Path, good: dict[str, Any], bad: list[str]) -> dict:
        """Keep the bad file under another name and go on with what was good in it."""
        aside = free_name(path.with_suffix(".broken.json"))
        reason = "; ".join(bad[:3])
        try:
            os.replace(path, aside)
            if good != {"exercises": {}}:
                self._save(good)
            done = f"it was set aside as {aside.name}"
        except OSError as error:
            done = f"it could not be set aside either ({error.strerror or error})"
        self._say(
            f"{path} could not be read ({reason}); {done}. Your answers are untouched; "
            "check them again to have them counted."
        )
        return good

    def _say(self, note: str) -> None:
        """Each note once, however often the file is read."""
        if note not in self._said:
            self._said.add(note)
            self.notes.append(note)

    def _save(self, data: dict[str, Any]) -> None:
        """Write the file, whole or not at all."""
        text = json.dumps(data, indent=1, sort_keys=True)
        write_beside(self.folder / FILE, text.encode())

    @contextlib.contextmanager
    def change(self) -> Iterator[dict[str, Any]]:
        """Read the file again under a lock, let it be changed, write it.

        Raises OSError where it cannot be written; `data` is changed all the same.
        """
        with locked(self.folder):
            self.data = self._read()
            yield self.data
            self._save(self.data)

    def _note(
        self, exercise: Exercise, alter: Callable[[dict[str, Any]], None]
    ) -> None:
        """Change one record; a file that cannot be written is a note, no error."""
        try:
            with self.change():
                alter(self.of(exercise))
        except OSError as error:
            reason = error.strerror or error
            self._say(f"{self.folder / FILE} was not written ({reason})")

    def of(self, exercise: Exercise) -> dict[str, Any]:
        """The record of one exercise, made if it is new."""
        return self.data["exercises"].setdefault(exercise.id, {})

    def passed(self) -> set[str]:
        """Ids of what is passed."""
        return {k for k, v in self.data["exercises"].items() if v.get("passed")}

    def status(self, exercise: Exercise) -> str:
        """passed, tried, started, or nothing."""
        record = self.data["exercises"].get(exercise.id, {})
        if record.get("passed"):
            seen = record.get("solution_seen_first")
            return "passed, after the solution" if seen else "passed"
        if record.get("checks"):
            return "tried"
        return "started" if self.files(exercise) else ""

    def path(self, exercise: Exercise) -> Path:
        """The learner's file."""
        return self.folder / exercise.file

    def files(self, exercise: Exercise) -> list[Path]:
        """What there is of the file and the notebook."""
        path = self.path(exercise)
        return [p for p in (path, path.with_suffix(".ipynb")) if p.exists()]

    def next(self) -> Exercise | None:
        """The first exercise that is not passed."""
        passed = self.passed()
        return next((e for e in catalogue.exercises() if e.id not in passed), None)

    def start(self, exercise: Exercise, notebook: bool = False) -> tuple[Path, bool]:
        """Write the stub, unless there is a file already; (path, whether it is new)."""
        path = self.path(exercise)
        if notebook:
            path = path.with_suffix(".ipynb")
        if path.exists():
            return path, False
        self._write(path, _untouched(exercise, path))
        self._note(exercise, lambda record: record.setdefault("started", _now()))
        return path, True

    def _write(self, path: Path, content: bytes) -> None:
        try:
            write_beside(path, content)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(
                f"cannot write {path} ({reason}); choose another folder with --folder"
            ) from None

    def reset(self, exercise: Exercise) -> list[tuple[Path, Path]]:
        """Put stub or notebook back; [(path, backup)]. Raises FileNotFoundError."""
        done = []
        for path in self.files(exercise):
            backup = free_name(path.with_name(path.name + ".backup"))
            self._write(backup, path.read_bytes())
            self._write(path, _untouched(exercise, path))
            done.append((path, backup))
        if not done:
            raise FileNotFoundError(
                f"no {self.path(exercise)} to reset; begin with: "
                f"python -m lora_np exercises start {exercise.id}"
            )
        return done

    def record(self, exercise: Exercise, passed: bool) -> None:
        """One more check; passed stays passed."""

        def alter(record: dict[str, Any]) -> None:
            record["checks"] = record.get("checks", 0) + 1
            if passed and not record.get("passed"):
                record["passed"] = _now()
                record["solution_seen_first"] = bool(record.get("solution_seen"))

        self._note(exercise, alter)

    def next_hint(self, exercise: Exercise) -> int:
        """The grade of the next hint, 1 to 3; counted."""

        def alter(record: dict[str, Any]) -> None:
            record["hints"] = min(3, record.get("hints", 0) + 1)

        self._note(exercise, alter)
        return self.of(exercise)["hints"]

    def solution_seen(self, exercise: Exercise) -> None:
        """Note that the solution was shown before a pass."""
        if not self.of(exercise).get("passed") and self.folder.exists():
            self._note(exercise, lambda record: record.update(solution_seen=True))


def _untouched(exercise: Exercise, path: Path) -> bytes:
    if path.suffix == ".ipynb":
        return stubs.notebook(exercise)
    return stubs.stub(exercise).encode()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for oneself, where the system can lock one (not on Windows)."""
    with contextlib.ExitStack() as held:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder, os.O_RDONLY)
            held.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M")


def free_name(path: Path) -> Path:
    """The path, or the first of path-2, path-3, ... that does not exist.

    >>> free_name(Path("surely_not_there.py")).name
    'surely_not_there.py'
    """
    number, free = 1, path
    while free.exists():
        number += 1
        stem = re.sub(r"-\d+$", "", path.stem)
        free = path.with_name(f"{stem}-{number}{path.suffix}")
    return free
