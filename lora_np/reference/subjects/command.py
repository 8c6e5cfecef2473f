"""Any program as a subject: it reads a folder of arrays and writes another.

The program is started as `PROGRAM REQUEST REPLY` for each question. REQUEST holds
index.json and data.bin (golden/FORMAT.md) with the case's arrays and, in the index,
"operation", "layer", "option", "r", "lora_alpha" and "dtype". It writes REPLY in the
same form: "forward" -> y (or y0, y1); "gradients" -> dx, dA, dB, …; "delta" -> delta;
"merge" -> merged. Exit status 3 says "not offered", any other but 0 is an error.
"""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lora_np.reference.conformance.case import Array, Case
from lora_np.reference.conformance.exchange import Entry, read, write
from lora_np.reference.conformance.protocol import Grads, Layer, NotOffered

NOT_OFFERED = 3
# What a script needs to ask the program without this package.
HELPER = """
import json, subprocess, tempfile
from pathlib import Path
from types import SimpleNamespace as S
import numpy as np
class Layer:
    def __init__(self, case):
        self.case, self.merged = case, None
    def ask(self, operation, inputs=(), dy=None):
        c, folder = self.case, Path(tempfile.mkdtemp())
        arrays = {**c.given, **dict(zip(c.kind.inputs, inputs)), **c.factors, "s": c.scale(), "dy": dy}
        data, lines = b"", []
        for name, value in arrays.items():
            if value is None: continue
            a = np.asarray(value); a = a.astype("<i8") if a.dtype.kind in "iub" else a
            lines.append({"name": name, "role": "input", "dtype": str(a.dtype), "offset": len(data), "count": a.size, "shape": a.shape})
            data += a.tobytes() + bytes(-a.nbytes % 8)
        meta = {"format": "lora_np arrays 1", "operation": operation, "layer": c.layer, "option": c.option, "r": c.r, "lora_alpha": c.lora_alpha, "dtype": c.dtype}
        for part in ("request", "reply"): (folder / part).mkdir()
        (folder / "request/data.bin").write_bytes(data)
        (folder / "request/index.json").write_text(json.dumps({**meta, "arrays": lines}))
        subprocess.run([*COMMAND, folder / "request", folder / "reply"], check=True)
        index, data = json.loads((folder / "reply/index.json").read_text()), (folder / "reply/data.bin").read_bytes()
        return {e["name"]: np.frombuffer(data, e["dtype"], e["count"], e["offset"]).reshape(e["shape"]) for e in index["arrays"]}
    def forward(self, *inputs):
        found = self.ask("forward", inputs)
        return found["y"] if "y" in found else (found["y0"], found["y1"])
    def gradients(self, dy, *inputs):
        return {n[1:]: a for n, a in self.ask("gradients", inputs, dy).items()}
    def delta(self):
        return self.ask("delta")["delta"]
    def merge(self):
        c, merged = self.case, self.ask("merge")["merged"]
        c.given = {**c.given, c.kind.weight: merged}
        c.factors = {n: 0 * a if n[0] == "B" else a for n, a in c.factors.items()}
    def weight(self):
        return self.case.given[self.case.kind.weight]
"""
SECONDS = 10.0


class CommandSubject:
    """A program with its first arguments."""

    version, call = "", "Layer"  # how a script makes a layer

    def __init__(self, command: Sequence[str]):
        if not command:
            raise ValueError("command: names no program; write command:PROGRAM")
        self.command = list(command)
        self.name = " ".join(command)
        self.setup = (*HELPER.strip().split("\n"), f"COMMAND = {self.command!r}")

    def layer(self, case: Case, adapters: int = 1) -> "CommandLayer":
        """See the protocol."""
        if adapters > 1:
            raise NotOffered("several adapters")
        return CommandLayer(self.command, case)


class CommandLayer(Layer):
    """One question a call; nothing is kept between them but the merged weight."""

    def __init__(self, command: list[str], case: Case):
        self.command, self.case = command, case
        self.merged: Array | None = None

    def ask(self, operation: str, inputs: Sequence[Any] = (), dy: Any = None) -> dict:
        """Run the program once; its arrays by name."""
        c = self.case
        arrays = {**c.given, **dict(zip(c.kind.inputs, inputs, strict=False)),
                  **c.factors, "s": np.asarray(c.scale())}  # fmt: skip
        for i, g in enumerate(dy if isinstance(dy, tuple) else (dy,)):
            if g is not None:
                arrays["dy" if not isinstance(dy, tuple) else f"dy{i}"] = g
        entries = [Entry(n, np.asarray(c.cast(np.asarray(v))))
                   for n, v in arrays.items() if v is not None]  # fmt: skip
        meta = {"operation": operation, "layer": c.layer, "option": c.option, "r": c.r,
                "lora_alpha": float(c.lora_alpha), "dtype": c.dtype}  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            request, reply = Path(folder) / "request", Path(folder) / "reply"
            write(request, entries, meta)
            reply.mkdir()
            self._run(operation, str(request), str(reply))
            return {e.name: e.array for e in read(reply)[0]}

    def _run(self, operation: str, request: str, reply: str) -> None:
        try:
            done = subprocess.run(
                [*self.command, request, reply], capture_output=True, text=True,
                timeout=SECONDS, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise RuntimeError(
                f"{operation}: no answer in {SECONDS:.0f} s, ended"
            ) from None
        if done.returncode == NOT_OFFERED:
            raise NotOffered(done.stderr.strip() or operation)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["nothing on stderr"])[-1]
            raise RuntimeError(f"{operation}: exit status {done.returncode}: {last}")

    def _one(self, found: dict, name: str) -> Array:
        if name not in found:
            raise ValueError(f"the reply has no array {name!r}; it has "
                             f"{', '.join(found) or 'none'}")  # fmt: skip
        return found[name]

    def forward(self, *inputs: Any) -> Any:
        """Operation "forward"; after a merge with the merged weight and B = 0."""
        if self.merged is not None:
            plain = {n: 0 * a for n, a in self.case.factors.items() if n[0] == "B"}
            there = self.case.with_given(**{self.case.kind.weight: self.merged})
            return CommandLayer(self.command, there.with_factors(**plain)).forward(
                *inputs
            )
        found = self.ask("forward", inputs)
        if "y0" in found:
            return found["y0"], self._one(found, "y1")
        return self._one(found, "y")

    def gradients(self, dy: Any, *inputs: Any) -> Grads:
        """Operation "gradients"."""
        return {n[1:]: a for n, a in self.ask("gradients", inputs, dy).items()}

    def delta(self, adapter: int | None = None) -> Array:
        """Operation "delta"."""
        return self._one(self.ask("delta"), "delta")

    def merge(self, *adapters: int) -> None:
        """Operation "merge"."""
        if self.case.use_dora:
            raise NotOffered("merging DoRA")
        self.merged = self._one(self.ask("merge"), "merged")

    def weight(self) -> Array:
        """The merged weight, or the case's."""
        W = self.case.cast(self.case.W)
        return W if self.merged is None else self.merged
