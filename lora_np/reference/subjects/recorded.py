"""What the shims for torch libraries share: layers that write down what they run."""

from typing import Any

import numpy as np

from lora_np.reference.conformance.case import Array, Case
from lora_np.reference.conformance.protocol import Grads, Layer, Subject
from lora_np.reference.conformance.record import Script

TORCH = {"float64": "torch.float64", "float32": "torch.float32",
         "float16": "torch.float16", "bfloat16": "torch.bfloat16"}  # fmt: skip


def tensor(value: Any, dtype: str = "float64") -> str:
    """Source of a tensor.

    >>> tensor(np.array([[1.0, 2.0]]), "float32")
    'torch.tensor([[1.0, 2.0]], dtype=torch.float32)'
    """
    value = np.asarray(value)
    kind = TORCH[dtype] if value.dtype.kind == "f" else "torch.int64"
    if value.size == 0:
        return f"torch.zeros({tuple(value.shape)}, dtype={kind})"
    return f"torch.tensor({value.tolist()}, dtype={kind})"


class RecordedSubject(Subject):
    """A subject whose calls are lines of a Script, begun anew for every case."""

    imports: tuple[str, ...] = ("import torch",)
    script: Script

    def begin(self) -> None:
        """Forget the lines of the last case."""
        self.script = Script(*self.imports)


class RecordedLayer(Layer):
    """A torch module `module` with trained parameters under Python expressions.

    paths: name of a factor -> the expression of its parameter. to_stored and
    from_stored change a factor's layout where the library's differs. weight_path: the
    frozen weight; transposed: whether it is stored (in, out).
    """

    def __init__(self, script: Script, case: Case, module: str, paths: dict[str, str],
                 weight_path: str, dtype: str | None = None):  # fmt: skip
        self.script, self.case, self.module = script, case, module
        self.paths, self.weight_path = paths, weight_path
        self.dtype = dtype or case.dtype

    # ---- reading and writing

    def read(self, expression: str, stem: str) -> Any:
        """The expression's tensor as an array (bfloat16 as float32)."""
        wide = ".float()" if self.dtype == "bfloat16" else ""
        return self.script.value(f"({expression}).detach(){wide}.numpy().copy()", stem)

    def put(self, expression: str, value: Array) -> None:
        """Set a parameter's values."""
        self.script.run(f"{expression}.data = {tensor(value, self.dtype)}")

    def factors(self) -> dict[str, Array]:
        """The trained arrays."""
        return {n: self.from_stored(n, self.read(p, n)) for n, p in self.paths.items()}

    def from_stored(self, name: str, value: Array) -> Array:
        """A factor from the library's layout."""
        return value

    def weight(self) -> Array:
        """The frozen weight, (out, in)."""
        turn = ".T" if self.case.fan_in_fan_out else ""
        return self.read(f"{self.weight_path}{turn}", "W")

    def given(self, inputs: tuple, grad: bool = False) -> list[str]:
        """Source of the inputs as tensors."""
        names = []
        for value in inputs:
            name = self.script.fresh("x")
            need = np.asarray(value).dtype.kind == "f" and grad
            source = tensor(value, self.dtype)
            self.script.run(f"{name} = {source}{'.requires_grad_()' if need else ''}")
            names.append(name)
        return names

    # ---- the protocol

    def forward(self, *inputs: Any) -> Any:
        """module(x)."""
        return self.read(f"{self.module}({', '.join(self.given(inputs))})", "y")

    def gradients(self, dy: Any, *inputs: Any) -> Grads:
        """module(x).backward(dy)."""
        return self._backward([(dy, *inputs)], "{module}({x})")

    def accumulate(self, batches: list[tuple]) -> Grads:
        """Several backwards without zero_grad between them."""
        return self._backward(batches, "{module}({x})")

    def checkpointed(self, dy: Any, *inputs: Any) -> Grads:
        """torch.utils.checkpoint."""
        self.script.run("from torch.utils.checkpoint import checkpoint")
        call = "checkpoint({module}, {x}, use_reentrant=False)"
        return self._backward([(dy, *inputs)], call)

    def _backward(self, batches: list[tuple], call: str) -> Grads:
        self.script.run(f"{self.module}.zero_grad()")
        names: list[str] = []
        for dy, *inputs in batches:
            names = self.given(tuple(inputs), grad=True)
            y = call.format(module=self.module, x=", ".join(names))
            self.script.run(f"{y}.backward({tensor(dy, self.dtype)})")
        found: Grads = {}
        places = {**self.paths, self.case.kind.weight: self.weight_path}
        if len(batches) == 1:
            given = dict(zip(self.case.kind.inputs, names, strict=True))
            places |= {n: given[n] for n in self.case.kind.smooth_inputs}
        for name, place in places.items():
            if self.script.space_has_grad(place):
                grad = self.read(f"{place}.grad", "d" + name)
                found[name] = self.from_stored(name, grad)
        return found

    def train(self, target: Array, steps: int, lr: float, optimizer: str,
              *inputs: Any) -> None:  # fmt: skip
        """torch.optim on what requires a gradient."""
        made = "SGD" if optimizer == "sgd" else "AdamW"
        more = "" if optimizer == "sgd" else ", weight_decay=0.0"
        run = self.script.run
        run(f"opt = torch.optim.{made}([p for p in {self.module}.parameters() "
            f"if p.requires_grad], lr={lr}{more})")  # fmt: skip
        names = ", ".join(self.given(inputs))
        run(f"target = {tensor(target, self.dtype)}")
        for _ in range(steps):
            run("opt.zero_grad()")
            run(f"(({self.module}({names}) - target) ** 2).sum().div(2).backward()")
            run("opt.step()")

    def forward_training(self, seed: int, *inputs: Any) -> Any:
        """torch.manual_seed, train(), module(x), eval()."""
        self.script.run(f"{self.module}.train(); torch.manual_seed({seed})")
        y = self.forward(*inputs)
        self.script.run(f"{self.module}.eval()")
        return y

    def gradients_training(self, seed: int, dy: Any, *inputs: Any) -> Grads:
        """The same with a backward."""
        self.script.run(f"{self.module}.train(); torch.manual_seed({seed})")
        grads = self.gradients(dy, *inputs)
        self.script.run(f"{self.module}.eval()")
        return grads
