"""adapt: LoRA, full fine-tuning or head-only on The Devil's Dictionary."""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lora_np.cli.common import add_common, base_model, natural, table
from lora_np.data import HERE, fixed_windows, random_windows, split_ids
from lora_np.files import check_writable, write_beside
from lora_np.lora import Memory, memory
from lora_np.models import GPT
from lora_np.nn import LoraConfig, attach_lora, print_trainable_parameters, save_adapter
from lora_np.nn.adapt import count_parameters
from lora_np.training import History, fine_tune, held_out_loss

HELP = "adapt the embedded model to The Devil's Dictionary"
EXAMPLE = """examples:
  python -m lora_np adapt --method lora --r 8 --steps 200 --out my_adapter
  python -m lora_np adapt --method full --lr 1e-3
  python -m lora_np adapt --search          (the learning-rate search that is recorded)
"""
SEARCH = HERE / "learning_rates.json"
METHODS = ("lora", "full", "head")
STEPS, BATCH, TIME = 60, 8, 128
TARGETS = "all-linear"


@dataclass
class Outcome:
    """One method's run: what was trained, how long a step took, the losses."""

    method: str
    model: GPT
    history: History
    lr: float
    trainable: int
    memory: Memory
    new_text: tuple[float, float]  # held-out loss before and after
    old_text: tuple[float, float]

    @property
    def seconds(self) -> float:
        """Median seconds a step."""
        return float(np.median(self.history.seconds)) if self.history.seconds else 0.0


def prepare(model: GPT, method: str, config: LoraConfig, seed: int) -> None:
    """Freeze what the method does not train.

    Raises ValueError for another method.
    """
    if method == "lora":
        attach_lora(model, config, np.random.default_rng([seed, 1]))
    elif method == "head":
        model.untie()
        model.freeze()
        assert model.lm_head is not None
        model.lm_head.weight.requires_grad = True
    elif method != "full":
        raise ValueError(f"method must be one of {METHODS}, got {method!r}")


def held_out_sets() -> dict[str, list]:
    """The same held-out windows for every method: new text and old text."""
    return {
        "new": fixed_windows(split_ids("devil")[1], 32, TIME),
        "old": fixed_windows(split_ids("bible")[1], 32, TIME),
    }


def adapt(
    method: str, lr: float, steps: int = STEPS, seed: int = 0, backend: str = "numpy",
    config: LoraConfig | None = None, before: tuple[float, float] | None = None,
) -> Outcome:  # fmt: skip
    """Adapt the embedded model by one method; the data depend on the seed alone.

    before: held-out losses of the base (new, old), computed when not given.
    """
    config = config or LoraConfig(r=8, lora_alpha=16, target_modules=TARGETS)
    model = base_model(backend)
    sets = held_out_sets()
    if before is None:
        before = (held_out_loss(model, sets["new"]), held_out_loss(model, sets["old"]))
    prepare(model, method, config, seed)
    training, _ = split_ids("devil")
    history = fine_tune(
        model, lambda rng: random_windows(training, BATCH, TIME, rng), steps, lr, seed,
        label=method,
    )  # fmt: skip
    trainable, total = count_parameters(model)
    after = held_out_loss(model, sets["new"]), held_out_loss(model, sets["old"])
    return Outcome(
        method, model, history, lr, trainable, memory(total - trainable, trainable),
        (before[0], after[0]), (before[1], after[1]),
    )  # fmt: skip


def recorded_rates() -> dict[str, float]:
    """The best learning rate of each method in the recorded search.

    >>> sorted(recorded_rates())
    ['full', 'head', 'lora']
    """
    found = json.loads(SEARCH.read_text("utf-8"))["held_out_loss"]
    return {m: float(min(by_lr, key=by_lr.get)) for m, by_lr in found.items()}


