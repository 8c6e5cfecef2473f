"""SGD with momentum, Adam and AdamW, with parameter groups.

A group is {"params": [...], "lr": …, …}; what a group leaves out comes from the
optimizer's own options. LoRA+ is one line: two groups, lora_B with 16 times the lr.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from lora_np.backend import get_xp, to_host
from lora_np.nn.module import Parameter


class Optimizer:
    """What all optimizers share. `params`: parameters, or groups as dictionaries.

    Raises ValueError for an empty list, a parameter twice, or a negative rate.
    """

    slots: tuple[str, ...] = ()  # names of the arrays kept for each parameter

    def __init__(self, params: Iterable, **defaults: Any):
        given = list(params)
        groups = (
            given if given and isinstance(given[0], Mapping) else [{"params": given}]
        )
        self.groups = [{**defaults, **g, "params": list(g["params"])} for g in groups]
        everything = [p for g in self.groups for p in g["params"]]
        if not everything:
            raise ValueError("nothing to train: the list of parameters is empty")
        if len({id(p) for p in everything}) != len(everything):
            raise ValueError(
                "a parameter stands in the list twice; it would move twice"
            )
        for g in self.groups:
            if not (math.isfinite(g["lr"]) and g["lr"] >= 0):
                raise ValueError(f"lr must be 0 or more, got {g['lr']}")
            g.setdefault("initial_lr", g["lr"])
        self.steps = 0
        self.state: list[dict[str, Any]] = [{} for _ in everything]

    def parameters(self) -> list[Parameter]:
        """All parameters, group after group."""
        return [p for g in self.groups for p in g["params"]]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for p in self.parameters():
            p.grad = None

    def scale_lr(self, factor: float) -> None:
        """Set every group's lr to `factor` times its initial one (for schedules)."""
        for g in self.groups:
            g["lr"] = g["initial_lr"] * factor

    def step(self) -> None:
        """Move every parameter that has a gradient."""
        self.steps += 1
        states = iter(self.state)
        for g in self.groups:
            for p in g["params"]:
                state = next(states)
                if p.grad is not None:
                    if not state:
                        zeros = get_xp(p.data).zeros_like
                        state.update({n: zeros(p.data) for n in self.slots}, t=0)
                    state["t"] += 1
                    self.update(p, p.grad, state, g)

    def update(self, p: Parameter, grad: Any, state: dict, group: dict) -> None:
        """Change one parameter; each optimizer's own."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, np.ndarray]:
        """The kept arrays as host copies, "3.m" for array m of parameter 3."""
        arrays = {
            f"{i}.{n}": np.array(a) if n == "t" else to_host(a).copy()
            for i, s in enumerate(self.state)
            for n, a in s.items()
        }
        return {**arrays, "steps": np.array(self.steps)}

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue where `state_dict` was taken. Raises KeyError for another layout."""
        fresh: list[dict[str, Any]] = [{} for _ in self.state]
        params = self.parameters()
        for key, array in state.items():
            if key == "steps":
                continue
            i, _, name = key.partition(".")
            known = (*self.slots, "t")
            if not i.isdigit() or int(i) >= len(params) or name not in known:
                raise KeyError(f"optimizer state {key!r} does not fit these parameters")
            p = params[int(i)]
            if name == "t":
                fresh[int(i)]["t"] = int(array)
                continue
            if tuple(array.shape) != p.shape:
                raise KeyError(
                    f"optimizer state {key!r} is {array.shape}, the parameter {p.shape}"
                )
            fresh[int(i)][name] = get_xp(p.data).array(array, dtype=p.dtype)
        whole = {*self.slots, "t"}
        for place, kept in enumerate(fresh):
            if kept and set(kept) != whole:
                raise KeyError(
                    f"optimizer state of parameter {place} has {sorted(kept)}, "
                    f"{type(self).__name__} keeps {sorted(whole)}"
                )
        if "steps" not in state:
            raise KeyError("the optimizer state has no count of steps")
        self.state, self.steps = fresh, int(state["steps"])


class SGD(Optimizer):
    """v ← momentum · v + g;  p ← p - lr · v, as PyTorch (g includes weight_decay · p)

    >>> p = Parameter(np.ones(1)); p.grad = np.ones(1)
    >>> SGD([p], lr=0.1).step(); p.data
    array([0.9])
    """

    slots = ("v",)

    def __init__(self, params: Iterable, lr: float, momentum: float = 0.0,
                 weight_decay: float = 0.0):  # fmt: skip
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay)

    def update(self, p: Parameter, grad: Any, state: dict, group: dict) -> None:
        """One parameter."""
        if group["weight_decay"]:
            grad = grad + group["weight_decay"] * p.data
        if group["momentum"]:
            state["v"] *= group["momentum"]
            state["v"] += grad
            grad = state["v"]
        p.data -= group["lr"] * grad


class Adam(Optimizer):
    """m ← β₁m + (1-β₁)g;  v ← β₂v + (1-β₂)g²;  p ← p - lr · m̂ / (√v̂ + eps)

    Kingma & Ba 2015 (1412.6980), algorithm 1; m̂, v̂ corrected for the start at zero.
    weight_decay here is L2: it enters the gradient.

    >>> p = Parameter(np.ones(1)); p.grad = np.array([5.0])
    >>> Adam([p], lr=0.1).step(); bool(abs(p.data - 0.9).max() < 1e-8)
    True
    """

    slots = ("m", "v")
    decoupled = False

    def __init__(self, params: Iterable, lr: float = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.0):  # fmt: skip
        for b in betas:
            if not 0.0 <= b < 1.0:
                raise ValueError(
                    f"betas must be at least 0 and less than 1, got {betas}"
                )
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def update(self, p: Parameter, grad: Any, state: dict, group: dict) -> None:
        """One parameter."""
        decay = group["weight_decay"]
        if decay and self.decoupled:
            p.data *= 1.0 - group["lr"] * decay
        elif decay:
            grad = grad + decay * p.data
        (b1, b2), m, v = group["betas"], state["m"], state["v"]
        m *= b1
        m += (1.0 - b1) * grad
        v *= b2
        v += (1.0 - b2) * (grad * grad)
        t = state["t"]  # steps of this parameter: it may have had no gradient before
        size = group["lr"] / (1.0 - b1**t)
        root = get_xp(v).sqrt(v * (1.0 / (1.0 - b2**t)))
        root += group["eps"]
        p.data -= size * m / root


class AdamW(Adam):
    """Adam with decoupled decay: p ← p (1 - lr · weight_decay) before Adam's step

    Loshchilov & Hutter 2019 (1711.05101), algorithm 2 with the schedule inside lr.

    >>> p = Parameter(np.ones(1)); p.grad = np.zeros(1)
    >>> AdamW([p], lr=0.1, weight_decay=0.1).step(); p.data
    array([0.99])
    """

    decoupled = True

    def __init__(self, params: Iterable, lr: float = 1e-3,
                 betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.01):  # fmt: skip
        super().__init__(params, lr, betas, eps, weight_decay)
