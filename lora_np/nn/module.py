"""Parameter and Module: names, state, train/eval. No array operation happens here."""

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from lora_np.backend import Array, get_xp, to_host
from lora_np.tape import Tensor


class Parameter(Tensor):
    """A leaf Tensor that a Module owns; trainable unless frozen.

    >>> Parameter(np.zeros(2)).requires_grad
    True
    """

    __slots__ = ()

    def __init__(self, data: Array, requires_grad: bool = True, name: str = ""):
        super().__init__(data, requires_grad, name)


class Module:
    """Something with parameters. Attributes that are Parameters, Modules or lists of
    Modules are found by name, in the order in which they were set.

    >>> class Scale(Module):
    ...     def __init__(self): self.training = True; self.g = Parameter(np.ones(1))
    >>> [name for name, _ in Scale().named_parameters()]
    ['g']
    """

    training: bool = True

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.forward(*args, **options)

    def forward(self, *args: Any, **options: Any) -> Any:
        """What the module computes; every subclass has its own."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def loss(
        self, ids: Any, target: Array, reduction: str = "mean", rng: Any = None
    ) -> Tensor:
        """What `training.train` minimises; a trainable model has its own.

        Mean or summed loss of the targets that are not -100, a 0-d Tensor; `ids` is
        whatever the model takes as input.
        """
        raise NotImplementedError(f"{type(self).__name__} has no loss to train")

    def children(self) -> Iterator[tuple[str, "Module"]]:
        """Direct sub-modules with their names; "h.0" for entry 0 of a list h."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, list):
                for i, item in enumerate(value):
                    if isinstance(item, Module):
                        yield f"{name}.{i}", item

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """Every module below this one with its dotted path; itself as ""."""
        yield prefix, self
        for name, child in self.children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Every parameter with its dotted path, each once (tied ones by the first)."""
        seen: set[int] = set()
        for path, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    yield (f"{path}.{name}" if path else name), value

    def parameters(self) -> list[Parameter]:
        """Every parameter."""
        return [p for _, p in self.named_parameters()]

    def trainable(self) -> dict[str, Parameter]:
        """The parameters that are not frozen, by name."""
        return {n: p for n, p in self.named_parameters() if p.requires_grad}

    def freeze(self) -> None:
        """Let no parameter of this module receive a gradient."""
        for p in self.parameters():
            p.requires_grad = False
            p.grad = None

    def zero_grad(self) -> None:
        """Forget the gradients of every parameter."""
        for p in self.parameters():
            p.grad = None

    def train(self, mode: bool = True) -> "Module":
        """Training mode (dropout acts) for this module and all below; returns self."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> "Module":
        """Evaluation mode (dropout does nothing); returns self."""
        return self.train(False)

    def replace(self, path: str, module: "Module") -> None:
        """Put `module` where the sub-module at the dotted path is."""
        *parents, last = path.split(".")
        owner: Any = self
        for name in parents:
            owner = (
                owner[int(name)] if isinstance(owner, list) else getattr(owner, name)
            )
        if isinstance(owner, list):
            owner[int(last)] = module
        else:
            setattr(owner, last, module)

    def to(self, xp: ModuleType) -> "Module":
        """Move every parameter to the module `xp` (numpy or cupy); returns self."""
        for p in self.parameters():
            p.data = to_host(p.data) if xp is np else xp.asarray(to_host(p.data))
        return self

    def state_dict(self) -> dict[str, np.ndarray]:
        """Host copies of all parameters by name."""
        return {n: to_host(p.data).copy() for n, p in self.named_parameters()}

    def before_load(self) -> None:
        """Called before a state is loaded; a module may refuse by raising."""

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Set every parameter; each keeps its own dtype and device.

        Raises KeyError that lists all missing, unexpected and wrongly shaped names;
        nothing is changed then.
        """
        for _, module in self.named_modules():
            module.before_load()
        own = dict(self.named_parameters())
        missing = sorted(set(own) - set(state))
        unexpected = sorted(set(state) - set(own))
        shapes = [
            f"{n} is {tuple(state[n].shape)}, the model has {p.shape}"
            for n, p in own.items()
            if n in state and tuple(state[n].shape) != p.shape
        ]
        lists = (("missing", missing), ("unexpected", unexpected), ("shape", shapes))
        wrong = [f"{kind}: {', '.join(names)}" for kind, names in lists if names]
        if wrong:
            raise KeyError("the state does not fit the model; " + "; ".join(wrong))
        for n, p in own.items():
            p.data[...] = _like(state[n], p.data)


def _like(array: Array, target: Array) -> Array:
    return get_xp(target).asarray(to_host(array), dtype=target.dtype)
