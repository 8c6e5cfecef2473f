"""The main job: certify, adapt three ways, sample, merge, save, draw."""

import argparse
import time
from pathlib import Path

import numpy as np

from lora_np.cli.adapt import (
    METHODS,
    Outcome,
    adapt,
    held_out_sets,
    prepare,
    recorded_rates,
)
from lora_np.cli.check import certify_pair, report
from lora_np.cli.common import add_common, base_model, heading, table
from lora_np.cli.figures import draw_all
from lora_np.data import decode, encode, split_ids
from lora_np.files import check_writable
from lora_np.graph import no_grad
from lora_np.models import GPT
from lora_np.nn import load_adapter, merge_lora, remove_lora, save_adapter, unmerge_lora
from lora_np.reference import PAIRS
from lora_np.training import generate, held_out_loss

EXAMPLE = """examples:
  python -m lora_np                     the main job, about a minute
  python -m lora_np --out /tmp/try      the same, files elsewhere
  python -m lora_np check --help        every subcommand has help with an example
"""
PROMPT = "LOVE, n. "
MERGE_64, MERGE_32 = 1e-12, 1e-4  # of the largest logit; float32 rounds at 6e-8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the main job."""
    add_common(parser)
    parser.add_argument("--out", default=".",
                        help="folder that gets figures/ and adapter/ (.)")  # fmt: skip


def run(options: argparse.Namespace) -> int:
    """0 when everything certified and every equality held, else 1."""
    began, faults = time.perf_counter(), []
    base = base_model(options.backend)  # fail early when a backend is missing,
    check_writable(options.out)  # or a folder cannot be written

    heading("1. Certify: every hand-derived gradient against three witnesses")
    rows = {p.name: certify_pair(p, options.seed, 2) for p in PAIRS}
    if report(rows):
        faults.append("certification")

    heading("2. Adapt: a model of the Bible learns The Devil's Dictionary")
    sets = held_out_sets()
    before = (held_out_loss(base, sets["new"]), held_out_loss(base, sets["old"]))
    rates = recorded_rates()
    outcomes = [
        adapt(m, rates[m], seed=options.seed, backend=options.backend, before=before)
        for m in METHODS
    ]
    print(outcome_table(outcomes))

    heading(f"3. Sample: what follows {PROMPT!r}, before and after LoRA")
    lora = outcomes[METHODS.index("lora")]
    for label, model in (("before", base), ("after", lora.model)):
        print(f"[{label}] {sample(model, options.seed)}\n")

    heading("4. Merge: the same logits, with the update inside the weights")
    faults += check_merge(lora, options)

    heading("5. Save")
    faults += check_saved(lora, Path(options.out) / "adapter", options.backend)

    heading("6. Figures")
    for line in draw_all(Path(options.out) / "figures", rows, outcomes):
        print(line)
    verdict = f"FAILED: {', '.join(faults)}" if faults else "everything agrees"
    print(f"\n{verdict} ({time.perf_counter() - began:.0f} s)")
    return 1 if faults else 0


def outcome_table(outcomes: list[Outcome]) -> str:
    """Parameters, bytes, time and losses of every method, side by side."""
    lines = [["method", "trained", "state MB", "checkpoint MB", "lr", "ms/step",
              "new text", "old text"]]  # fmt: skip
    for o in outcomes:
        state = o.memory.gradients + o.memory.optimizer
        lines.append(
            [
                o.method,
                f"{o.trainable:,}",
                f"{state / 1e6:.2f}",
                f"{o.memory.checkpoint / 1e6:.2f}",
                f"{o.lr:g}",
                f"{1000 * o.seconds:.0f}",
                "{:.3f} -> {:.3f}".format(*o.new_text),
                "{:.3f} -> {:.3f}".format(*o.old_text),
            ]
        )
    note = (
        "state: gradients and AdamW's moments. Losses: held-out, nats a byte; the old "
        "text shows forgetting."
    )
    return table(lines, right=range(1, 8)) + "\n" + note


def sample(model: GPT, seed: int, length: int = 160) -> str:
    """A sampled continuation of the prompt; the same seed before and after."""
    ids = generate(model, encode(PROMPT), length, np.random.default_rng(seed), 0.7,
                   top_p=0.95)  # fmt: skip
    return decode(ids).replace("\n", "\n         ")


def _logits(model: GPT, ids: np.ndarray) -> np.ndarray:
    from lora_np.backend import to_host

    with no_grad():
        return to_host(model.eval().logits(ids).data)


def check_merge(lora: Outcome, options: argparse.Namespace) -> list[str]:
    """Largest difference of logits before and after merging, in float32 and float64."""
    ids = split_ids("devil")[1][:512].reshape(4, 128)
    wide = base_model(options.backend, np.float64)
    prepare(wide, "lora", lora.model.lora_config, options.seed)  # type: ignore[attr-defined]
    wide.load_state_dict(lora.model.state_dict())
    faults = []
    for name, model, limit in (("float32", lora.model, MERGE_32),
                               ("float64", wide, MERGE_64)):  # fmt: skip
        apart = _logits(model, ids)
        merge_lora(model)
        merged = _logits(model, ids)
        unmerge_lora(model)
        back = _logits(model, ids)
        top = float(np.abs(apart).max())
        for what, got in (("merged", merged), ("unmerged again", back)):
            error = float(np.abs(got - apart).max())
            print(f"{name} {what}: largest difference {error:.1e}, largest logit "
                  f"{top:.1f}, allowed {limit * top:.1e}")  # fmt: skip
            if not error <= limit * top:
                faults.append(f"{what} in {name}")
    return faults


def check_saved(lora: Outcome, folder: Path, backend: str) -> list[str]:
    """Save, load into a fresh base, compare logits bit for bit."""
    save_adapter(lora.model, folder, "lora_np/data/base.safetensors")
    fresh = base_model(backend)
    load_adapter(fresh, folder)
    ids = split_ids("devil")[1][:256].reshape(2, 128)
    # the trained model's base went through merge and unmerge, so give both the same one
    reference = base_model(backend)
    prepare(reference, "lora", lora.model.lora_config, 0)  # type: ignore[attr-defined]
    trained = lora.model.trainable()
    for name, p in reference.trainable().items():
        p.data = trained[name].data
    same = np.array_equal(_logits(fresh, ids), _logits(reference, ids))
    bits = sum(f.stat().st_size for f in folder.iterdir())
    print(
        f"{folder}: adapter_config.json and adapter_model.safetensors, {bits:,} bytes; "
        f"loaded again the logits are {'the same bit for bit' if same else 'DIFFERENT'}"
    )
    remove_lora(fresh)
    return [] if same else ["saved adapter"]
