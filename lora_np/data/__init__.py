"""Committed public-domain texts (see PROVENANCE.json), as bytes and as batches.

The model reads bytes: vocabulary 256, no tokenizer to fit, any text can be encoded.
Curly quotes and dashes are folded to ASCII on reading; the files hold the text verbatim.
"""

import hashlib
import json
import re
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
TEXTS = (
    "web_train.txt", "web_held_out.txt", "devil.txt", "genesis_en.txt",
    "genesis_es.txt", "elements.txt", "tang.txt",
)  # fmt: skip
BASE = HERE / "base.safetensors"
VOCABULARY = 256
_FOLD = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "—": "-"})


def read_text(name: str) -> str:
    """One committed text, verbatim.

    Raises ValueError for another name, or when the file's sha256 is not the recorded one.

    >>> read_text("web_train.txt")[:16]
    'In the beginning'
    """
    if name not in TEXTS:
        raise ValueError(f"no text {name!r}; there are {', '.join(TEXTS)}")
    content = (HERE / name).read_bytes().replace(b"\r\n", b"\n")
    want = json.loads((HERE / "PROVENANCE.json").read_text("utf-8"))[name]["sha256"]
    if hashlib.sha256(content).hexdigest() != want:
        raise ValueError(
            f"{HERE / name} is not the committed text (its sha256 differs); "
            "restore it, every figure depends on it"
        )
    return content.decode("utf-8")


def encode(text: str) -> np.ndarray:
    """UTF-8 bytes as ids (T,), curly quotes folded to ASCII.

    >>> encode("a’")
    array([97, 39])
    """
    return np.frombuffer(text.translate(_FOLD).encode("utf-8"), np.uint8).astype(
        np.int64
    )


def decode(ids: np.ndarray) -> str:
    """Text of the ids; bytes that are no UTF-8 become the replacement character.

    >>> decode(encode("ab"))
    'ab'
    """
    return bytes(int(i) for i in ids).decode("utf-8", errors="replace")


def devil_entries() -> list[str]:
    """The entries of The Devil's Dictionary, prose lines joined, verses line by line.

    >>> devil_entries()[1]
    'ABATIS, n. Rubbish in front of a fort, to prevent the rubbish outside from molesting the rubbish inside.'
    """
    entries: list[list[str]] = []
    for block in re.split(r"\n\s*\n", read_text("devil.txt")):
        lines = block.rstrip().split("\n")
        if re.match(r"[A-Z][A-Z' -]+[,.]", lines[0]) or not entries:
            entries.append([])
        verse = lines[0].startswith(" ")
        joined = "\n".join(line.strip() for line in lines) if verse else " ".join(lines)
        entries[-1].append(re.sub(r"[ \t]+", " ", joined))
    return ["\n".join(parts) for parts in entries]


def split_ids(name: str) -> tuple[np.ndarray, np.ndarray]:
    """(training ids, held-out ids) of "bible" or "devil".

    Bible: 2 Kings is held out. Devil: every tenth entry is.

    >>> [len(part) > 30000 for part in split_ids("devil")]
    [True, True]
    """
    if name == "bible":
        return encode(read_text("web_train.txt")), encode(read_text("web_held_out.txt"))
    if name != "devil":
        raise ValueError(f"no data set {name!r}; there are 'bible' and 'devil'")
    entries = devil_entries()
    held_out = [e for i, e in enumerate(entries) if i % 10 == 9]
    training = [e for i, e in enumerate(entries) if i % 10 != 9]
    return encode("\n\n".join(training)), encode("\n\n".join(held_out))


def random_windows(
    ids: np.ndarray, batch: int, time: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(ids, targets), both (batch, time): windows at random places, targets one on.

    Raises ValueError when the text is shorter than a window.

    >>> x, y = random_windows(np.arange(9), 2, 3, np.random.default_rng(0))
    >>> bool((y == x + 1).all())
    True
    """
    if len(ids) < time + 1:
        raise ValueError(f"a window of {time} + 1 does not fit into {len(ids)} ids")
    start = rng.integers(0, len(ids) - time, batch)
    window = ids[start[:, None] + np.arange(time + 1)]
    return window[:, :-1], window[:, 1:]


def fixed_windows(
    ids: np.ndarray, count: int, time: int, batch: int = 16
) -> list[tuple[np.ndarray, np.ndarray]]:
    """`count` windows at even distances, in batches: the same held-out set every time.

    >>> len(fixed_windows(np.arange(100), count=5, time=4, batch=2))
    3
    """
    if len(ids) < time + 1 or count < 1:
        raise ValueError(f"a window of {time} + 1 does not fit into {len(ids)} ids")
    start = np.linspace(0, len(ids) - time - 1, count).astype(int)
    windows = ids[start[:, None] + np.arange(time + 1)]
    return [
        (part[:, :-1], part[:, 1:])
        for part in (windows[i : i + batch] for i in range(0, count, batch))
    ]
