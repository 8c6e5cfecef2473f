"""exercises: the life of an exercise in the terminal."""

import argparse
import contextlib
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

from lora_np.cli.common import natural, table
from lora_np.exercises import catalogue, gate, interview, report, stubs
from lora_np.exercises.check import check_file
from lora_np.exercises.exercise import Exercise
from lora_np.exercises.progress import Progress, default_folder
from lora_np.files.weights import write_beside

HELP = "exercises for interviews, graded here: list, start, check, hint, solution"
EXAMPLE = """examples:
  python -m lora_np exercises                  what there is, and what comes next
  python -m lora_np exercises start e19        write the stub into my_exercises/
  python -m lora_np exercises check e19        grade it (--watch: at every save)
  python -m lora_np exercises hint e19         the law, the line, the line with a blank
  python -m lora_np exercises solution e19
  python -m lora_np exercises interview --minutes 45

An id may be e19, 19 or the function's name. Exit status: 0 for a pass, 1 for a failed
check, 2 for an error in words.
"""
PROGRAM = "python -m lora_np exercises"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The actions of `exercises`, each a subcommand."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--folder", type=Path, default=None,
                        help="the learner's folder (my_exercises, or "
                        "$LORA_NP_EXERCISES)")  # fmt: skip
    common.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(action=None, folder=None)
    actions = parser.add_subparsers(dest="action", metavar="action")

    def action(
        name: str, help: str, id: str = "e07, 7 or a function's name"
    ) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=help, description=help, parents=[common])
        if id:
            sub.add_argument("id", help=id)
        return sub

    action("list", "all exercises with what was done", "")
    start = action("start", "write the stub; never over an answer", "")
    start.add_argument("id", nargs="?", help="an id (the next one)")
    start.add_argument("--notebook", action="store_true", help="as a notebook")
    check = action("check", "grade an answer")
    check.add_argument("--watch", action="store_true",
                       help="grade again at every save, until it passes")  # fmt: skip
    clue = action("hint", "the next of three hints")
    clue.add_argument("--grade", type=int, choices=(1, 2, 3),
                      help="1 the law, 2 the line, 3 the line, a blank")  # fmt: skip
    action("solution", "the solution with its why")
    action("reset", "put the stub back; the answer is kept as a backup")
    talk = action("interview", "a drawn set against the clock, without hints", "")
    talk.add_argument("--minutes", type=natural, default=45, help="(45)")
    talk.add_argument("--seed", type=natural, help="draw the same set again")
    talk.add_argument("--finish", action="store_true", help="grade now, and report")
    talk.add_argument("--no-wait", action="store_true",
                      help="do not stay to show the clock")  # fmt: skip
    books = action("notebooks", "write every exercise as a notebook", "")
    books.add_argument("--to", type=Path, default=Path("chapters/exercises"),
                       metavar="FOLDER", help="(chapters/exercises)")  # fmt: skip
    books.add_argument("--force", action="store_true", help="replace changed ones too")
    trial = action("gate", "give each grader its known answers; print what it says",
                  "")  # fmt: skip
    trial.add_argument("--only", metavar="ID", help="one exercise")
    trial.add_argument("--write", type=Path, metavar="FILE",
                      help="write the table as Markdown")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """Run one action; 1 where an answer did not pass."""
    if options.action == "gate":
        return run_gate(options)
    if options.action == "notebooks":
        return write_notebooks(options)
    progress = Progress(options.folder or default_folder())
    tell(progress)
    try:
        return ACTIONS[options.action or "list"](options, progress)
    finally:
        tell(progress)


def tell(progress: Progress) -> None:
    """What happened to the file of progress, each once."""
    for note in progress.notes:
        print(f"note: {note}\n", file=sys.stderr)
    progress.notes.clear()


def show_list(options: argparse.Namespace, progress: Progress) -> int:
    """A line for each exercise, how many are passed, and the next one."""
    rows = [["id", "title", "kind", "min", "level", "needs", "done"]]
    for e in catalogue.exercises():
        rows.append([e.id, e.title, e.kind, str(e.minutes), "*" * e.difficulty,
                     " ".join(e.needs), progress.status(e)])  # fmt: skip
    print(table(rows, right=[3]))
    done = sum(row[-1].startswith("passed") for row in rows[1:])
    print(f"\n{done} of {len(rows) - 1} passed, answers in {progress.folder}")
    if following := progress.next():
        print(f"next: {PROGRAM} start {following.id}    ({following.title})")
    return 0


