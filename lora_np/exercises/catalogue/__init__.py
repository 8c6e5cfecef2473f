"""The exercises, one a file, in the order of the path."""

import difflib
import importlib
import pkgutil
from functools import cache

from lora_np.exercises.exercise import Exercise

MODULES = {
    info.name.split("_")[0]: info.name
    for info in sorted(pkgutil.iter_modules(__path__), key=lambda info: info.name)
}
IDS = tuple(MODULES)


@cache
def load(id: str) -> Exercise:
    """The exercise with this id, such as "e07".

    Raises KeyError that names the nearest ids.

    >>> load("e19").name
    'lora_backward'
    """
    if id not in MODULES:
        raise KeyError(_unknown(id))
    return importlib.import_module(f"{__name__}.{MODULES[id]}").EXERCISE


def exercises() -> tuple[Exercise, ...]:
    """All of them, in the order of the path."""
    return tuple(load(id) for id in IDS)


def find(word: str) -> Exercise:
    """By id ("e07", "7"), or by the name of the function to write.

    >>> find("19").id, find("lora_backward").id
    ('e19', 'e19')
    """
    word = word.strip()
    number = word.lower().removeprefix("e")
    if number.isdecimal() and f"e{int(number):02d}" in MODULES:
        return load(f"e{int(number):02d}")
    for e in exercises():
        if word and word in {f.__name__ for f in e.functions}:
            return e
    raise KeyError(_unknown(word))


def _unknown(word: str) -> str:
    known = {name: e for e in exercises() for name in (e.id, e.name, e.title) if name}
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.4)
    listed = dict.fromkeys(known[name] for name in near)
    hint = "; ".join(f"{e.id} ({e.title})" for e in listed)
    close = f"; the nearest: {hint}" if hint else ""
    return f"no exercise {word!r}; there are {IDS[0]} to {IDS[-1]}{close}"
