"""LoRA in NumPy: derived by hand, certified three independent ways.

Where to read first: `lora_np.lora.linear` (the method), `lora_np.numerics` (how a
derivative is certified), `lora_np.tape` (the autograd), `lora_np.models.gpt`.
"""

__version__ = "0.1.0"