def start(options: argparse.Namespace, progress: Progress) -> int:
    """Write a stub, or say that it is there."""
    e = catalogue.find(options.id) if options.id else progress.next()
    if e is None:
        print("all exercises are passed; try an interview")
        return 0
    path, new = progress.start(e, options.notebook)
    print(f"{'wrote' if new else 'already there, left as it is:'} {path}")
    missing = [n for n in e.needs if not progress.of(catalogue.load(n)).get("passed")]
    if missing:
        print(f"it builds on {', '.join(missing)}, not yet passed")
    if not options.notebook:
        print(f"edit it, then: {PROGRAM} check {e.id}")
    return 0


def check(options: argparse.Namespace, progress: Progress) -> int:
    """Grade once, or at every save."""
    e = catalogue.find(options.id)
    path = answer_path(e, progress)
    passed = grade_once(e, path, progress)
    if not options.watch or passed:
        return 0 if passed else 1
    print(f"watching {path}; Ctrl-C ends", flush=True)
    seen = path.stat().st_mtime_ns
    while True:
        time.sleep(0.3)
        with contextlib.suppress(OSError):
            now = path.stat().st_mtime_ns
            if now != seen:
                seen = now
                print(f"\n{time.strftime('%H:%M:%S')}", flush=True)
                if grade_once(e, path, progress):
                    return 0


def answer_path(e: Exercise, progress: Progress) -> Path:
    """The learner's file: the interview's while one runs that asks for it."""
    path = progress.path(e)
    held = interview.running(progress)
    if held and e.id in held.ids and time.time() < held.end:
        path = held.path(e)
        print(f"{path} (the interview's)\n")
    elif not path.exists() and (book := path.with_suffix(".ipynb")).exists():
        raise FileNotFoundError(
            f"{path} is not there, but {book} is: run its cell with check(...)"
        )
    return path


def grade_once(e: Exercise, path: Path, progress: Progress) -> bool:
    """Grade a file, print the report, record the result."""
    verdict = check_file(e, path)
    print(report.text(verdict), end="", flush=True)
    if verdict.state != "not started":
        progress.record(e, verdict.passed)
    if verdict.passed and (following := progress.next()):
        print(f"\nNext: {PROGRAM} start {following.id}    ({following.title})")
    tell(progress)
    return verdict.passed


def hint(options: argparse.Namespace, progress: Progress) -> int:
    """The next hint, or the wanted one."""
    e = catalogue.find(options.id)
    refuse_in_interview(progress, "hints")
    grade = options.grade or progress.next_hint(e)
    print(f"hint {grade} of 3 for {e.id}")
    text = e.hints[grade - 1]
    print(text if text.startswith("    ") else textwrap.fill(text, 84))
    return 0


def solution(options: argparse.Namespace, progress: Progress) -> int:
    """The solution; noted, if it was seen before a pass."""
    e = catalogue.find(options.id)
    refuse_in_interview(progress, "solutions")
    print(report.solution(e), end="")
    progress.solution_seen(e)
    return 0


def refuse_in_interview(progress: Progress, what: str) -> None:
    """Raise RuntimeError while an interview runs."""
    held = interview.running(progress)
    if held and time.time() < held.end:
        left = interview.clock(held.end - time.time())
        raise RuntimeError(
            f"no {what} during an interview ({left}); "
            f"end it with: {PROGRAM} interview --finish"
        )


def reset(options: argparse.Namespace, progress: Progress) -> int:
    """Put the stub back."""
    for path, backup in progress.reset(catalogue.find(options.id)):
        print(f"{path} is the stub again; your answer is in {backup.name}")
    return 0


