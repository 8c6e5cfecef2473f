"""Adapters in PEFT's own files: adapter_config.json and adapter_model.safetensors.

Keys are base_model.model.<path>.lora_A.weight (r, in), .lora_B.weight (out, r),
.lora_embedding_A (r, vocabulary), .lora_embedding_B (dim, r), .lora_magnitude_vector;
trained biases as base_model.model.<path>.bias. The adapter's name is not in the keys.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from lora_np.backend import get_xp, to_host
from lora_np.files.weights import load_tensors, save_tensors, write_beside
from lora_np.nn.adapt import attach_lora, lora_layers, remove_lora
from lora_np.nn.config import LoraConfig
from lora_np.nn.lora_layers import LoraEmbedding
from lora_np.nn.module import Module, Parameter

PREFIX = "base_model.model."
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_IGNORED = {"peft_type": "LORA", "task_type": None, "inference_mode": True,
            "fan_in_fan_out": False, "base_model_name_or_path": None}  # fmt: skip
# Keys of PEFT that say nothing about the computation of a finished adapter. Any other
# unknown key that is switched on might change it, and is refused.
_HARMLESS = set(_IGNORED) | {
    "auto_mapping", "revision", "peft_version", "megatron_core", "megatron_config",
    "loftq_config", "runtime_config", "qalora_group_size", "eva_config",
    "corda_config", "lora_ga_config",
}  # fmt: skip


def adapter_parameters(model: Module) -> dict[str, Parameter]:
    """What an adapter file holds, under PEFT's keys."""
    found: dict[str, Parameter] = {}
    for path, layer in lora_layers(model).items():
        embedding = isinstance(layer, LoraEmbedding)
        ends = ("lora_embedding_A", "lora_embedding_B") if embedding else (
            "lora_A.weight", "lora_B.weight")  # fmt: skip
        found[f"{PREFIX}{path}.{ends[0]}"] = layer.lora_A
        found[f"{PREFIX}{path}.{ends[1]}"] = layer.lora_B
        magnitude = getattr(layer, "lora_magnitude_vector", None)
        if magnitude is not None:
            found[f"{PREFIX}{path}.lora_magnitude_vector"] = magnitude
    for name, p in model.trainable().items():
        if name.endswith("bias"):
            found[PREFIX + name] = p
    return found


def save_adapter(
    model: Module, folder: str | Path, base_model_name: str | None = None
) -> None:
    """Write the adapter into `folder`; PEFT reads the files as they are.

    The weights are written first, the configuration last, each whole or not at all.
    Raises RuntimeError without an adapter, OSError when the disk refuses.
    """
    config = getattr(model, "lora_config", None)
    if config is None:
        raise RuntimeError("no adapter is attached, so there is nothing to save")
    content = {**_IGNORED, **asdict(config), "base_model_name_or_path": base_model_name}
    content["target_modules"] = list(
        lora_layers(model)
    )  # resolved, as PEFT writes them
    tensors = {k: to_host(p.data) for k, p in adapter_parameters(model).items()}
    save_tensors(Path(folder) / WEIGHTS, tensors, {"format": "pt"})
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    write_beside(Path(folder) / CONFIG, text.encode())


def read_config(folder: str | Path) -> LoraConfig:
    """The LoraConfig of an adapter folder.

    Raises FileNotFoundError, ValueError for broken JSON, for another method than LoRA,
    or for PEFT options that change the result and are not offered here.
    """
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no adapter: {CONFIG} is missing")
    try:
        raw = json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(raw, Mapping) or raw.get("peft_type") != "LORA":
        kind = raw.get("peft_type") if isinstance(raw, Mapping) else type(raw).__name__
        raise ValueError(f"{path} describes {kind!r}, expected peft_type 'LORA'")
    own = {f.name for f in fields(LoraConfig)}
    for key, value in raw.items():
        off = (
            value is None
            or value is False
            or (isinstance(value, dict | list | str) and not value)
        )
        if key not in own | _HARMLESS and not off:
            raise ValueError(
                f"{path} sets {key} = {value!r}, which is not offered here and may "
                "change what the adapter computes"
            )
    given = {k: v for k, v in raw.items() if k in own}
    try:
        if isinstance(given.get("target_modules"), list):
            given["target_modules"] = sorted(given["target_modules"])
        return LoraConfig(**given)
    except TypeError as error:
        raise ValueError(f"{path}: {error}") from error


def load_adapter(model: Module, folder: str | Path) -> LoraConfig:
    """Attach the adapter that `folder` holds; returns its configuration.

    Raises ValueError for a corrupt file, KeyError that lists missing, unexpected and
    wrongly shaped keys; the model is then as it was.
    """
    config = read_config(folder)
    tensors = load_tensors(Path(folder) / WEIGHTS)
    largest = max((max(a.shape, default=0) for a in tensors.values()), default=0)
    if config.r > largest:  # before memory for such an r is asked for
        raise ValueError(
            f"{folder}: the configuration says r = {config.r}, the weights have no "
            f"axis longer than {largest}"
        )
    trainable = {n: p.requires_grad for n, p in model.named_parameters()}
    attach_lora(
        model, config, np.random.default_rng(0)
    )  # every drawn value is replaced
    try:
        _fill(adapter_parameters(model), tensors, Path(folder) / WEIGHTS)
    except KeyError:
        remove_lora(model)
        for name, p in model.named_parameters():
            p.requires_grad = trainable[name]
        raise
    return config


def _fill(own: dict[str, Parameter], tensors: dict[str, Any], path: Path) -> None:
    missing, extra = sorted(set(own) - set(tensors)), sorted(set(tensors) - set(own))
    shapes = [
        f"{k} is {tensors[k].shape}, the model wants {p.shape}"
        for k, p in own.items()
        if k in tensors and tensors[k].shape != p.shape
    ]
    lists = (("missing", missing), ("unexpected", extra), ("shape", shapes))
    wrong = [f"{kind}: {', '.join(names)}" for kind, names in lists if names]
    wrong += [
        f"not finite: {k}" for k, a in tensors.items() if not np.isfinite(a).all()
    ]
    if wrong:
        raise KeyError(f"{path} does not fit the model; {'; '.join(wrong)}")
    for k, p in own.items():
        p.data = get_xp(p.data).asarray(tensors[k], dtype=p.dtype)
