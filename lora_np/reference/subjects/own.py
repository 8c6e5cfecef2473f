"""lora_np itself as a subject: the by-hand pairs of `lora`, with `merge` and `init`."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import lora_np
from lora_np import lora as L
from lora_np.nn.adapter_io import read_config, save_adapter
from lora_np.nn.module import Parameter
from lora_np.nn.recompute import recompute
from lora_np.reference.conformance.case import Array, Case
from lora_np.reference.conformance.protocol import Grads, Layer, NotOffered, Subject
from lora_np.reference.subjects.own_parts import (
    as_module,
    base_forward,
    from_folder,
    layer_deltas,
    names_of,
    own_function,
)
from lora_np.tape import Tensor, lift
from lora_np.training.optim import SGD, AdamW

Pair = tuple[Callable, Callable]
PAIRS: dict[str, str] = {
    "linear": "lora_linear", "dora": "dora_linear", "embedding": "lora_embedding",
    "conv1d": "lora_conv1d", "conv2d": "lora_conv2d", "qkv": "lora_qkv",
    "attention": "lora_self_attention", "tied": "lora_tied",
    "tasks": "lora_linear_tasks", "lstm": "lora_lstm",
}  # fmt: skip


def right_pair(name: str) -> Pair:
    """Forward and backward of `lora` by name.

    >>> right_pair("lora_linear")[0] is L.lora_linear
    True
    """
    return getattr(L, name), getattr(L, name + "_backward")


class OwnSubject(Subject):
    """Every layer of `lora`. `pairs` puts others in the place of some (mutants)."""

    name, version, files = "lora_np", lora_np.__version__, "peft"

    def __init__(self, pairs: dict[str, Pair] | None = None):
        self.pairs = pairs or {}

    def layer(self, case: Case, adapters: int = 1) -> "OwnLayer":
        """See the protocol."""
        if case.dtype == "bfloat16" and case.layer != "linear":
            raise NotOffered("bfloat16 beyond linear")
        name = PAIRS["dora" if case.use_dora else case.layer]
        return OwnLayer(case, self.pairs.get(name) or right_pair(name))

    def initialisations(self, case: Case) -> tuple[Any, ...]:
        """True and "gaussian"; for a fresh adapter of A and B."""
        if not {"A", "B"} <= set(case.factors) or case.layer in ("tied", "tasks"):
            raise NotOffered("init_lora for layers of several adapters")
        return True, "gaussian"

    def fresh(self, case: Case, init: Any, seed: int) -> "OwnLayer":
        """Factors from `init_lora`, DoRA's magnitude from the weight."""
        rng = np.random.default_rng(seed)
        make = L.init_lora_embedding if case.layer == "embedding" else L.init_lora
        shapes = [case.factors[n].shape for n in "AB"]
        dtype = np.dtype(case.cast(np.zeros(1)).dtype)
        A, B = make(*shapes, rng, init, dtype.type)  # type: ignore[operator]
        factors = {"A": A.astype(np.float64), "B": B.astype(np.float64)}
        if case.use_dora:
            factors["m"] = L.row_norm(case.W)
        return self.layer(case.with_factors(**factors))

    def load(self, case: Case, folder: Path) -> "OwnLayer":
        """By nn.adapter_io; the scale comes from the file."""
        factors = from_folder(case, folder)
        layer = self.layer(case.with_factors(**factors))
        layer.s = read_config(folder).scaling
        return layer


class ConstantNormSubject(OwnSubject):
    """DoRA as PEFT has it: the norm is no function of A and B in the backward."""

    dora_constant_norm = True

    def __init__(self, both: Pair | None = None):
        forward, backward = both or right_pair("dora_linear")

        @functools.wraps(own_function(forward))
        def constant(*args: Any, **given: Any) -> Any:
            V = given["W_MD"] + given["s"] * given["B_MR"] @ given["A_RD"]
            return forward(*args, **{**given, "norm_M": L.row_norm(V)})

        super().__init__({"dora_linear": (constant, backward)})


