"""Cells in a process of their own: a subject may crash or hang without ending the run.

The parent waits a limited time for each cell; a process that is late or dead is
replaced, and its cell says what happened.
"""

import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

from lora_np.reference.conformance.laws import LAWS, Law
from lora_np.reference.conformance.run import ERROR, Outcome, run_cell
from lora_np.reference.subjects.find import find

START_SECONDS = 120.0  # importing a large library on a busy machine


def serve(spec: str, effort: int, pipe: Any) -> None:
    """The child: build the subject, then answer one cell after another.

    What the subject prints goes to standard error: standard output is the report's.
    """
    os.dup2(2, 1)
    try:
        subject = find(spec)
        pipe.send(("ready", subject.name, getattr(subject, "version", "")))
    except Exception as error:
        pipe.send(("failed", type(error).__name__, str(error)))
        return
    laws = {law.label: law for law in LAWS}
    while True:
        label, layer, option = pipe.recv()
        pipe.send(run_cell(subject, laws[label], layer, option, effort))


class SubjectError(RuntimeError):
    """The subject could not be built at all."""


class Worker:
    """One child process, replaced when it is lost."""

    def __init__(self, spec: str, effort: int, seconds: float):
        self.spec, self.effort, self.seconds = spec, effort, seconds
        self.name = self.version = ""
        self.start()

    def start(self) -> None:
        """A new child. Raises SubjectError if it cannot build the subject."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=serve, args=(self.spec, self.effort, theirs), daemon=True
        )
        self.process.start()
        theirs.close()
        try:
            said = self.pipe.recv() if self.pipe.poll(START_SECONDS) else None
        except EOFError:
            said = None
        if said is None or said[0] == "failed":
            self.stop()
            reason = said[2] if said else "its process ended or did not answer"
            raise SubjectError(f"subject {self.spec}: {reason}")
        self.name, self.version = said[1:]

    def stop(self) -> None:
        """End the child, whatever it does."""
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def cell(self, law: Law, layer: str, option: str) -> Outcome:
        """One cell, at most `seconds`."""

        def lost(words: str) -> Outcome:
            self.stop()
            self.start()
            return Outcome(law.label, layer, option, ERROR, words)

        try:
            self.pipe.send((law.label, layer, option))
            if not self.pipe.poll(self.seconds):
                return lost(
                    f"no answer in {self.seconds:.0f} s, ended: an endless loop?"
                )
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join(5)
            code = self.process.exitcode
            return lost(f"the process ended by itself (exit status {code}): a crash?")


def run_apart(
    spec: str, chosen: Sequence[tuple[Law, str, str]], effort: int = 1,
    seconds: float = 60.0, jobs: int = 1,
    seen: Callable[[Outcome], None] = lambda outcome: None,
) -> tuple[str, str, list[Outcome]]:  # fmt: skip
    """(name, version, outcomes in the order of `chosen`), in `jobs` processes."""
    todo: queue.SimpleQueue = queue.SimpleQueue()
    for item in enumerate(chosen):
        todo.put(item)
    found: dict[int, Outcome] = {}
    first = Worker(spec, effort, seconds)
    trouble: list[BaseException] = []

    def work(worker: Worker) -> None:
        try:
            while not trouble:
                number, cell = todo.get_nowait()
                found[number] = worker.cell(*cell)
                seen(found[number])
        except queue.Empty:
            pass
        except BaseException as error:
            trouble.append(error)
        finally:
            worker.stop()

    others = [Worker(spec, effort, seconds) for _ in range(jobs - 1)]
    threads = [threading.Thread(target=work, args=(w,), daemon=True) for w in others]
    for thread in threads:
        thread.start()
    work(first)
    for thread in threads:
        thread.join()
    if trouble:
        raise trouble[0]
    return first.name, first.version, [found[i] for i in range(len(chosen))]
