"""What a file of progress may hold; everything else in it is dropped with a reason."""

from collections.abc import Callable
from typing import Any

from lora_np.exercises import catalogue

MOST_MINUTES = 24 * 60


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


FIELDS: dict[str, Callable[[Any], bool]] = {
    "checks": _count,
    "hints": lambda v: _count(v) and v <= 3,
    "started": lambda v: isinstance(v, str),
    "passed": lambda v: isinstance(v, str) and bool(v),
    "solution_seen": lambda v: isinstance(v, bool),
    "solution_seen_first": lambda v: isinstance(v, bool),
}


def cleaned(data: Any) -> tuple[dict[str, Any], list[str]]:
    """(the good parts, a reason for each part that is dropped).

    >>> cleaned({"exercises": {"e01": {"checks": 2, "hints": "x"}}})
    ({'exercises': {'e01': {'checks': 2}}}, ["e01: hints is 'x'"])
    """
    if not isinstance(data, dict) or not isinstance(data.get("exercises"), dict):
        return {"exercises": {}}, ["not a record of progress"]
    good: dict[str, Any] = {"exercises": {}}
    bad: list[str] = []
    for id, record in data["exercises"].items():
        if not isinstance(record, dict):
            bad.append(f"{id} is no record")
            continue
        wrong = [k for k, v in record.items() if k in FIELDS and not FIELDS[k](v)]
        bad += [f"{id}: {k} is {str(record[k])[:20]!r}" for k in wrong]
        kept = {k: v for k, v in record.items() if k not in wrong}
        good["exercises"][id] = kept
    if "interview" in data:
        if complaint := interview_fault(data["interview"]):
            bad.append(f"interview: {complaint}")
        else:
            good["interview"] = data["interview"]
    return good, bad


def interview_fault(kept: Any) -> str:
    """What is wrong with a stored interview, or "".

    >>> interview_fault({"folder": "i", "ids": ["e99"], "start": 0, "minutes": 5})
    'ids'
    """
    if not isinstance(kept, dict):
        return "no record"
    folder, ids = kept.get("folder"), kept.get("ids")
    start, minutes = kept.get("start"), kept.get("minutes")
    if not isinstance(folder, str) or not folder or {"/", "\\", "\0"} & set(folder):
        return "folder"
    if folder.strip(".") == "":
        return "folder"
    if not isinstance(ids, list) or not ids:
        return "ids"
    if not all(isinstance(i, str) and i in catalogue.MODULES for i in ids):
        return "ids"
    if not isinstance(start, int | float) or not 0 <= start < 2**33:
        return "start"  # not a number, not finite, or of another age
    if not isinstance(minutes, int) or not _count(minutes):
        return "minutes"
    return "" if 0 < minutes <= MOST_MINUTES else "minutes"
