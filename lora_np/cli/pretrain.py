"""pretrain: make the embedded base model again from the committed text."""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from lora_np.cli.common import natural
from lora_np.data import HERE, fixed_windows, random_windows, split_ids
from lora_np.files import check_writable, write_beside
from lora_np.models import GPT, GPTConfig, load_model, save_model
from lora_np.training import AdamW, TrainOptions, held_out_loss, train, warmup_cosine

HELP = "make the embedded base model again (about ten minutes)"
EXAMPLE = """examples:
  python -m lora_np pretrain --out base.safetensors
  python -m lora_np pretrain --steps 50 --out /tmp/quick.safetensors   (a short try)
"""
RECORD = HERE / "base.json"
STEPS, BATCH, TIME, LR = 6000, 4, 128, 3e-3
CONFIG = GPTConfig(initializer_range=0.06)
TOLERANCE = 0.02  # nats: what another processor's rounding may change


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `pretrain`."""
    parser.add_argument("--out", default="base.safetensors", help="(base.safetensors)")
    parser.add_argument("--steps", type=natural, default=STEPS, help=f"({STEPS})")
    parser.add_argument("--seed", type=natural, default=0, help="(0)")
    parser.add_argument(
        "--record",
        action="store_true",
        help="write the held-out loss into the record of the package",
    )


def pretrain(steps: int, seed: int) -> GPT:
    """Train a fresh model on the Bible text; matrices decay, vectors do not."""
    model = GPT(CONFIG, np.random.default_rng(seed))
    parameters = model.parameters()
    groups = [
        {"params": [p for p in parameters if len(p.shape) > 1], "weight_decay": 0.1},
        {"params": [p for p in parameters if len(p.shape) < 2], "weight_decay": 0.0},
    ]
    optimizer = AdamW(groups, lr=LR, betas=(0.9, 0.98))
    training, _ = split_ids("bible")
    options = TrainOptions(
        steps, seed=seed, label="pretraining",
        schedule=lambda s: warmup_cosine(s, steps, steps // 20, 0.05),
    )  # fmt: skip
    train(
        model,
        optimizer,
        lambda rng: random_windows(training, BATCH, TIME, rng),
        options,
    )
    return model


def held_out(model: GPT) -> float:
    """Loss on 2 Kings, nats a byte: 256 windows of 128."""
    return held_out_loss(model, fixed_windows(split_ids("bible")[1], 256, TIME))


def run(options: argparse.Namespace) -> int:
    """Train, save as float16, compare the held-out loss with the record."""
    began = time.perf_counter()
    check_writable(Path(options.out).resolve().parent)
    model = pretrain(options.steps, options.seed)
    save_model(model, options.out, np.float16)
    loss = held_out(load_model(options.out))
    print(
        f"{options.steps} steps in {time.perf_counter() - began:.0f} s; held-out loss "
        f"{loss:.4f} nats a byte; saved {options.out}"
    )
    if options.record:
        record = {"held_out_loss": round(loss, 4), "steps": options.steps,
                  "seed": options.seed, "tolerance": TOLERANCE,
                  "command": "python -m lora_np pretrain"}  # fmt: skip
        write_beside(RECORD, (json.dumps(record, indent=2) + "\n").encode())
        return 0
    recorded = json.loads(RECORD.read_text("utf-8"))
    if options.steps != recorded["steps"]:
        print(f"(the record is for {recorded['steps']} steps; not compared)")
        return 0
    difference = abs(loss - recorded["held_out_loss"])
    print(f"recorded {recorded['held_out_loss']:.4f}, difference {difference:.4f}, "
          f"allowed {TOLERANCE}")  # fmt: skip
    return 0 if difference <= TOLERANCE else 1
