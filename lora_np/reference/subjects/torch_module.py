"""Any PyTorch module with a LoRA layer in it as a subject (needs torch).

    from lora_np.reference.subjects.torch_module import TorchLayer

    def factory(case):
        if case.layer != "linear" or case.option != "plain":
            raise NotOffered("plain linear layers")     # from conformance.protocol
        layer = MyLoRALinear(case.W.shape[1], case.W.shape[0], case.r, case.lora_alpha)
        return TorchLayer(layer, case, weight="base.weight", bias="base.bias",
                          A="lora_A", B="lora_B")

Names are attribute paths; `transposed=("A",)` says which are stored the other way
round. A case that the module does not have (another kind of layer, rsLoRA, DoRA,
dropout) is to be refused with NotOffered, or it is tested as if it had it. A subclass
adds what a module cannot say by names: `delta`, `scale_by`, `disable`, `save`, …
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lora_np.reference.conformance.case import Array, Case
from lora_np.reference.conformance.protocol import Grads, Layer, NotOffered


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ImportError:
        raise NotOffered("torch is not installed: pip install torch") from None


class TorchLayer(Layer):
    """A module whose parameters are set from the case.

    merge, unmerge: functions of the module (None: not offered). Raises ValueError where
    a parameter does not have the shape of its array, with the likely slip.
    """

    def __init__(self, module: Any, case: Case, weight: str, bias: str | None = None,
                 transposed: Sequence[str] = (), merge: Callable | None = None,
                 unmerge: Callable | None = None, **factors: str):  # fmt: skip
        self.torch, self.case, self.module = _torch(), case, module
        missing = sorted(set(case.factors) - set(factors))
        if missing:
            raise NotOffered(f"{case.layer}, {case.option}: no {', '.join(missing)}")
        self.names = factors
        self.all = {**factors, case.kind.weight: weight}
        if bias is None and case.b is not None:
            raise NotOffered("a bias")
        if bias is not None:
            self.all["b"] = bias
        self.turned, self._merge, self._unmerge = set(transposed), merge, unmerge
        module.to(getattr(self.torch, case.dtype))
        b = np.zeros(case.W.shape[0]) if case.b is None else case.b
        values = {**case.factors, case.kind.weight: case.W, "b": b}
        for name, path in self.all.items():
            self._set(name, path, values[name])
        module.eval()

    def _get(self, name: str) -> Any:
        found = self.module
        for part in self.all[name].split("."):
            found = found[int(part)] if part.isdigit() else getattr(found, part)
        return found

    def _set(self, name: str, path: str, value: Array) -> None:
        parameter = self._get(name)
        wanted = value.T if name in self.turned else value
        if tuple(parameter.shape) != wanted.shape:
            slip = f"; is it stored transposed? then transposed=({name!r},)"
            slip = slip if tuple(parameter.shape) == wanted.T.shape else ""
            raise ValueError(f"{path} is {tuple(parameter.shape)}, expected "
                             f"{wanted.shape}{slip}")  # fmt: skip
        kind = getattr(self.torch, self.case.dtype)
        parameter.data = self.torch.tensor(np.ascontiguousarray(wanted), dtype=kind)

    def _out(self, tensor: Any, name: str = "") -> Array:
        wide = tensor.float() if self.case.dtype == "bfloat16" else tensor
        array = wide.detach().numpy().copy()
        return array.T if name in self.turned else array

    def _in(self, inputs: Sequence[Any], grad: bool = False) -> list[Any]:
        made = []
        for value in inputs:
            value = np.asarray(value)
            if value.dtype.kind != "f":
                made.append(self.torch.tensor(value))
                continue
            kind = getattr(self.torch, self.case.dtype)
            made.append(self.torch.tensor(value, dtype=kind, requires_grad=grad))
        return made

    def forward(self, *inputs: Any) -> Any:
        """module(x)."""
        return self._out(self.module(*self._in(inputs)))

    def gradients(self, dy: Any, *inputs: Any) -> Grads:
        """module(x).backward(dy)."""
        return self.accumulate([(dy, *inputs)])

    def accumulate(self, batches: list[tuple]) -> Grads:
        """Backwards without zero_grad between them."""
        self.module.zero_grad()
        given: list[Any] = []
        for dy, *inputs in batches:
            given = self._in(inputs, grad=True)
            self.module(*given).backward(self._in([dy])[0])
        found = {n: self._get(n).grad for n in self.all}
        if self.case.b is None:
            found.pop("b", None)
        if len(batches) == 1:
            found |= dict(zip(self.case.kind.inputs, [v.grad for v in given]))
        return {n: None if g is None else self._out(g, n) for n, g in found.items()}

    def factors(self) -> dict[str, Array]:
        """The trained arrays."""
        return {n: self._out(self._get(n), n) for n in self.names}

    def weight(self) -> Array:
        """The frozen weight."""
        return self._out(self._get(self.case.kind.weight), self.case.kind.weight)

    def forward_training(self, seed: int, *inputs: Any) -> Any:
        """train(), a seed, module(x), eval()."""
        self.module.train()
        self.torch.manual_seed(seed)
        y = self.forward(*inputs)
        self.module.eval()
        return y

    def gradients_training(self, seed: int, dy: Any, *inputs: Any) -> Grads:
        """The same with a backward."""
        self.module.train()
        self.torch.manual_seed(seed)
        grads = self.gradients(dy, *inputs)
        self.module.eval()
        return grads

    def train(self, target: Array, steps: int, lr: float, optimizer: str,
              *inputs: Any) -> None:  # fmt: skip
        """torch.optim on what requires a gradient."""
        made = {"sgd": self.torch.optim.SGD, "adamw": self.torch.optim.AdamW}[optimizer]
        more = {} if optimizer == "sgd" else {"weight_decay": 0.0}
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        opt, goal = made(parameters, lr=lr, **more), self._in([target])[0]
        for _ in range(steps):
            opt.zero_grad()
            ((self.module(*self._in(inputs)) - goal) ** 2).sum().div(2).backward()
            opt.step()

    def merge(self, *adapters: int) -> None:
        """The given function."""
        if self._merge is None or len(adapters) > 1:
            raise NotOffered("merge")
        self._merge(self.module)

    def unmerge(self) -> None:
        """The given function."""
        if self._unmerge is None:
            raise NotOffered("unmerge")
        self._unmerge(self.module)
