"""Arrays as plain files: data.bin, flat and little-endian, and index.json.

The index is JSON with one array a line, so that a program without a JSON library reads
it line by line. The format page is `golden/FORMAT.md`.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lora_np.files.weights import write_beside

FORMAT = "lora_np arrays 1"
INDEX, DATA = "index.json", "data.bin"


@dataclass(frozen=True)
class Entry:
    """One array of an index: where it belongs, its bytes, and how far it may differ."""

    name: str
    array: np.ndarray
    case: str = ""
    role: str = "input"  # or "want"
    limit: float = 0.0


def write(folder: Path, entries: Iterable[Entry], meta: dict[str, Any]) -> None:
    """data.bin first, then the index, each whole or not at all.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write(folder, [Entry("x", np.ones((1, 2)))], {"r": 1})
    >>> read(folder)[0][0].array
    array([[1., 1.]])
    """
    folder.mkdir(parents=True, exist_ok=True)
    data, lines = bytearray(), []
    for e in entries:
        array = np.asarray(e.array)
        if array.dtype.kind in "iub":
            array = array.astype(np.int64)
        flat = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        data += b"\0" * (-len(data) % 8)
        line = {"case": e.case, "name": e.name, "role": e.role,
                "dtype": str(array.dtype), "offset": len(data), "count": array.size,
                "limit": e.limit, "shape": list(array.shape)}  # fmt: skip
        data += flat.tobytes()
        lines.append(json.dumps(line))
    head = json.dumps({"format": FORMAT, **meta}, sort_keys=True)[1:-1]
    text = "{" + head + ', "arrays": [\n' + ",\n".join(lines) + "\n]}\n"
    write_beside(folder / DATA, bytes(data))
    write_beside(folder / INDEX, text.encode())


def read(folder: Path) -> tuple[list[Entry], dict[str, Any]]:
    """The entries and the rest of the index.

    Raises FileNotFoundError, ValueError for another format, for bytes that are not
    there, or for a dtype that is none.
    """
    try:
        index = json.loads((folder / INDEX).read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{folder / INDEX} is not valid JSON: {error}") from None
    data = (folder / DATA).read_bytes()
    if index.pop("format", "") != FORMAT:
        raise ValueError(f"{folder / INDEX} is not in the format {FORMAT!r}")
    found = []
    for line in index.pop("arrays"):
        dtype = np.dtype(line["dtype"]).newbyteorder("<")
        stop = line["offset"] + line["count"] * dtype.itemsize
        if stop > len(data) or int(np.prod(line["shape"])) != line["count"]:
            raise ValueError(f"{folder / INDEX}: {line['name']!r} of shape "
                             f"{line['shape']} does not lie in {DATA}")  # fmt: skip
        flat = np.frombuffer(data, dtype, line["count"], line["offset"])
        array = flat.reshape(line["shape"]).astype(dtype.newbyteorder("="))
        found.append(Entry(line["name"], array, line.get("case", ""),
                           line.get("role", ""), line.get("limit", 0.0)))  # fmt: skip
    return found, index
