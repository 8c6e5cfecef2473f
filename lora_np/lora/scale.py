"""The factor s in front of B A."""

import math


def check_rank(r: int) -> None:
    """Raise unless r is an integer of at least 1.

    >>> check_rank(0)
    Traceback (most recent call last):
    ...
    ValueError: r must be 1 or more, got 0; with r = 0 there is nothing to train
    """
    if isinstance(r, bool) or not isinstance(r, int):
        raise TypeError(f"r must be an integer, got {r!r}")
    if r < 1:
        raise ValueError(
            f"r must be 1 or more, got {r}"
            + ("; with r = 0 there is nothing to train" if r == 0 else "")
        )


def scaling(lora_alpha: float, r: int, use_rslora: bool = False) -> float:
    """s = α / r        Hu et al. 2021 (2106.09685), section 4.1
    s = α / √r       rsLoRA, Kalajdzievski 2023 (2312.03732)

    A negative α is legal: it subtracts the update.
    Raises ValueError for r < 1 or an α that is not finite.

    >>> scaling(16, 8), scaling(16, 4, use_rslora=True)
    (2.0, 8.0)
    """
    check_rank(r)
    if not math.isfinite(lora_alpha):
        raise ValueError(f"lora_alpha must be a finite number, got {lora_alpha}")
    return float(lora_alpha) / (math.sqrt(r) if use_rslora else r)
