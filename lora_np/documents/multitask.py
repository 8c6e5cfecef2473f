"""D2's system: one frozen model, for every task a thin update and a bias of its own.

J tasks · R rank · D inputs · M outputs.  Every row of a batch names its task, so one
batch may hold all of them; tasks are stored and loaded one by one.
"""

from pathlib import Path

import numpy as np

from lora_np.backend import Array, to_host
from lora_np.files import load_tensors, save_tensors
from lora_np.functional.contract import expect_ids, expect_shape
from lora_np.lora import init_lora, scaling
from lora_np.models import GPT
from lora_np.nn import ops
from lora_np.nn.adapt import find_targets
from lora_np.nn.layers import Linear, Rng
from lora_np.nn.module import Module, Parameter
from lora_np.tape import Tensor


class TaskLinear(Module):
    """y_n = x_n Wᵀ + b + s (x_n A_jᵀ) B_jᵀ + c_j for the task j of row n.

    The task of every sequence is set by the model before the call (`tasks`).
    """

    def __init__(self, base: Linear, tasks: int, r: int, lora_alpha: float, rng: Rng):
        self.base_layer, self.scaling = base, scaling(lora_alpha, r)
        M, D = base.weight.shape
        dtype = base.weight.dtype
        pairs = [init_lora((r, D), (M, r), rng, True, dtype) for _ in range(tasks)]
        self.lora_A = Parameter(np.stack([A for A, _ in pairs]))
        self.lora_B = Parameter(np.stack([B for _, B in pairs]))
        self.task_bias = Parameter(np.zeros((tasks, M), dtype))
        self.tasks = np.zeros(1, np.int64)

    def forward(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        """x (N, D) → (N, M); N is a multiple of the number of sequences."""
        task_N = np.repeat(self.tasks, x.shape[0] // len(self.tasks))
        base = self.base_layer
        return ops.lora_linear_tasks(
            x, base.weight, base.bias, self.lora_A, self.lora_B, self.task_bias,
            task_N, self.scaling,
        )  # fmt: skip


class Multitask(Module):
    """A GPT with `names` tasks on its target layers; `loss` takes (ids, tasks).

    >>> from lora_np.models import GPTConfig
    >>> model = GPT(GPTConfig(16, 8, 8, 1, 2), np.random.default_rng(0))
    >>> many = Multitask(model, ["a", "b"], r=2)
    >>> many.logits(np.zeros((2, 3), int), np.array([0, 1])).shape
    (6, 16)
    """

    def __init__(
        self, model: GPT, names: list[str], r: int = 4, lora_alpha: float = 8,
        target_modules: str | list[str] = "all-linear", seed: int = 0,
    ):  # fmt: skip
        if len(set(names)) != len(names) or not names:
            raise ValueError(f"tasks need different names, at least one; got {names}")
        self.model, self.names, rng = model, list(names), np.random.default_rng(seed)
        model.freeze()
        layers = dict(model.named_modules())
        self.layers: dict[str, TaskLinear] = {}
        for path in find_targets(model, target_modules):
            base = layers[path]
            assert isinstance(base, Linear)
            self.layers[path] = TaskLinear(base, len(names), r, lora_alpha, rng)
            model.replace(path, self.layers[path])

    def logits(self, ids_BT: Array, task_B: Array) -> Tensor:
        """Logits (B T, V), each sequence by its own task's adapter."""
        self._set(ids_BT, task_B)
        return self.model.logits(ids_BT)

    def loss(
        self, ids: tuple[Array, Array], target: Array, reduction: str = "mean",
        rng: Rng | None = None,
    ) -> Tensor:  # fmt: skip
        """Cross-entropy of the targets; ids = (ids (B, T), tasks (B,))."""
        self._set(*ids)
        return self.model.loss(ids[0], target, reduction, rng)

    def _set(self, ids_BT: Array, task_B: Array) -> None:
        expect_shape("task_B", task_B, (ids_BT.shape[0],), "one task a sequence")
        expect_ids("task_B", task_B, len(self.names))
        for layer in self.layers.values():
            layer.tasks = task_B

    def task_tensors(self, name: str) -> dict[str, np.ndarray]:
        """One task's own numbers by path: what is stored for it, and nothing else."""
        j = self._index(name)
        return {
            f"{path}.{kind}": to_host(getattr(layer, kind).data[j]).copy()
            for path, layer in self.layers.items()
            for kind in ("lora_A", "lora_B", "task_bias")
        }

    def save_task(self, name: str, path: str | Path) -> None:
        """Write one task's numbers to a safetensors file."""
        save_tensors(path, self.task_tensors(name))

    def load_task(self, name: str, path: str | Path) -> None:
        """Set one task's numbers; the other tasks and the base stay as they are.

        Raises KeyError when the file is of another model or rank; nothing is changed.
        """
        own, new = self.task_tensors(name), load_tensors(path)
        wrong = sorted(
            k for k in own.keys() | new.keys()
            if k not in own or k not in new or own[k].shape != new[k].shape
        )  # fmt: skip
        if wrong:
            raise KeyError(f"{path} does not fit these layers and rank: {wrong[0]} "
                           f"and {len(wrong) - 1} more differ")  # fmt: skip
        j = self._index(name)
        for key, array in new.items():
            layer, kind = key.rsplit(".", 1)
            getattr(self.layers[layer], kind).data[j] = array

    def _index(self, name: str) -> int:
        if name not in self.names:
            raise KeyError(f"no task {name!r}; there are {', '.join(self.names)}")
        return self.names.index(name)


def stored_bytes(base: int, task: int, count: int) -> tuple[int, int]:
    """(shared base and `count` tasks, `count` whole models) in bytes.

    >>> stored_bytes(1000, 10, 5)
    (1050, 5000)
    """
    return base + count * task, count * base