def hold_interview(options: argparse.Namespace, progress: Progress) -> int:
    """Begin, show the clock of a running one, or finish."""
    held = interview.running(progress)
    if options.finish:
        if held is None:
            raise ValueError(f"no interview runs; begin with: {PROGRAM} interview")
        print(interview.finish(progress, held), end="")
        return 0
    if held is None:
        held = interview.begin(progress, options.minutes, options.seed)
        print(f"{len(held.ids)} exercises in {held.folder}, without hints:\n")
    for id in held.ids:
        e = catalogue.load(id)
        print(f"  {e.id}  {e.title} ({e.kind}, {e.minutes} min): {e.file}")
    left = held.end - time.time()
    print(f"\n{interview.clock(left)}, until "
          f"{time.strftime('%H:%M', time.localtime(held.end))}")  # fmt: skip
    print(f"try one, as often as you like: {PROGRAM} check {held.ids[0]}")
    if left > 0 and (options.no_wait or not sys.stdin.isatty()):
        print(f"end it with: {PROGRAM} interview --finish")
        return 0
    try:
        if not wait(held, progress):
            print("\nthis interview was ended elsewhere")
            return 0
    except KeyboardInterrupt:
        print(f"\nthe clock runs on; end it with: {PROGRAM} interview --finish")
        return 0
    print(interview.finish(progress, held), end="")
    return 0


def wait(held: interview.Interview, progress: Progress) -> bool:
    """A bar until the end; Ctrl-C leaves it. False if the interview was ended."""
    from tqdm import tqdm

    total = max(0.0, held.end - time.time())
    with tqdm(total=total, bar_format="{desc} {bar}") as bar:
        while (left := held.end - time.time()) > 0:
            if interview.running(Progress(progress.folder)) != held:
                return False
            bar.n = total - left
            bar.set_description_str(interview.clock(left))
            time.sleep(min(1.0, left))
    return True


def write_notebooks(options: argparse.Namespace) -> int:
    """Every exercise as a notebook; a learner's answers in that folder are kept."""
    written = 0
    for e in catalogue.exercises():
        path = options.to / f"{Path(e.file).stem}.ipynb"
        made = stubs.notebook(e)
        if path.exists() and path.read_bytes() != made and not options.force:
            print(f"left as it is, because it differs: {path} (--force to replace)")
            continue
        write_beside(path, made)
        written += 1
    print(f"{written} notebooks in {options.to}")
    return 0


def run_gate(options: argparse.Namespace) -> int:
    """The table exercises x answers; 1 where a grader was wrong."""
    from tqdm import tqdm

    chosen = [catalogue.find(options.only)] if options.only else [
        e for e in catalogue.exercises() if e.functions
    ]  # fmt: skip
    found = {e: list(gate.trials(e)) for e in tqdm(chosen, disable=None, leave=False)}
    print(summary(found, detailed=bool(options.only)))
    if options.write:
        write_beside(options.write, gate.markdown(found).encode())
        print(f"wrote {options.write}")
    return 0 if all(t.right for ts in found.values() for t in ts) else 1


def summary(found: dict[Exercise, list[gate.Trial]], detailed: bool = False) -> str:
    """A line for each exercise, or for each answer; what went wrong below."""
    if detailed:
        rows = [["answer", "expected", "found", "seconds"]]
        for trials_of in found.values():
            rows += [[t.answer, t.expected, t.found, f"{t.seconds:.2f}"]
                     for t in trials_of]  # fmt: skip
        text = table(rows, right=[3])
    else:
        rows = [["id", "title", "mistakes", "named", "others", "accepted", "slowest s"]]
        for e, ts in found.items():
            rows.append([e.id, e.title, *map(str, gate.counts(ts))])
        text = table(rows, right=[2, 3, 4, 5, 6])
    everything = [t for ts in found.values() for t in ts]
    wrong = [t for t in everything if not t.right]
    seconds = sorted(t.seconds for t in everything)
    median = seconds[len(seconds) // 2]
    text += (
        f"\n\n{len(everything)} answers graded, {len(wrong)} wrongly; median "
        f"{median:.2f} s, slowest {seconds[-1]:.2f} s"
    )
    for t in wrong:
        text += f"\n{t.exercise} {t.answer}: expected {t.expected}, found {t.found}"
    return text


ACTIONS: dict[str, Callable[[argparse.Namespace, Progress], int]] = {
    "list": show_list, "start": start, "check": check, "hint": hint,
    "solution": solution, "reset": reset, "interview": hold_interview,
}  # fmt: skip
