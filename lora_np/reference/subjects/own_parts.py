"""What the subject `own` does with arrays: updates, the frozen layer, files."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lora_np import functional as F
from lora_np import lora as L
from lora_np.nn.adapt import attach_lora
from lora_np.nn.adapter_io import load_adapter
from lora_np.nn.config import LoraConfig
from lora_np.nn.layers import Embedding, Linear
from lora_np.nn.module import Module
from lora_np.reference.conformance.case import Array, Case
from lora_np.reference.conformance.protocol import NotOffered

_GEOMETRY = ("stride", "padding", "dilation", "groups")


def own_function(f: Callable) -> Callable:
    """The pair's own function, under whatever a mutant wrapped around it."""
    return getattr(f, "__wrapped__", f)


def names_of(f: Callable) -> tuple[str, ...]:
    """Parameter names of a pair's forward."""
    return tuple(inspect.signature(own_function(f)).parameters)


def layer_deltas(case: Case, f: dict[str, Array], s: float) -> dict[str, Array]:
    """What merging adds, in float64, by the name of the frozen array."""
    if case.layer == "attention":
        return {"W": qkv_delta(case, f, s), "Wo": L.delta_weight(f["Ao"], f["Bo"], s)}
    if case.layer == "qkv":
        return {"W": qkv_delta(case, f, s)}
    if case.layer == "lstm":
        return {f"W{n}": L.delta_weight(f[f"A{n}"], f[f"B{n}"], s)
                if f"A{n}" in f else 0 * case.given[f"W{n}"] for n in "xh"}  # fmt: skip
    if case.layer == "tasks":
        pairs = zip(f["A"], f["B"], strict=True)
        return {"W": np.stack([L.delta_weight(A, B, s) for A, B in pairs])}
    delta = L.delta_weight(f["A"], f["B"], s, case.given.get("groups", 1))
    if case.layer == "embedding":
        return {"E": delta.T}
    if case.use_dora:
        V = case.W + delta
        n = L.row_norm(V)
        safe = np.where(n == 0, 1.0, n)
        return {"W": np.where(n == 0, 0.0, f["m"] / safe)[:, None] * V - case.W}
    return {case.kind.weight: delta}


def qkv_delta(case: Case, f: dict[str, Array], s: float) -> Array:
    """Rows of a part left out are zero."""
    widths = case.given.get("widths")
    if widths is None:
        P = case.given["Wo"].shape[1]
        K = P // case.given["heads"] * case.given["kv_heads"]
        widths = (P, K, K)
    rows = [L.delta_weight(f[f"A{n}"], f[f"B{n}"], s) if f.get(f"A{n}") is not None
            else np.zeros((w, case.W.shape[1]))
            for n, w in zip("qkv", widths, strict=True)]  # fmt: skip
    return np.concatenate(rows)


def base_forward(case: Case, W: dict[str, Array], inputs: tuple) -> Any:
    """The frozen layer with these weights, by `functional`."""
    given = {n: case.cast(v) for n, v in case.given.items()}
    main = W[case.kind.weight]
    if case.layer in ("linear", "qkv", "tasks"):
        return F.linear(inputs[0], main, given.get("b"))[0]
    if case.layer == "embedding":
        return F.embedding(inputs[0], main)[0]
    if case.layer == "tied":
        return F.embedding(inputs[0], main)[0], F.linear(inputs[1], main, None)[0]
    if case.layer in ("conv1d", "conv2d"):
        f = F.conv1d if case.layer == "conv1d" else F.conv2d
        geometry = [given[n] for n in _GEOMETRY]
        return f(inputs[0], main, given.get("b"), *geometry)[0]
    if case.layer == "lstm":
        return F.lstm(*inputs, main, W["Wh"], given["b"])[0]
    heads = [given[n] for n in ("batch", "heads", "kv_heads", "causal", "key_mask")]
    o = F.qkv_attention(F.linear(inputs[0], main, None)[0], *heads)[0]
    return F.linear(o, W["Wo"], None)[0]


class _One(Module):
    """A model of one layer, for the files."""

    def __init__(self, target: Module):
        self.target = target


def as_module(case: Case, factors: dict[str, Array] | None) -> Module:
    """A module with the case's base and, if given, these factors beside it."""
    rng = np.random.default_rng(0)
    if case.layer not in ("linear", "embedding") or case.fan_in_fan_out:
        raise NotOffered("files for layers that nn does not have")
    if case.dtype not in ("float64", "float32", "float16"):
        raise NotOffered(f"files in {case.dtype}")
    dtype = np.dtype(case.dtype).type
    if case.layer == "embedding":
        model = _One(Embedding(*case.W.shape, rng, dtype=dtype))
    else:
        b = case.b is not None
        model = _One(Linear(*case.W.shape[::-1], rng, bias=b, dtype=dtype))
        if b:
            model.target.bias.data = case.cast(case.b)  # type: ignore[union-attr]
    model.target.weight.data = case.cast(case.W)  # type: ignore[union-attr]
    if factors is not None:
        config = LoraConfig(
            r=case.r, lora_alpha=case.lora_alpha, target_modules=["target"],
            use_rslora=case.use_rslora, use_dora=case.use_dora,
            lora_dropout=case.p,
        )  # fmt: skip
        attach_lora(model, config, rng)
        for name, array in factors.items():
            full = "lora_magnitude_vector" if name == "m" else f"lora_{name}"
            getattr(model.target, full).data = array
    return model


def from_folder(case: Case, folder: Path) -> dict[str, Array]:
    """The factors of an adapter folder, loaded onto the case's base."""
    model = as_module(case, None)
    load_adapter(model, folder)
    target = model.target  # type: ignore[attr-defined]
    found = {n: getattr(target, f"lora_{n}").data for n in "AB"}
    if case.use_dora:
        found["m"] = target.lora_magnitude_vector.data
    return found
