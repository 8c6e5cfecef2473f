"""How A and B start.

Exactly one factor starts at zero. Then B A = 0, so the adapted model begins as the
base; and the other factor is not zero, so the zero one has a gradient. Were both zero,
dA (which has a factor B) and dB (which has a factor A) would be zero for ever.
"""

import math

import numpy as np

from lora_np.lora.scale import check_rank

METHODS = (True, False, "gaussian")


def check_method(init_lora_weights: bool | str) -> None:
    """Raise ValueError for an initialisation that is not offered; "zeros" with the why.

    >>> check_method("gaussian")
    """
    if init_lora_weights == "zeros":
        raise ValueError(
            "both factors at zero never train: dA has a factor B and dB a factor A, so "
            "both gradients stay exactly 0; use init_lora_weights=True"
        )
    if not isinstance(init_lora_weights, bool) and init_lora_weights != "gaussian":
        raise ValueError(
            f"init_lora_weights must be one of {METHODS}, got {init_lora_weights!r}"
        )


def kaiming_uniform(
    shape: tuple[int, ...], rng: np.random.Generator, dtype: type = np.float32
) -> np.ndarray:
    """U(-1/√fan_in, 1/√fan_in), fan_in = the product of all axes but the first

    He et al. 2015 with a = √5, what PyTorch's `kaiming_uniform_(a=√5)` and so loralib
    and PEFT draw for A. A must be stored (r, in): stored (in, r), fan_in would be read
    as r, and A would come out √(in/r) times too large.

    >>> A = kaiming_uniform((8, 768), np.random.default_rng(0))
    >>> bool(abs(A).max() <= 768 ** -0.5)
    True
    """
    fan_in = math.prod(shape[1:])
    if fan_in == 0:
        raise ValueError(f"the fan-in of {shape} is 0: nothing to initialise from")
    bound = 1.0 / math.sqrt(fan_in)
    return rng.uniform(-bound, bound, shape).astype(dtype)


def init_lora(
    A_shape: tuple[int, ...],
    B_shape: tuple[int, ...],
    rng: np.random.Generator,
    init_lora_weights: bool | str = True,
    dtype: type = np.float32,
) -> tuple[np.ndarray, np.ndarray]:
    """A and B for a linear layer or a convolution, A (r, in, ...), B (out, r, ...).

    init_lora_weights (PEFT's option): True, A Kaiming-uniform and B = 0 (loralib);
    "gaussian", A ~ N(0, 1/r²) and B = 0; False, both Kaiming-uniform, so that the
    output changes at once. "zeros" is refused.

    >>> A, B = init_lora((2, 3), (5, 2), np.random.default_rng(0))
    >>> bool(A.any()), bool(B.any())
    (True, False)
    """
    r = A_shape[0]
    check_rank(r)
    check_method(init_lora_weights)
    if init_lora_weights is True:
        return kaiming_uniform(A_shape, rng, dtype), np.zeros(B_shape, dtype)
    if init_lora_weights is False:
        return kaiming_uniform(A_shape, rng, dtype), kaiming_uniform(
            B_shape, rng, dtype
        )
    return rng.normal(0, 1 / r, A_shape).astype(dtype), np.zeros(B_shape, dtype)


def init_lora_embedding(
    A_shape: tuple[int, int],
    B_shape: tuple[int, int],
    rng: np.random.Generator,
    init_lora_weights: bool | str = True,
    dtype: type = np.float32,
) -> tuple[np.ndarray, np.ndarray]:
    """A = 0 (r, vocabulary) and B ~ N(0, 1) (width, r), as loralib and PEFT do.

    Here A is the zero one: it has a column for each token, and a token that never
    occurs then keeps ΔE = 0. False draws both from N(0, 1).

    >>> A, B = init_lora_embedding((2, 3), (5, 2), np.random.default_rng(0))
    >>> bool(A.any()), bool(B.any())
    (False, True)
    """
    check_rank(A_shape[0])
    check_method(init_lora_weights)
    B: np.ndarray = rng.normal(size=B_shape).astype(dtype)
    if init_lora_weights is False:
        return rng.normal(size=A_shape).astype(dtype), B
    return np.zeros(A_shape, dtype), B
