"""What was found in released libraries: versions, numbers, judgement, a script each.

The scripts lie in `findings/`; each runs without this package and ends with status 1
while the fault is there.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "findings"
JUDGEMENTS = (
    "defect",
    "crash",
    "missing check",
    "documented limitation",
    "differs from the paper",
    "documentation error",
)


@dataclass(frozen=True)
class Finding:
    """One: the law that it breaks, what came and what was expected, our judgement.

    evidence: why we judge so, from the library's documentation and code. upstream:
    the project's own thread about it, where we know one.
    """

    name: str
    package: str
    law: str
    says: str
    got: str
    want: str
    judgement: str
    evidence: str
    upstream: str

    @property
    def script(self) -> Path:
        """The file that shows it."""
        return FOLDER / f"{self.name}.py"


def failing(library: str) -> tuple[str, dict[tuple[str, str, str], str]]:
    """(the run's summary, {(law, layer, option): the finding that explains it}).

    Every cell of the matrix that failed or raised when the library was run.

    >>> summary, cells = failing("loralib")
    >>> cells["algebra.rank", "conv2d", "strided"]
    'lora_conv_rank'
    """
    kept = json.loads((FOLDER / "findings.json").read_text("utf-8"))["runs"][library]
    return kept["summary"], {tuple(row[:3]): row[3] for row in kept["failing"]}


def load() -> tuple[list[Finding], dict[str, str], str]:
    """(findings, versions by package, the day on which they were run).

    >>> found, versions, day = load()
    >>> versions["loralib"]
    '0.1.2'
    """
    kept = json.loads((FOLDER / "findings.json").read_text("utf-8"))
    found = [Finding(**f) for f in kept["findings"]]
    return found, kept["versions"], kept["date"]


def still_there(finding: Finding, seconds: float = 120.0) -> bool:
    """Run the script in this environment; True while it ends with status 1.

    Raises RuntimeError for any other end but 0, with the last line of its errors.
    """
    done = subprocess.run(
        [sys.executable, finding.script], capture_output=True, text=True,
        timeout=seconds, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
    if done.returncode not in (0, 1) or (done.returncode == 1 and "rror: " in last):
        raise RuntimeError(f"{finding.name}: status {done.returncode}: {last}")
    return done.returncode == 1
