"""generate: sample text from the embedded model, with or without an adapter."""

import argparse

import numpy as np

from lora_np.cli.common import add_common, base_model, natural
from lora_np.data import decode, encode
from lora_np.nn import load_adapter, merge_lora
from lora_np.training import generate

HELP = "sample text from the embedded model"
EXAMPLE = """examples:
  python -m lora_np generate --prompt "In the beginning"
  python -m lora_np generate --adapter my_adapter --prompt "LOVE, n. " --temperature 0.7
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `generate`."""
    add_common(parser)
    parser.add_argument(
        "--prompt", default="In the beginning", help="text to go on from"
    )
    parser.add_argument("--adapter", help="folder of an adapter in PEFT's format")
    parser.add_argument(
        "--max-new-tokens", type=natural, default=200, help="bytes (200)"
    )
    parser.add_argument(
        "--temperature", type=float, default=0.7, help="0 is greedy (0.7)"
    )
    parser.add_argument("--top-k", type=int, help="only the k likeliest")
    parser.add_argument("--top-p", type=float, help="only the likeliest up to p in sum")


def run(options: argparse.Namespace) -> int:
    """Print the prompt and what follows."""
    model = base_model(options.backend)
    if options.adapter:
        load_adapter(model, options.adapter)
        merge_lora(model)
    if not options.prompt:
        raise ValueError(
            "--prompt is empty: the model needs at least one byte to start"
        )
    ids = generate(
        model, encode(options.prompt), options.max_new_tokens,
        np.random.default_rng(options.seed), options.temperature, options.top_k,
        options.top_p,
    )  # fmt: skip
    print(decode(ids))
    return 0
