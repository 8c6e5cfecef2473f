"""Models built from `nn`; the tiny transformer first."""

from lora_np.models.files import load_model, save_model
from lora_np.models.gpt import GPT, GPTConfig

__all__ = ["GPT", "GPTConfig", "load_model", "save_model"]
