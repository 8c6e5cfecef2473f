"""A shim for loralib (needs torch).

train() takes the update out of the weight and eval() puts it in: these are its unmerge
and merge. Its convolutions have factors of another shape than everyone else's.
"""

import importlib
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from lora_np.reference.conformance.case import Array, Case
from lora_np.reference.conformance.protocol import NotOffered
from lora_np.reference.subjects.recorded import (
    RecordedLayer,
    RecordedSubject,
    tensor,
)


class LoralibSubject(RecordedSubject):
    """Linear, MergedLinear (fused qkv), Embedding; convolutions where they compare."""

    name, imports = "loralib", ("import torch", "import loralib as lora")

    def __init__(self) -> None:
        try:
            importlib.import_module("loralib")
            self.version = metadata.version("loralib")
        except ImportError as error:
            raise NotOffered(
                f"loralib cannot be imported ({error}); in an environment of its own: "
                "pip install torch, then pip install loralib"
            ) from None
        self.begin()

    def build(self, case: Case) -> str:
        """Lines for the module; returns its name."""
        if case.use_rslora or case.use_dora:
            raise NotOffered("loralib has neither rsLoRA nor DoRA")
        g, b = case.given, f"bias={case.b is not None}"
        out, inside = case.W.shape[:2]
        own = f"r={case.r}, lora_alpha={case.lora_alpha}"
        if case.layer == "linear":
            call = (f"Linear({inside}, {out}, {own}, lora_dropout={case.p}, "
                    f"fan_in_fan_out={case.fan_in_fan_out}, {b})")  # fmt: skip
        elif case.layer == "embedding":
            call = f"Embedding({out}, {inside}, {own})"
        elif case.layer == "qkv" and case.option == "plain":
            on = [f"A{n}" in case.factors for n in "qkv"]
            call = f"MergedLinear({inside}, {out}, {own}, enable_lora={on}, {b})"
        elif case.layer in ("conv1d", "conv2d"):
            if len(set(case.W.shape[2:])) > 1:
                raise NotOffered("a kernel of two different sizes")
            geometry = ", ".join(f"{n}={g[n]}" for n in (
                "stride", "padding", "dilation", "groups"))  # fmt: skip
            kind = case.layer.capitalize()
            call = (f"{kind}({inside * g['groups']}, {out}, kernel_size="
                    f"{case.W.shape[2]}, {own}, {geometry}, {b})")  # fmt: skip
        else:
            raise NotOffered(f"loralib has no layer of this kind for {case.layer}, "
                             f"{case.option}")  # fmt: skip
        name = self.script.fresh("layer")
        self.script.run(f"{name} = lora.{call}.to({_torch(case.dtype)})")
        weight = f"{name}.conv.weight" if "conv" in case.layer else f"{name}.weight"
        W = case.W.T if case.fan_in_fan_out else case.W
        self.script.run(f"{weight}.data = {tensor(W, case.dtype)}")
        if case.b is not None:
            bias = weight.replace("weight", "bias")
            self.script.run(f"{bias}.data = {tensor(case.b, case.dtype)}")
        self.script.run(f"lora.mark_only_lora_as_trainable({name})")
        return name

    def layer(self, case: Case, adapters: int = 1) -> "LoralibLayer":
        """See the protocol."""
        if adapters > 1:
            raise NotOffered("several adapters")
        made = LoralibLayer(self.script, case, self.build(case))
        made.fill()
        return made

    def initialisations(self, case: Case) -> tuple[Any, ...]:
        """Its own."""
        return (True,)

    def fresh(self, case: Case, init: Any, seed: int) -> "LoralibLayer":
        """reset_parameters, then the base's weight again."""
        self.script.run(f"torch.manual_seed({seed})")
        return LoralibLayer(self.script, case, self.build(case))

    def load(self, case: Case, folder: Path) -> "LoralibLayer":
        """load_state_dict(strict=False)."""
        if "conv" in case.layer:
            raise NotOffered("files of factors of another shape")
        name, path = self.build(case), str(folder / "lora.pt")
        self.script.run(f"{name}.load_state_dict(torch.load({path!r}), strict=False)")
        return LoralibLayer(self.script, case, name)


def _torch(dtype: str) -> str:
    return f"torch.{dtype}"