class OwnLayer(Layer):
    """One layer: arrays, a pair, and what is merged."""

    def __init__(self, case: Case, pair: Pair):
        self.case, self.pair = case, pair
        name = PAIRS["dora" if case.use_dora else case.layer]
        self.own = right_pair(name)[0]  # for its names, whatever `pair` is
        self.kind, self.s = case.kind, case.scale()
        self.all = [{n: case.cast(a) for n, a in x.factors.items()}
                    for x in case.adapters]  # fmt: skip
        self.now = self.all[0]
        names = {"attention": ("W", "Wo"), "lstm": ("Wx", "Wh")}
        frozen = names.get(case.layer, (self.kind.weight,))
        self.frozen = {n: case.cast(case.given[n]).copy() for n in frozen}
        if case.fan_in_fan_out:
            self.frozen["W"] = self.frozen["W"].T.copy()  # stored as GPT-2 stores it
        self.merged: list[int] = []

    def weights(self) -> dict[str, Array]:
        """The frozen arrays as (out, in): a view where one is stored transposed."""
        if self.case.fan_in_fan_out:
            return {"W": self.frozen["W"].T}
        return self.frozen

    def weight(self) -> Array:
        """As it is now."""
        return np.array(self.weights()[self.kind.weight])

    def factors(self) -> dict[str, Array]:
        """The arrays of the adapter in use."""
        return self.now

    def _arguments(self, inputs: tuple, **more: Any) -> dict[str, Any]:
        """The pair's keyword arguments, by their full names."""
        given = {n: self.case.cast(v) for n, v in self.case.given.items()}
        given |= dict(zip(self.kind.inputs, inputs, strict=True))
        given |= {**self.weights(), "s": self.s, **self.now, **more}
        given["key_mask_BS"] = given.get("key_mask")
        found = {}
        for full in names_of(self.own):
            short = full if full in given else full.split("_")[0]
            if short in given and full != "needs":
                found[full] = given[short]
        return found

    def _run(self, inputs: tuple, **more: Any) -> tuple[Any, Any]:
        return self.pair[0](**self._arguments(inputs, **more))

    def forward(self, *inputs: Any) -> Any:
        """Merged: the frozen layer alone."""
        if self.merged:
            return base_forward(self.case, self.weights(), inputs)
        return self._run(inputs)[0]

    def gradients(self, dy: Any, *inputs: Any) -> Grads:
        """The pair's backward, by short names."""
        _, cache = self._run(inputs)
        return self._named(self.pair[1](dy, cache))

    def _named(self, grads: tuple) -> Grads:
        names = self.own.wrt  # type: ignore[attr-defined]
        return dict(zip(names, grads, strict=True))

    def checkpointed(self, dy: Any, *inputs: Any) -> Grads:
        """nn.recompute around the lifted pair."""
        if self.kind.inputs != ("x",):
            raise NotOffered("checkpointing of more than one input")
        arguments = self._arguments(inputs)
        leaves = {n: Tensor(a, requires_grad=True) for n, a in arguments.items()
                  if n.split("_")[0] in self.now}  # fmt: skip
        operation = lift(*self.pair)
        x = next(n for n in arguments if n.split("_")[0] == "x")

        def block(x_: Tensor, rng: Any) -> Tensor:
            return operation(**{**arguments, **leaves, x: x_})

        y = recompute(block, Tensor(arguments[x], requires_grad=True))
        (y * dy).sum().backward()
        return {n.split("_")[0]: t.grad for n, t in leaves.items()}

    def deltas(self, adapter: int | None = None) -> dict[str, Array]:
        """What merging adds to each frozen array, in its standard layout."""
        f = self.now if adapter is None else self.all[adapter]
        s = self.s if adapter is None else self.case.scale(adapter)
        return layer_deltas(self.case, f, s)

    def delta(self, adapter: int | None = None) -> Array:
        """s B A in the weight's layout; DoRA's diag(m/n) V - W."""
        return self.deltas(adapter)[self.kind.weight]

    def merge(self, *adapters: int) -> None:
        """Each update in turn, rounded to the weight's dtype."""
        if self.case.layer == "tasks":
            raise NotOffered("merging: there is one weight for many tasks")
        for i in adapters or (None,):
            self._add(self.deltas(i), 1.0)
            self.merged.append(i)  # type: ignore[arg-type]

    def unmerge(self) -> None:
        """In reverse order."""
        for i in reversed(self.merged):
            self._add(self.deltas(i), -1.0)
        self.merged = []

    def _add(self, deltas: dict[str, Array], sign: float) -> None:
        for name, delta in deltas.items():
            stored = delta.T if self.case.fan_in_fan_out else delta
            self.frozen[name] = L.merge(self.frozen[name], sign * stored)

    def save(self, folder: Path) -> None:
        """PEFT's files, by nn.adapter_io."""
        model = as_module(self.case, self.now)
        save_adapter(model, folder)

    def scale_by(self, factor: float) -> None:
        """The scale is a number."""
        self.s *= factor

    def disable(self) -> None:
        """Forward as if merged, with nothing merged."""
        self.merged = [-1]

    def combinations(self) -> tuple[str, ...]:
        """lora.combine's, where factors are matrices."""
        if self.now["A"].ndim > 2 or self.case.use_dora:
            raise NotOffered("combine for convolutions and DoRA")
        return "cat", "svd", "linear"

    def combine(
        self, adapters: tuple[int, ...], weights: list[float], how: str
    ) -> None:
        """The combination becomes the adapter in use, with s = 1."""
        parts = [(self.all[i]["A"], self.all[i]["B"], self.case.scale(i))
                 for i in adapters]  # fmt: skip
        A, B = L.combine(parts, weights, how)
        self.all = [dict(self.now), *self.all[1:]]
        self.now, self.s = {**self.now, "A": A, "B": B}, 1.0

    def train(self, target: Array, steps: int, lr: float, optimizer: str,
              *inputs: Any) -> None:  # fmt: skip
        """With the optimizers of `training`."""
        held = {n: Parameter(a.copy()) for n, a in self.now.items()}
        made = SGD(held.values(), lr) if optimizer == "sgd" else AdamW(
            held.values(), lr, weight_decay=0.0)  # fmt: skip
        for _ in range(steps):
            self.now = {n: p.data for n, p in held.items()}
            y, cache = self._run(inputs)
            grads = self._named(self.pair[1](y - target, cache))
            for n, p in held.items():
                p.grad = grads[n]
            made.step()
        self.now = {n: p.data for n, p in held.items()}

    def _mask(self, seed: int, x: Array) -> dict[str, Any]:
        if "p" not in names_of(self.own):
            raise NotOffered("dropout")
        keep = np.random.default_rng(seed).random(x.shape) >= self.case.p
        return {"mask_ND": keep, "mask": keep, "p": self.case.p}

    def forward_training(self, seed: int, *inputs: Any) -> Any:
        """With a mask drawn from the seed."""
        return self._run(inputs, **self._mask(seed, inputs[0]))[0]

    def gradients_training(self, seed: int, dy: Any, *inputs: Any) -> Grads:
        """The same mask."""
        _, cache = self._run(inputs, **self._mask(seed, inputs[0]))
        return self._named(self.pair[1](dy, cache))

    def accumulate(self, batches: list[tuple]) -> Grads:
        """Sums of the backwards'."""
        total: Grads = {}
        for dy, *inputs in batches:
            for n, g in self.gradients(dy, *inputs).items():
                if g is not None and n in self.now:
                    held = total.get(n)
                    total[n] = g if held is None else held + g
        return total

    def mixed(self, which: Array, *inputs: Any) -> Any:
        """lora_linear_tasks, the base as an adapter of zeros."""
        if self.case.layer == "tasks":
            raise NotOffered("tasks already name their adapter")
        if self.case.layer != "linear" or self.case.use_dora:
            raise NotOffered("a batch of mixed adapters beyond linear")
        first, second = ({n: a.copy() for n, a in f.items()} for f in self.all[:2])
        for i, f in enumerate((first, second)):
            f["B"] *= f["B"].dtype.type(self.case.scale(i))
        A = np.stack([first["A"], second["A"], 0 * first["A"]])
        B = np.stack([first["B"], second["B"], 0 * first["B"]])
        b = self.case.cast(self.case.b)
        W = self.weights()["W"]
        return L.lora_linear_tasks(inputs[0], W, b, A, B, None, which % 3, 1.0)[0]
