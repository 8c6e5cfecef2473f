"""A training run on disk: weights, optimizer and history, to go on bit for bit."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from lora_np.files.weights import load_tensors, save_tensors
from lora_np.nn.module import Module
from lora_np.training.loop import History
from lora_np.training.optim import Optimizer


def save_training(
    path: str | Path, model: Module, optimizer: Optimizer, history: History
) -> None:
    """Write one file with weights, optimizer state and history.

    The data and masks of a step depend on (seed, step) alone, so no generator is saved;
    rates, schedule and seed are the caller's to give again.
    Raises OSError when the disk refuses (the file of before is then still there),
    RuntimeError while an adapter is merged.
    """
    for _, module in model.named_modules():
        module.before_load()
    text = json.dumps(asdict(history)).encode()
    save_tensors(
        path,
        {f"model.{n}": a for n, a in model.state_dict().items()}
        | {f"optimizer.{n}": a for n, a in optimizer.state_dict().items()}
        | {"history": np.frombuffer(text, np.uint8)},
    )


def load_training(path: str | Path, model: Module, optimizer: Optimizer) -> History:
    """Set model and optimizer as they were; returns the history so far.

    Raises FileNotFoundError, ValueError (corrupt), KeyError (another model or
    optimizer).
    """
    tensors = load_tensors(path)
    if "history" not in tensors:
        raise ValueError(f"{path} is no training checkpoint (it has no history)")

    def part(prefix: str) -> dict[str, np.ndarray]:
        return {k[len(prefix) :]: a for k, a in tensors.items() if k.startswith(prefix)}

    model.load_state_dict(part("model."))
    optimizer.load_state_dict(part("optimizer."))
    try:
        raw = json.loads(tensors["history"].tobytes())
        raw["held_out"] = [(int(s), float(v)) for s, v in raw["held_out"]]
        return History(**raw)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: the history in it is broken: {error}") from error
