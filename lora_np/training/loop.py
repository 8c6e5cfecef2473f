"""The training loop: accumulate, clip, step; look at held-out loss; stop at NaN.

A step's data and dropout masks are drawn from a generator made of (seed, step), so a
run that was interrupted and resumed draws what the uninterrupted one would have drawn.
"""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lora_np.backend import Array, to_host
from lora_np.functional.cross_entropy import IGNORE
from lora_np.graph import no_grad
from lora_np.nn.adapt import lora_layers
from lora_np.nn.module import Module
from lora_np.training.allocator import tune_allocator
from lora_np.training.optim import Optimizer
from lora_np.training.schedule import clip_grad_norm

Batch = tuple[Array, Array]  # inputs as the model's `loss` wants them, and targets
Draw = Callable[[np.random.Generator], Batch]


@dataclass
class History:
    """What happened, a list entry a step; `held_out` as (step, loss) pairs."""

    loss: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class TrainOptions:
    """Options of `train`. schedule: step -> factor of the initial learning rates.

    max_grad_norm: None for no clipping. save_to: a file written every `save_every`
    steps (0: never in between) and at the end.
    """

    steps: int
    seed: int = 0
    accumulate: int = 1
    max_grad_norm: float | None = 1.0
    schedule: Callable[[int], float] | None = None
    evaluate: Callable[[], float] | None = None
    evaluate_every: int = 0
    save_to: str | Path | None = None
    save_every: int = 0
    label: str = "training"

    def __post_init__(self) -> None:
        if self.steps < 0 or self.accumulate < 1:
            raise ValueError("steps must be 0 or more and accumulate 1 or more, got "
                             f"{self.steps} and {self.accumulate}")  # fmt: skip


def step_rng(seed: int, step: int) -> np.random.Generator:
    """The generator of one step: the same whenever that step is run.

    >>> int(step_rng(0, 3).integers(100)) == int(step_rng(0, 3).integers(100))
    True
    """
    return np.random.default_rng([seed, step])


def counted(target: Array) -> int:
    """How many positions count (are not -100).

    >>> counted(np.array([1, -100, 3]))
    2
    """
    return int((to_host(target) != IGNORE).sum())


def accumulate_gradients(
    model: Module, batches: list[Batch], rng: np.random.Generator | None
) -> tuple[float, int]:
    """Gradients of the mean loss over all counted tokens of all micro-batches.

    Each micro-batch contributes its summed loss over the *common* number of tokens: the
    mean of the means would weight tokens of short micro-batches more.
    Returns (loss, tokens).  Raises ValueError when nothing counts.
    """
    total = sum(counted(target) for _, target in batches)
    if total == 0:
        raise ValueError("no position of the batch counts: every target is -100")
    loss = 0.0
    for ids, target in batches:
        part = model.loss(ids, target, "sum", rng) * (1.0 / total)
        loss += float(to_host(part.data))
        part.backward()
        del part
    return loss, total


def find_not_finite(model: Module) -> str:
    """Which parameter, or whose gradient, is not finite; for the error message."""
    for what in ("gradient", "value"):
        for name, p in model.named_parameters():
            array = p.grad if what == "gradient" else p.data
            if array is not None and not np.isfinite(to_host(array)).all():
                return f"the {what} of {name}"
    return "the loss alone (an input or a target?)"


def train(
    model: Module,
    optimizer: Optimizer,
    draw: Draw,
    options: TrainOptions,
    history: History | None = None,
) -> History:
    """Train until `options.steps` steps are done, those of before included.

    draw(rng) gives one micro-batch. The bar is silent when stderr is no terminal.
    Switches the allocator's settings (`tune_allocator`).
    Raises FloatingPointError that names the step and the parameter when the loss or a
    gradient is not finite; the weights are then those before that step.
    """
    from lora_np.training.state import save_training

    if any(layer.merged for layer in lora_layers(model).values()):
        raise RuntimeError("the adapter is merged; unmerge_lora(model) before training")
    tune_allocator()
    history = history if history is not None else History()
    was_training = model.training
    model.train()
    quiet = not sys.stderr.isatty()
    bar = tqdm(total=options.steps, initial=optimizer.steps, desc=options.label,
               disable=quiet, leave=False)  # fmt: skip
    try:
        while optimizer.steps < options.steps:
            _one_step(model, optimizer, draw, options, history)
            done = optimizer.steps
            if options.evaluate and options.evaluate_every and (
                done % options.evaluate_every == 0 or done == options.steps
            ):  # fmt: skip
                history.held_out.append((done, float(options.evaluate())))
                model.train()
            due = options.save_every and done % options.save_every == 0
            if options.save_to and (due or done == options.steps):
                save_training(options.save_to, model, optimizer, history)
            bar.set_postfix(loss=f"{history.loss[-1]:.3f}", refresh=False)
            bar.update()
    finally:
        bar.close()
        model.train(was_training)
    return history


def _one_step(
    model: Module, optimizer: Optimizer, draw: Draw, options: TrainOptions, h: History
) -> None:
    began, step = time.perf_counter(), optimizer.steps
    rng = step_rng(options.seed, step)
    optimizer.zero_grad()
    batches = [draw(rng) for _ in range(options.accumulate)]
    loss, tokens = accumulate_gradients(model, batches, rng)
    limit = math.inf if options.max_grad_norm is None else options.max_grad_norm
    norm = clip_grad_norm(optimizer.parameters(), limit)
    if not (math.isfinite(loss) and math.isfinite(norm)):
        where = find_not_finite(model)
        optimizer.zero_grad()
        raise FloatingPointError(
            f"step {step + 1}: the loss is {loss}, and not finite is {where}; the "
            "weights are those before this step. Lower the learning rate, or look at "
            "the data of this step"
        )
    if options.schedule is not None:
        optimizer.scale_lr(options.schedule(step))
    optimizer.step()
    h.loss.append(loss)
    h.lr.append(float(optimizer.groups[0]["lr"]))
    h.grad_norm.append(norm)
    h.tokens.append(tokens)
    h.seconds.append(time.perf_counter() - began)


def held_out_loss(model: Module, batches: list[Batch]) -> float:
    """Mean loss in nats over all counted tokens, in evaluation mode, without a graph.

    Raises ValueError when nothing counts.
    """
    was_training = model.training
    model.eval()
    total, tokens = 0.0, 0
    try:
        with no_grad():
            for ids, target in batches:
                n = counted(target)
                if n:
                    total += float(to_host(model.loss(ids, target, "sum").data))
                tokens += n
    finally:
        model.train(was_training)
    if tokens == 0:
        raise ValueError("the held-out set has no position that counts")
    return total / tokens
