"""Modules built from lifted pairs, and LoRA attached to them."""

from lora_np.nn.adapt import (
    attach_lora,
    lora_layers,
    merge_lora,
    print_trainable_parameters,
    remove_lora,
    unmerge_lora,
)
from lora_np.nn.adapter_io import load_adapter, save_adapter
from lora_np.nn.config import LoraConfig
from lora_np.nn.layers import Attention, Dropout, Embedding, LayerNorm, Linear
from lora_np.nn.lora_layers import LoraEmbedding, LoraLinear
from lora_np.nn.module import Module, Parameter
from lora_np.nn.recompute import recompute

__all__ = [name for name in dir() if not name.startswith("_")]