def search(seed: int, path: Path = SEARCH) -> int:
    """Every method at the same learning rates and steps; writes and prints the losses.

    The best rate of every method must lie inside the grid, not at its edge.
    """
    grid = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
    losses: dict[str, dict[str, float]] = {}
    for method in METHODS:
        losses[method] = {}
        for lr in grid:
            done = adapt(method, lr, seed=seed + 1)  # not the seed that is reported
            losses[method][f"{lr:g}"] = round(done.new_text[1], 4)
    content = {
        "command": "python -m lora_np adapt --search",
        "steps": STEPS,
        "batch": BATCH,
        "time": TIME,
        "seed": seed + 1,
        "held_out_loss": losses,
    }
    write_beside(path, (json.dumps(content, indent=2) + "\n").encode())
    rows = [["method", *(f"{lr:g}" for lr in grid)]]
    rows += [[m, *(f"{v:.3f}" for v in by.values())] for m, by in losses.items()]
    print(table(rows))
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `adapt`; names as in PEFT."""
    add_common(parser)
    parser.add_argument("--method", choices=METHODS, default="lora", help="(lora)")
    parser.add_argument("--steps", type=natural, default=STEPS, help=f"({STEPS})")
    parser.add_argument("--lr", type=float, help="learning rate (the recorded one)")
    parser.add_argument("--r", type=int, default=8, help="rank (8)")
    parser.add_argument("--lora-alpha", type=float, default=16, help="α (16)")
    parser.add_argument("--lora-dropout", type=float, default=0.0, help="(0)")
    parser.add_argument("--target-modules", nargs="+", default=[TARGETS],
                        help="layer names, or all-linear (all-linear)")  # fmt: skip
    parser.add_argument("--bias", choices=("none", "lora_only", "all"), default="none")
    parser.add_argument("--use-rslora", action="store_true", help="s = α/√r")
    parser.add_argument(
        "--use-dora", action="store_true", help="magnitude and direction"
    )
    parser.add_argument("--out", help="folder for the adapter (PEFT's files)")
    parser.add_argument("--search", action="store_true",
                        help="run the learning-rate search and record it")  # fmt: skip


ONLY_LORA = {
    "r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "bias": "none",
    "target_modules": [TARGETS], "use_rslora": False, "use_dora": False,
}  # fmt: skip


def check_options(options: argparse.Namespace) -> None:
    """Raise ValueError for options that would be ignored, OSError for a bad --out."""
    changed = [k for k, v in ONLY_LORA.items() if getattr(options, k) != v]
    changed += ["out"] if options.out else []
    if options.method != "lora" and changed:
        raise ValueError(
            f"--{changed[0].replace('_', '-')} is an option of --method lora; only "
            f"--method lora has an adapter, --method {options.method} has none"
        )
    if options.out is not None:
        if not options.out:
            raise ValueError("--out is empty: name a folder")
        check_writable(options.out)


def run(options: argparse.Namespace) -> int:
    """Adapt, print the losses, save."""
    if options.search:
        return search(options.seed)
    check_options(options)
    chosen = {k: getattr(options, k) for k in ONLY_LORA}
    if chosen["target_modules"] == [TARGETS]:
        chosen["target_modules"] = TARGETS
    config = LoraConfig(**chosen)
    lr = options.lr if options.lr is not None else recorded_rates()[options.method]
    done = adapt(
        options.method, lr, options.steps, options.seed, options.backend, config
    )
    print_trainable_parameters(done.model)
    print(f"lr {lr:g}, {options.steps} steps of {BATCH} x {TIME} bytes, "
          f"{1000 * done.seconds:.0f} ms a step")  # fmt: skip
    print("held-out loss, nats a byte: new text {:.3f} -> {:.3f}, old text {:.3f} -> "
          "{:.3f}".format(*done.new_text, *done.old_text))  # fmt: skip
    if options.out:
        save_adapter(done.model, options.out, "lora_np/data/base.safetensors")
        print(f"adapter saved in {options.out}")
    return 0
