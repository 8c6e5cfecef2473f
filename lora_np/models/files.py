"""A model as one safetensors file: weights, and its configuration in the metadata."""

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import safetensors

from lora_np.files.weights import load_tensors, save_tensors
from lora_np.models.gpt import GPT, GPTConfig


def save_model(model: GPT, path: str | Path, dtype: type = np.float32) -> None:
    """Write weights (rounded to `dtype`) and configuration, whole or not at all.

    Raises OSError, or ValueError for weights that `dtype` cannot hold.
    """
    if any("lora_" in name for name, _ in model.named_parameters()):
        raise ValueError(
            "an adapter is attached: save it with save_adapter, or merge it into the "
            "model with remove_lora(model, keep_merged=True) first"
        )
    with np.errstate(over="ignore"):  # an overflow is reported below, by name
        state: dict[str, np.ndarray] = {
            n: a.astype(dtype) for n, a in model.state_dict().items()
        }
    for name, array in state.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} is not finite as {np.dtype(dtype)}; not saved")
    save_tensors(path, state, {"config": json.dumps(model.config.as_dict())})


def load_model(path: str | Path, dtype: type = np.float32) -> GPT:
    """The model of a file written by `save_model`, in `dtype`.

    Raises FileNotFoundError, ValueError (corrupt, or no configuration), KeyError.
    """
    state = load_tensors(path)
    with safetensors.safe_open(str(path), "numpy") as file:
        raw = (file.metadata() or {}).get("config")
    if raw is None:
        raise ValueError(f"{path} has no model configuration in its metadata")
    known = {f.name for f in fields(GPTConfig)}
    try:
        given = json.loads(raw)
        config = GPTConfig(**{k: v for k, v in given.items() if k in known})
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: the model configuration is broken: {error}"
        ) from error
    wte = state.get("wte.weight")
    if wte is None or wte.shape != (config.vocab_size, config.n_embd):
        raise ValueError(f"{path}: weights and configuration are of different models")
    model = GPT(config, np.random.default_rng(0), dtype)  # every value is replaced
    model.load_state_dict(state)
    return model
