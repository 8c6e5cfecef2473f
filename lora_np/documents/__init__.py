"""Five articles on LoRA (D0 … D4): every claim as code with a figure and a verdict."""

from lora_np.documents.d3 import D3
from lora_np.documents.d4 import D4

DOCUMENTS = (D3, D4)

__all__ = ["D3", "D4", "DOCUMENTS"]
