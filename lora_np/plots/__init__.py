"""Figures. The only room that imports matplotlib; every function returns a Figure.

Colours are Okabe and Ito's, which colour-blind readers tell apart; lines also differ in
marker. `save` leaves a file alone when the numbers it shows have not changed.
"""

from lora_np.plots.documents import (
    attacked_curves,
    bytes_by_tasks,
    kept_and_loss,
    reconstruction,
    two_gradients,
)
from lora_np.plots.figures import (
    certification_errors,
    loss_against_rank,
    loss_curves,
    memory_bars,
    singular_values,
)
from lora_np.plots.graph import draw_graph
from lora_np.plots.style import COLOURS, MARKERS, new_figure, save

__all__ = [
    "COLOURS", "MARKERS", "attacked_curves", "bytes_by_tasks", "certification_errors",
    "draw_graph", "kept_and_loss", "loss_against_rank", "loss_curves", "memory_bars",
    "new_figure", "reconstruction", "save", "singular_values", "two_gradients",
]  # fmt: skip
