"""Saving and loading."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lora_np.reference.conformance.case import Case
from lora_np.reference.conformance.check import Check, law
from lora_np.reference.conformance.laws.common import same_outputs

GROUP = "files"
SAVED = ("linear", "embedding", "conv1d", "conv2d", "qkv")


@law(
    GROUP,
    "Saved and loaded, the adapter gives the same output.",
    "Catches a scale that is not in the file, an option that is not read back, a "
    "transposed factor.",
    layers=SAVED,
    examples=4,
)
def round_trip(s: Any, c: Case) -> Iterator[Check]:
    """Into an empty folder; output and factors."""
    with tempfile.TemporaryDirectory() as folder:
        layer = s.layer(c)
        layer.save(Path(folder))
        back = s.load(c, Path(folder))
        yield from same_outputs(back.forward(*c.inputs), c.outputs(c.want()), c)
        for name, array in back.factors().items():
            if name in c.factors:
                yield Check(name, array, c.cast(c.factors[name]))


@law(
    GROUP,
    "An adapter saved while merged is the same adapter.",
    "Saving in evaluation mode, where the weights are merged, must not lose or double "
    "the update.",
    layers=SAVED,
    examples=3,
)
def saved_while_merged(s: Any, c: Case) -> Iterator[Check]:
    """merge, save, load onto the base as it was."""
    with tempfile.TemporaryDirectory() as folder:
        layer = s.layer(c)
        layer.merge()
        layer.save(Path(folder))
        back = s.load(c, Path(folder))
        yield from same_outputs(back.forward(*c.inputs), c.outputs(c.want()), c)


@law(
    GROUP,
    "Files that claim PEFT's format have its names and shapes.",
    "PEFT: base_model.model.<path>.lora_A.weight (r, in), .lora_B.weight (out, r); "
    "embeddings .lora_embedding_A (r, vocabulary), .lora_embedding_B (dim, r); the "
    "scale is in adapter_config.json.",
    layers=("linear", "embedding"),
    options=("plain", "rslora", "dora"),
    examples=1,
)
def names(s: Any, c: Case) -> Iterator[Check]:
    """Keys by their endings, shapes, and r and lora_alpha in the configuration."""
    if s.files != "peft":
        return
    from safetensors.numpy import load_file

    with tempfile.TemporaryDirectory() as folder:
        s.layer(c).save(Path(folder))
        found = load_file(Path(folder) / "adapter_model.safetensors")
        config = json.loads((Path(folder) / "adapter_config.json").read_text("utf-8"))
    embedding = c.layer == "embedding"
    ends = {
        "A": "lora_embedding_A" if embedding else "lora_A.weight",
        "B": "lora_embedding_B" if embedding else "lora_B.weight",
        "m": "lora_magnitude_vector",
    }
    for name, factor in c.factors.items():
        shapes = [
            a.shape
            for k, a in found.items()
            if k.endswith("." + ends[name]) and k.startswith("base_model.model.")
        ]
        yield Check(ends[name], str(shapes), str([factor.shape]))
    yield Check("r", np.array(config["r"]), np.array(c.r))
    yield Check(
        "lora_alpha", np.array(float(config["lora_alpha"])), np.array(c.lora_alpha)
    )
