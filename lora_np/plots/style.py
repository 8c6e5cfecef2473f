"""Colours, sizes, and saving without needless change."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from lora_np.files.weights import write_beside

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_KEY = "lora_np data"


def new_figure(
    rows: int = 1, columns: int = 1, width: float = 7.0, height: float = 3.6
) -> tuple[Figure, Any]:
    """An empty figure with axes, sized for a notebook; needs no display.

    >>> float(new_figure()[0].get_figwidth())
    7.0
    """
    figure = Figure(figsize=(width, height), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns)
    for axis in np.atleast_1d(axes).ravel():
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    return figure, axes


def remember(
    figure: Figure, data: Mapping[str, Sequence[float]], rtol: float
) -> Figure:
    """Attach the numbers that a figure shows, and how closely they reproduce.

    >>> remember(new_figure()[0], {"x": [1.0]}, 0.1).lora_np_rtol
    0.1
    """
    figure.lora_np_data = {k: [float(v) for v in vs] for k, vs in data.items()}  # type: ignore[attr-defined]
    figure.lora_np_rtol = rtol  # type: ignore[attr-defined]
    return figure


def save(figure: Figure, path: str | Path) -> bool:
    """Write a PNG; False (and nothing written) if the file shows the same already.

    The numbers lie in the PNG's metadata. On another processor they differ in the last
    places; a file is rewritten only when one differs by more than the figure's rtol, so
    running the job leaves a clean tree clean.
    """
    data = getattr(figure, "lora_np_data", {})
    if data and _same(_read(Path(path)), data, figure.lora_np_rtol):  # type: ignore[attr-defined]
        return False
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="png", metadata={"Software": None, _KEY: json.dumps(data)}
    )
    write_beside(path, buffer.getvalue())
    return True


def _read(path: Path) -> Any:
    try:
        with Image.open(path) as image:
            return json.loads(image.info.get(_KEY, "null"))
    except (OSError, ValueError):
        return None


def _same(old: Any, new: Mapping, rtol: float) -> bool:
    if not isinstance(old, dict) or old.keys() != new.keys():
        return False
    for key, values in new.items():
        a, b = np.array(old[key], float), np.array(values, float)
        top = np.abs(b).max(initial=0.0)
        if a.shape != b.shape or not np.allclose(a, b, rtol=rtol, atol=rtol * top):
            return False
    return True
