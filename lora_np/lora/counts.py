"""What LoRA costs: parameters, bytes, multiply-adds. Arithmetic only.

A multiply-add counts as two floating-point operations.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from lora_np.lora.scale import check_rank


def lora_parameters(shapes: Iterable[tuple[int, int]], r: int) -> int:
    """Σ r (in + out) over the adapted matrices, each (out, in).

    Hu et al. 2021, table 4: GPT-3 (96 layers, width 12288), W_q, W_v, rank 8 → 37.7M.

    >>> lora_parameters([(12288, 12288)] * 2 * 96, r=8)
    37748736
    """
    check_rank(r)
    return sum(r * (inputs + outputs) for outputs, inputs in shapes)


@dataclass(frozen=True)
class Memory:
    """Bytes by purpose, for one way of training."""

    weights: int
    gradients: int
    optimizer: int
    checkpoint: int

    @property
    def total(self) -> int:
        """What training holds at once (a checkpoint lies on disk)."""
        return self.weights + self.gradients + self.optimizer


def memory(
    frozen: int,
    trainable: int,
    weight_bytes: int = 4,
    gradient_bytes: int = 4,
    moments: int = 2,
    moment_bytes: int = 4,
) -> Memory:
    """Bytes of weights, gradients, optimizer state and of a saved checkpoint.

    Only trainable parameters have gradients and moments (Adam 2, SGD with momentum 1);
    the checkpoint holds what was trained. Activations are not counted: they depend on
    the batch (see the `bench` command).

    >>> memory(frozen=100, trainable=10).optimizer
    80
    """
    if min(frozen, trainable) < 0:
        raise ValueError("parameter counts must be 0 or more")
    return Memory(
        weights=(frozen + trainable) * weight_bytes,
        gradients=trainable * gradient_bytes,
        optimizer=trainable * moments * moment_bytes,
        checkpoint=trainable * weight_bytes,
    )


def full_step_flops(shapes: Iterable[tuple[int, int]]) -> int:
    """6 P for each token: forward 2P, gradient of the input 2P, of the weight 2P.

    >>> full_step_flops([(768, 768)])
    3538944
    """
    return sum(6 * outputs * inputs for outputs, inputs in shapes)


def lora_step_flops(shapes: Iterable[tuple[int, int]], r: int) -> int:
    """4 P + 6 r (in + out) for each token: the frozen matrix has no weight gradient.

    >>> lora_step_flops([(768, 768)], 8) / full_step_flops([(768, 768)])
    0.6875
    """
    check_rank(r)
    return sum(
        4 * outputs * inputs + 6 * r * (inputs + outputs) for outputs, inputs in shapes
    )
