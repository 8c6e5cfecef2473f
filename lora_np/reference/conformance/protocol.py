"""What a subject may offer. Arrays are NumPy's; whatever is missing is "not offered".

A subject need not inherit from these classes: methods with these names are enough.
"""

from pathlib import Path
from typing import Any

import numpy as np

from lora_np.reference.conformance.case import Case

Array = np.ndarray
Grads = dict[str, Array | None]


class NotOffered(Exception):
    """The subject does not have this; the message says what exactly."""


class Layer:
    """One LoRA layer of a subject. Outputs are arrays, or tuples of them.

    Weights and updates are given in the standard layout, (out, in) or (vocabulary,
    width), however the subject stores them. Evaluation mode unless said otherwise.
    """

    def forward(self, *inputs: Any) -> Any:
        """The output for the case's inputs."""
        raise NotOffered("forward")

    def gradients(self, dy: Any, *inputs: Any) -> Grads:
        """Gradients of Σ dy · y by name: inputs ("x"), factors ("A"), bias ("b").

        What has no gradient is None or left out; the frozen weight must be.
        """
        raise NotOffered("gradients")

    def factors(self) -> dict[str, Array]:
        """The trained arrays as they are now."""
        raise NotOffered("trainable state")

    def weight(self) -> Array:
        """The frozen weight as it is now."""
        raise NotOffered("the weight")

    def delta(self, adapter: int | None = None) -> Array:
        """What merging the adapter (None: the one in use) adds to the weight."""
        raise NotOffered("the update")

    def merge(self, *adapters: int) -> None:
        """Put the updates of these adapters (the one in use) into the weight."""
        raise NotOffered("merge")

    def unmerge(self) -> None:
        """Take out what was merged."""
        raise NotOffered("unmerge")

    def scale_by(self, factor: float) -> None:
        """Multiply the adapter's scale."""
        raise NotOffered("scale_by")

    def disable(self) -> None:
        """Switch the adapter off."""
        raise NotOffered("disable")

    def combinations(self) -> tuple[str, ...]:
        """Names of the ways to combine adapters; "cat" and "svd" claim to be sums."""
        raise NotOffered("combine")

    def combine(
        self, adapters: tuple[int, ...], weights: list[float], how: str
    ) -> None:
        """Make a combination the adapter in use."""
        raise NotOffered("combine")

    def operations(self) -> tuple[str, ...]:
        """Names of further operations that claim to keep the adapter's effect."""
        raise NotOffered("operations")

    def apply(self, operation: str) -> None:
        """Carry out one of them."""
        raise NotOffered("operations")

    def train(
        self, target: Array, steps: int, lr: float, optimizer: str, *inputs: Any
    ) -> None:
        """Steps of "sgd" or "adamw" (no decay) on L = ½ Σ (y - target)²."""
        raise NotOffered("train")

    def forward_training(self, seed: int, *inputs: Any) -> Any:
        """The output in training mode, dropout drawn from `seed`."""
        raise NotOffered("training mode")

    def gradients_training(self, seed: int, dy: Any, *inputs: Any) -> Grads:
        """Gradients in training mode, the same dropout for the same seed."""
        raise NotOffered("gradients in training mode")

    def accumulate(self, batches: list[tuple]) -> Grads:
        """Gradients of the factors added up over several (dy, *inputs)."""
        raise NotOffered("accumulation")

    def checkpointed(self, dy: Any, *inputs: Any) -> Grads:
        """As `gradients`, with the forward computed again in the backward."""
        raise NotOffered("checkpointing")

    def mixed(self, which: Array, *inputs: Any) -> Any:
        """The output where row n uses adapter which[n]; -1 is the base alone."""
        raise NotOffered("a batch of mixed adapters")

    def save(self, folder: Path) -> None:
        """Write the adapter's files."""
        raise NotOffered("save")


class Subject:
    """An implementation of LoRA under test.

    For FILE.py:factory, `layer` is the function itself, factory(case) or, for several
    adapters, factory(case, adapters); it may carry the rest of this class as attributes
    (factory.fresh = …). A layer or option that the implementation does not have is
    refused with NotOffered; otherwise it is tested as if it were there.

    files: "peft" where saved files claim to be PEFT's. dora_constant_norm: True where
    DoRA's gradient treats the norm as a constant (2402.09353, section 4.3; PEFT), so
    that it is compared with that formula. script: lines of the subject's own API that
    were run since `begin`, where the subject keeps them (see record.Script).
    """

    name = "subject"
    version = ""
    files = ""
    dora_constant_norm = False

    def layer(self, case: Case, adapters: int = 1) -> Any:
        """A layer with the case's frozen arrays and its first so many adapters."""
        raise NotOffered("layer")

    def initialisations(self, case: Case) -> tuple[Any, ...]:
        """Values for init_lora_weights that claim to keep the base's output."""
        raise NotOffered("initialisation")

    def fresh(self, case: Case, init: Any, seed: int) -> Any:
        """A layer on the case's frozen arrays, with factors of the subject's own."""
        raise NotOffered("initialisation")

    def load(self, case: Case, folder: Path) -> Any:
        """A layer on the case's frozen arrays with the adapter of a folder."""
        raise NotOffered("load")
