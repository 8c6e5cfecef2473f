"""attach_lora and what follows from it: freezing, counting, merging, removing.

Option names and their meaning are PEFT's (LoraConfig).
"""

import re

import numpy as np

from lora_np.nn.config import LoraConfig
from lora_np.nn.layers import Embedding, Linear
from lora_np.nn.lora_layers import LoraEmbedding, LoraLayer, LoraLinear
from lora_np.nn.module import Module


def adaptable(model: Module) -> dict[str, Module]:
    """The layers that can carry an adapter, by path.

    >>> adaptable(Linear(2, 2, np.random.default_rng(0)))
    {}
    """
    return {
        path: m
        for path, m in model.named_modules()
        if path and isinstance(m, Linear | Embedding) and ".base_layer" not in path
    }


def find_targets(model: Module, target_modules: list[str] | str) -> list[str]:
    """Paths that the targets name, in the model's order.

    Raises ValueError when a target matches nothing, with the layers that exist.
    """
    layers = adaptable(model)
    if target_modules == "all-linear":
        head = {"lm_head"}
        return [p for p, m in layers.items() if isinstance(m, Linear) and p not in head]

    def hits(target: str) -> list[str]:
        if isinstance(target_modules, str):
            try:
                return [p for p in layers if re.fullmatch(target, p)]
            except re.error as error:
                raise ValueError(
                    f"target_modules {target!r} is no regular expression: {error}"
                ) from error
        return [p for p in layers if p == target or p.endswith("." + target)]

    single = isinstance(target_modules, str)
    targets: list[str] = [target_modules] if single else list(target_modules)  # type: ignore[list-item]
    found: set[str] = set()
    for target in targets:
        matched = hits(target)
        if not matched:
            raise ValueError(
                f"target_modules: nothing is called {target!r}; the layers that can be "
                f"adapted are {', '.join(layers) or '(none)'}"
            )
        found.update(matched)
    return [p for p in layers if p in found]


def attach_lora(
    model: Module, config: LoraConfig, rng: np.random.Generator
) -> list[str]:
    """Freeze the model and put an adapter beside every target layer, in place.

    Returns the adapted paths.  rng draws the initial factors.
    Raises ValueError for an unknown target, RuntimeError if an adapter is attached.
    """
    if lora_layers(model):
        raise RuntimeError("an adapter is attached already; remove_lora(model) first")
    targets = find_targets(model, config.target_modules or [])
    layers = adaptable(model)
    if config.use_dora:
        for path in targets:
            if isinstance(layers[path], Embedding):
                raise ValueError(
                    f"use_dora is offered for linear layers, {path} is none"
                )
    if len({id(layers[path]) for path in targets}) != len(targets):
        raise ValueError(
            "target_modules: two paths are one and the same layer; an adapter on each "
            "would be added twice"
        )
    fitted = {path: _adapter(layers[path], config, rng) for path in targets}
    model.freeze()
    for path, layer in fitted.items():
        model.replace(path, layer)
        layer.training = model.training
        for p in (
            layer.lora_A,
            layer.lora_B,
            getattr(layer, "lora_magnitude_vector", None),
        ):
            if p is not None:
                p.requires_grad = True
    for name, p in model.named_parameters():
        if name.endswith("bias") and (
            config.bias == "all"
            or (config.bias == "lora_only" and "base_layer" in name)
        ):
            p.requires_grad = True
    model.lora_config = config  # type: ignore[attr-defined]
    model.bias_before = {  # type: ignore[attr-defined]
        n: p.data.copy() for n, p in model.trainable().items() if n.endswith("bias")
    }
    return targets


def _adapter(base: Module, config: LoraConfig, rng: np.random.Generator) -> LoraLayer:
    if isinstance(base, Embedding):
        return LoraEmbedding(
            base, config.r, config.lora_alpha, rng, config.use_rslora,
            config.init_lora_weights,
        )  # fmt: skip
    assert isinstance(base, Linear)
    return LoraLinear(
        base, config.r, config.lora_alpha, rng, config.lora_dropout,
        config.use_rslora, config.use_dora, config.init_lora_weights,
    )  # fmt: skip


def lora_layers(model: Module) -> dict[str, LoraLayer]:
    """The adapted layers by path; empty when no adapter is attached.

    >>> lora_layers(Linear(2, 2, np.random.default_rng(0)))
    {}
    """
    return {p: m for p, m in model.named_modules() if isinstance(m, LoraLayer)}


def _attached(model: Module) -> dict[str, LoraLayer]:
    layers = lora_layers(model)
    if not layers:
        raise RuntimeError(
            "no adapter is attached; attach_lora(model, config, rng) first"
        )
    return layers


def merge_lora(model: Module) -> None:
    """Merge every adapter into its base layer; the model computes the same, faster.

    All or none: if one merged weight would overflow its dtype, nothing is changed.
    """
    layers = _attached(model).values()
    merged = [layer.merged_weight() for layer in layers]  # all, before any is set
    for layer, weight in zip(layers, merged, strict=True):
        layer.merge(weight)


def unmerge_lora(model: Module) -> None:
    """Take every merged adapter out again (up to `lora.round_trip_bound`)."""
    for layer in _attached(model).values():
        layer.unmerge()


def remove_lora(model: Module, keep_merged: bool = False) -> None:
    """Take the adapters away and put the base layers back, all of them frozen.

    keep_merged=False: the base model as it was, trained biases set back; bit for bit
    unless it was merged in between (see `lora.round_trip_bound`).
    keep_merged=True: the merged model, as ordinary layers (PEFT: merge_and_unload);
    trained biases stay.
    """
    layers = _attached(model)
    apart = [layer for layer in layers.values() if not layer.merged]
    if keep_merged:
        weights = [layer.merged_weight() for layer in apart]
        for layer, weight in zip(apart, weights, strict=True):
            layer.merge(weight)
    for path, layer in layers.items():
        if layer.merged and not keep_merged:
            layer.unmerge()
        model.replace(path, layer.base_layer)
    if not keep_merged:
        own = dict(model.named_parameters())
        for name, before in model.bias_before.items():  # type: ignore[attr-defined]
            own[name.replace(".base_layer.", ".")].data[...] = before
    model.freeze()
    del model.lora_config, model.bias_before  # type: ignore[attr-defined]


def count_parameters(model: Module) -> tuple[int, int]:
    """(trainable, all) numbers in the model's parameters.

    >>> count_parameters(Linear(3, 2, np.random.default_rng(0)))
    (8, 8)
    """
    sizes = [(p.data.size, p.requires_grad) for p in model.parameters()]
    return sum(n for n, t in sizes if t), sum(n for n, _ in sizes)


def print_trainable_parameters(model: Module) -> None:
    """Print the share of parameters that is trained, in PEFT's words.

    >>> print_trainable_parameters(Linear(3, 2, np.random.default_rng(0)))
    trainable params: 8 || all params: 8 || trainable%: 100.0000
    """
    trained, total = count_parameters(model)
    print(
        f"trainable params: {trained:,} || all params: {total:,} || "
        f"trainable%: {100 * trained / max(1, total):.4f}"
    )
