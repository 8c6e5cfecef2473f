"""The oracle: what a LoRA layer must compute, in float64, for every layer of `lora`.

Written through the dense update and its derivative, never through the thin products
that `lora_np.lora` uses, and sharing no line with it: with D = dL/dΔW,

    ΔW = s B A,    dA = s Bᵀ D,    dB = s D Aᵀ.

Every function takes plain arrays and returns a dictionary: "y" (or "y0", "y1"),
"delta" and "merged" in the layout of the weight, and, where dy is given, the gradients
"dx", "dA", … Names are stable. Only NumPy is needed:

>>> import numpy as np
>>> from lora_np.reference import oracle
>>> x, W, A, B = np.ones((1, 2)), np.ones((1, 2)), np.ones((1, 2)), np.ones((1, 1))
>>> got = oracle.linear(x, W, A, B, s=0.5, dy=np.array([[10.0]]))
>>> got["y"], got["dA"]
(array([[3.]]), array([[5., 5.]]))

N rows · D inputs · M outputs · R rank · V vocabulary; see each function for the rest.
"""

from lora_np.reference.oracle.attention import qkv, self_attention
from lora_np.reference.oracle.conv import conv
from lora_np.reference.oracle.dense import dora, embedding, linear, scale, tasks, tied
from lora_np.reference.oracle.lstm import lstm
from lora_np.reference.oracle.steps import steps

__all__ = [
    "conv", "dora", "embedding", "linear", "lstm", "qkv", "scale", "self_attention",
    "steps", "tasks", "tied",
]  # fmt: skip
