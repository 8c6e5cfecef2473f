"""Five articles on LoRA (D0 … D4): every claim as code with a figure and a verdict.

Each article's claims are in the module of its name; what it describes is built in the
others: `encoders`, `adversarial`, `gan`, `recurrent` (D0), `methods` (D1), `multitask`
(D2), `compress`, `low_rank_adaptation` (D3).
"""

from lora_np.documents.d0 import D0
from lora_np.documents.d1 import D1
from lora_np.documents.d2 import D2
from lora_np.documents.d3 import D3
from lora_np.documents.d4 import D4

DOCUMENTS = (D0, D1, D2, D3, D4)

# Every claim of the articles, counted once; a document may not lose one unnoticed.
IDS = tuple(
    f"{name}.{i}"
    for name, count in (("D0", 11), ("D1", 9), ("D2", 6), ("D3", 11), ("D4", 9))
    for i in range(1, count + 1)
)

__all__ = ["D0", "D1", "D2", "D3", "D4", "DOCUMENTS", "IDS"]