class LoralibLayer(RecordedLayer):
    """A layer in training mode (unmerged), or evaluation mode where it has dropout."""

    own_factors = False

    def __init__(self, script: Any, case: Case, name: str):
        paths = {n: f"{name}.lora_{n}" for n in "AB"}
        conv = "conv" in case.layer
        weight = f"{name}.conv.weight" if conv else f"{name}.weight"
        super().__init__(script, case, name, paths, weight)
        script.run(f"{name}.eval()" if case.p else f"{name}.train()")

    def fill(self) -> None:
        """Set the factors; for a convolution some of the shapes that it has."""
        c = self.case
        if c.layer == "qkv":
            on = [n for n in "qkv" if f"A{n}" in c.factors]
            for letter, path in self.paths.items():
                joined = np.concatenate([c.factors[letter + n] for n in on])
                self.put(path, joined)
        elif "conv" in c.layer:
            self.own_factors = True
            for path in self.paths.values():
                count = f"torch.arange(1.0, {path}.numel() + 1).view({path}.shape)"
                self.script.run(f"{path}.data = {count}.to({_torch(c.dtype)}) % 5")
        else:
            if c.p:
                self.script.run(f"{self.module}.train()")
            for n, path in self.paths.items():
                self.put(path, c.factors[n])
            if c.p:
                self.script.run(f"{self.module}.eval()")

    def factors(self) -> dict[str, Array]:
        """By part, where they are joined."""
        found = super().factors()
        if self.case.layer != "qkv":
            return found
        on = [n for n in "qkv" if f"A{n}" in self.case.factors]
        return {
            letter + n: part
            for letter in "AB"
            for n, part in zip(on, np.split(found[letter], len(on)), strict=True)
        }

    def forward(self, *inputs: Any) -> Any:
        """A filled convolution has no oracle."""
        self._comparable()
        return super().forward(*inputs)

    def _comparable(self) -> None:
        if self.own_factors:
            raise NotOffered("factors of another shape: its update is not ours")

    def _backward(self, batches: list[tuple], call: str) -> dict[str, Any]:
        self._comparable()
        if self.case.p:
            raise NotOffered("gradients in evaluation mode, where it is merged")
        grads = super()._backward(batches, call)
        if self.case.layer == "qkv" and grads.get("A") is not None:
            on = [n for n in "qkv" if f"A{n}" in self.case.factors]
            for letter in "AB":
                parts = np.split(grads.pop(letter), len(on))
                grads |= {letter + n: g for n, g in zip(on, parts, strict=True)}
        return grads

    def gradients_training(self, seed: int, dy: Any, *inputs: Any) -> dict[str, Any]:
        """As above."""
        self.script.run(f"{self.module}.train(); torch.manual_seed({seed})")
        kept = self.case
        self.case = replace(kept, p=0.0)
        try:
            return super()._backward([(dy, *inputs)], "{module}({x})")
        finally:
            self.case = kept
            self.script.run(f"{self.module}.eval()")

    def delta(self, adapter: int | None = None) -> Array:
        """merge_AB, and the line of its forward for convolutions."""
        m = self.module
        if self.case.layer == "qkv":
            return self.read(f"{m}.merge_AB() * {m}.scaling", "delta")
        if "conv" in self.case.layer:
            return self.read(f"({m}.lora_B @ {m}.lora_A).view({m}.conv.weight.shape) "
                             f"* {m}.scaling", "delta")  # fmt: skip
        raise NotOffered("a function that gives the update")

    def merge(self, *adapters: int) -> None:
        """eval()."""
        self._comparable()
        self.script.run(f"{self.module}.eval()")

    def unmerge(self) -> None:
        """train()."""
        if self.case.p:
            raise NotOffered("evaluation mode without merging")
        self.script.run(f"{self.module}.train()")

    def scale_by(self, factor: float) -> None:
        """Its attribute."""
        if self.case.p:
            raise NotOffered("a scale that is changed while merged")
        self.script.run(f"{self.module}.scaling *= {factor}")

    def train(self, target: Array, steps: int, lr: float, optimizer: str,
              *inputs: Any) -> None:  # fmt: skip
        """Where its factors compare."""
        self._comparable()
        if self.case.p:
            raise NotOffered("training without dropout")
        super().train(target, steps, lr, optimizer, *inputs)

    def save(self, folder: Path) -> None:
        """lora_state_dict."""
        self.script.run(f"torch.save(lora.lora_state_dict({self.module}), "
                        f"{str(folder / 'lora.pt')!r})")  # fmt: skip
