"""The learner's folder: answers, and one small file of progress."""

import json
import os
import re
import time
from pathlib import Path
from typing import Any

from lora_np.exercises import catalogue, stubs
from lora_np.exercises.exercise import Exercise
from lora_np.files.weights import write_beside

FOLDER = "my_exercises"
FILE = "progress.json"


def default_folder() -> Path:
    """$LORA_NP_EXERCISES, or my_exercises in the current folder."""
    return Path(os.environ.get("LORA_NP_EXERCISES") or FOLDER)


class Progress:
    """What was started, tried and passed. A file that cannot be read is set aside.

    notes: sentences for the learner about what happened to the file.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.notes: list[str] = []
        self.data: dict[str, Any] = {"exercises": {}}
        path = self.folder / FILE
        if not path.exists():
            return
        try:
            data = json.loads(path.read_text("utf-8"))
            if not isinstance(data, dict) or not all(
                isinstance(v, dict) for v in data["exercises"].values()
            ):
                raise ValueError("not a record of progress")
            self.data = data
        except (ValueError, KeyError, AttributeError, UnicodeDecodeError) as error:
            aside = free_name(path.with_suffix(".broken.json"))
            os.replace(path, aside)
            self.notes.append(
                f"{path} could not be read ({error}); it was set aside as "
                f"{aside.name}. Your answers are untouched; check them again to have "
                "them counted."
            )

    def save(self) -> None:
        """Write the file, whole or not at all."""
        text = json.dumps(self.data, indent=1, sort_keys=True)
        write_beside(self.folder / FILE, text.encode())

    def of(self, exercise: Exercise) -> dict[str, Any]:
        """The record of one exercise, made if it is new."""
        return self.data["exercises"].setdefault(exercise.id, {})

    def status(self, exercise: Exercise) -> str:
        """passed, tried, started, or nothing."""
        record = self.data["exercises"].get(exercise.id, {})
        if record.get("passed"):
            seen = record.get("solution_seen_first")
            return "passed, after the solution" if seen else "passed"
        if record.get("checks"):
            return "tried"
        return "started" if self.path(exercise).exists() else ""

    def path(self, exercise: Exercise) -> Path:
        """The learner's file."""
        return self.folder / exercise.file

    def next(self) -> Exercise | None:
        """The first exercise that is not passed."""
        for e in catalogue.exercises():
            if not self.data["exercises"].get(e.id, {}).get("passed"):
                return e
        return None

    def start(self, exercise: Exercise, notebook: bool = False) -> tuple[Path, bool]:
        """Write the stub, unless there is a file already; (path, whether it is new)."""
        path = self.path(exercise)
        content = stubs.stub(exercise).encode()
        if notebook:
            path = path.with_suffix(".ipynb")
            content = stubs.notebook(exercise)
        if path.exists():
            return path, False
        self._write(path, content)
        self.of(exercise).setdefault("started", _now())
        self.save()
        return path, True

    def _write(self, path: Path, content: bytes) -> None:
        try:
            write_beside(path, content)
        except OSError as error:
            reason = error.strerror or str(error)
            raise OSError(
                f"cannot write {path} ({reason}); choose another folder with --folder"
            ) from None

    def reset(self, exercise: Exercise) -> tuple[Path, Path]:
        """Put the stub back; returns (path, backup). Raises FileNotFoundError."""
        path = self.path(exercise)
        if not path.exists():
            raise FileNotFoundError(
                f"no {path} to reset; begin with: "
                f"python -m lora_np exercises start {exercise.id}"
            )
        backup = free_name(path.with_name(path.name + ".backup"))
        self._write(backup, path.read_bytes())
        self._write(path, stubs.stub(exercise).encode())
        return path, backup

    def record(self, exercise: Exercise, passed: bool) -> None:
        """One more check; passed stays passed."""
        record = self.of(exercise)
        record["checks"] = record.get("checks", 0) + 1
        if passed and not record.get("passed"):
            record["passed"] = _now()
            record["solution_seen_first"] = bool(record.get("solution_seen"))
        self.save()

    def next_hint(self, exercise: Exercise) -> int:
        """The grade of the next hint, 1 to 3; counted."""
        record = self.of(exercise)
        grade = min(3, int(record.get("hints", 0)) + 1)
        record["hints"] = grade
        self.save()
        return grade


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
