"""LoraConfig: the options of an adapter, under PEFT's names and with their meaning."""

from dataclasses import dataclass

from lora_np.lora import check_method, scaling
from lora_np.nn.lora_layers import DORA_DROPOUT

BIAS = ("none", "lora_only", "all")


@dataclass(frozen=True)
class LoraConfig:
    """Options of an adapter; defaults as in PEFT.

    target_modules: names or ends of names (["c_attn"]), one regular expression for the
    whole path, or "all-linear". bias: which biases are trained besides ("lora_only":
    those of adapted layers).  Raises ValueError for values out of range.

    >>> LoraConfig(r=4, lora_alpha=8, target_modules=["c_attn"]).scaling
    2.0
    """

    r: int = 8
    lora_alpha: float = 8
    lora_dropout: float = 0.0
    target_modules: list[str] | str | None = None
    bias: str = "none"
    use_rslora: bool = False
    use_dora: bool = False
    init_lora_weights: bool | str = True

    def __post_init__(self) -> None:
        scaling(self.lora_alpha, self.r, self.use_rslora)
        for name in ("use_rslora", "use_dora"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{name} must be a bool, got {getattr(self, name)!r}")
        targets = self.target_modules
        if isinstance(targets, list) and not all(isinstance(t, str) for t in targets):
            raise TypeError(f"target_modules must be names, got {targets!r}")
        if not isinstance(self.lora_alpha, int | float):
            raise TypeError(f"lora_alpha must be a number, got {self.lora_alpha!r}")
        if not isinstance(self.lora_dropout, int | float):
            raise TypeError(f"lora_dropout must be a number, got {self.lora_dropout!r}")
        if not 0.0 <= self.lora_dropout < 1.0:
            raise ValueError(
                f"lora_dropout must be at least 0 and less than 1, got "
                f"{self.lora_dropout}"
            )
        if self.bias not in BIAS:
            raise ValueError(f"bias must be one of {BIAS}, got {self.bias!r}")
        if self.use_dora and self.lora_dropout:
            raise ValueError(DORA_DROPOUT)
        check_method(self.init_lora_weights)
        if not self.target_modules:
            raise ValueError(
                "target_modules is empty: name the layers to adapt, for example "
                "target_modules=['c_attn'], or 'all-linear'"
            )

    @property
    def scaling(self) -> float:
        """s = α/r, or α/√r with use_rslora."""
        return scaling(self.lora_alpha, self.r, self.use_rslora)
