"""figures: draw every committed figure again."""

import argparse
from pathlib import Path

import numpy as np

from lora_np.cli.adapt import METHODS, Outcome, adapt, recorded_rates
from lora_np.cli.check import certify_pair, largest_errors
from lora_np.cli.common import natural
from lora_np.nn import lora_layers
from lora_np.reference import PAIRS
from lora_np.training.planted import loss_for_rank

HELP = "draw every committed figure again"
EXAMPLE = """examples:
  python -m lora_np figures
  python -m lora_np figures --out somewhere     (writes somewhere/figures/*.png)
"""
RANKS, TRUE_RANK = (1, 2, 3, 4, 6, 8, 12), 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `figures`."""
    parser.add_argument("--out", default=".", help="folder that gets figures/ (.)")
    parser.add_argument("--seed", type=natural, default=0, help="(0)")


def run(options: argparse.Namespace) -> int:
    """Compute what the figures show, then draw them."""
    rows = {p.name: certify_pair(p, options.seed, 4) for p in PAIRS}
    rates = recorded_rates()
    outcomes = [adapt(m, rates[m], seed=options.seed) for m in METHODS]
    for path in draw_all(Path(options.out) / "figures", rows, outcomes):
        print(path)
    return 0


def draw_all(folder: Path, rows: dict, outcomes: list[Outcome]) -> list[str]:
    """Save the five figures; returns a line for each ("path" or "path (unchanged)")."""
    from lora_np import plots

    lora = next(o for o in outcomes if o.method == "lora")
    held_out = {"base": (lora.new_text[0], lora.old_text[0])}
    held_out |= {o.method: (o.new_text[1], o.old_text[1]) for o in outcomes}
    made = {
        "certification": plots.certification_errors(largest_errors(rows)),
        "loss_curves": plots.loss_curves(
            {o.method: o.history.loss for o in outcomes}, held_out
        ),
        "loss_against_rank": plots.loss_against_rank(RANKS, rank_losses(), TRUE_RANK),
        "memory": plots.memory_bars(
            {
                o.method: {
                    "weights": o.memory.weights,
                    "gradients": o.memory.gradients,
                    "optimizer state": o.memory.optimizer,
                    "checkpoint": o.memory.checkpoint,
                }
                for o in outcomes
            },
            {o.method: o.trainable for o in outcomes},
        ),
        "singular_values": plots.singular_values(
            update_spectra(lora), r=lora_rank(lora)
        ),
    }
    lines = []
    for name, figure in made.items():
        path = folder / f"{name}.png"
        lines.append(f"{path}{'' if plots.save(figure, path) else ' (unchanged)'}")
    return lines


def rank_losses(seeds: int = 2) -> dict[str, list[float]]:
    """Loss against r on the planted-rank teacher, for a little and for much noise."""
    return {
        f"noise {noise:g}": [
            float(np.mean([loss_for_rank(r, s, noise=noise) for s in range(seeds)]))
            for r in RANKS
        ]
        for noise in (0.1, 0.3)
    }


def lora_rank(outcome: Outcome) -> int:
    """The rank of the outcome's adapter."""
    return next(iter(lora_layers(outcome.model).values())).r


def update_spectra(outcome: Outcome) -> dict[str, np.ndarray]:
    """Singular values of ΔW for the layers of the first and the last block."""
    layers = lora_layers(outcome.model)
    blocks = sorted({path.split(".")[1] for path in layers}, key=int)
    chosen = [p for p in layers if p.split(".")[1] in (blocks[0], blocks[-1])
              and (p.endswith("c_attn") or p.endswith("c_fc"))]  # fmt: skip
    return {p: np.linalg.svd(layers[p].delta(), compute_uv=False) for p in chosen}
