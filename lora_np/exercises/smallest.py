"""The first law that an answer breaks, on the smallest input that shows it."""

import atexit
import functools
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

from lora_np.exercises.cases import Case, Cases
from lora_np.exercises.examine import SECONDS, Examiner, Fault
from lora_np.exercises.exercise import Law

EXAMPLES = 40  # drawn for each law
SHRINK_SECONDS = 1.0


def search(examiner: Examiner) -> Fault | None:
    """The first broken law, as small as Hypothesis can make it."""
    for law in examiner.exercise.laws:
        if fault := smallest(examiner, law):
            return fault
        for number in range(3):
            if fault := examiner.examine(law, law.case(Cases.probe(number))):
                return fault
    return examiner.type_kept(examiner.exercise.laws[0].case(Cases.probe(0)))


def smallest(examiner: Examiner, law: Law) -> Fault | None:
    """Hypothesis draws cases of small whole numbers and shrinks a failing one."""
    from hypothesis import HealthCheck, Phase, Verbosity, given, settings
    from hypothesis import strategies as st

    leave_no_folder()
    latest = examiner.end + SHRINK_SECONDS / 2
    best: list[Any] = []  # the smallest fault so far, and when shrinking ends

    @st.composite
    def drawn(draw: Callable) -> Case:
        return law.case(Cases(lambda low, high: draw(st.integers(low, high))))

    @settings(
        max_examples=EXAMPLES, derandomize=True, database=None, deadline=None,
        phases=(Phase.generate, Phase.shrink), verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
    )  # fmt: skip
    @given(drawn())
    def body(case: Case) -> None:
        now = time.monotonic()
        if now > (best[1] if best else examiner.end):
            if not best and examiner.calls < EXAMPLES:
                best[:] = [slow(examiner.calls, case), now]
            raise _Enough
        fault = examiner.examine(law, case)
        if fault and (not best or fault.kind == best[0].kind):
            best[:] = [fault, best[1] if best else min(now + SHRINK_SECONDS, latest)]
            if fault.trouble and fault.trouble.type in ("stopped", "ended"):
                best[1] = 0.0  # the process is gone
            raise _Broken

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            body()
        except _Enough:
            pass
        except BaseException as error:
            if not best or isinstance(error, KeyboardInterrupt):
                raise
    return best[0] if best else None


def slow(calls: int, case: Case) -> Fault:
    """A fault where so few calls fit into the time that nothing was tried."""
    each = SECONDS / max(1, calls)
    return Fault("raised", f"a call takes {each:.2g} s on a small input; the check "
                 f"stops after {SECONDS:.0f} s", case=case)  # fmt: skip


@functools.cache
def leave_no_folder() -> None:
    """Let Hypothesis keep its notes elsewhere than in the current folder.

    Once a process, and not where a folder was chosen or is there.
    """
    from hypothesis.configuration import set_hypothesis_home_dir

    if "HYPOTHESIS_STORAGE_DIRECTORY" in os.environ or os.path.isdir(".hypothesis"):
        return
    folder = tempfile.mkdtemp(prefix="lora_np_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    set_hypothesis_home_dir(folder)


class _Broken(Exception):
    """Tells Hypothesis that a case fails."""


class _Enough(BaseException):
    """Ends Hypothesis, which would go on for long; no Exception, so not a failure."""
