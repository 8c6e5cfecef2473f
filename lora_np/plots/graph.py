"""A computation graph as SVG: shapes, values and gradients, for a notebook.

Written out by hand, because the usual tool needs a program that pip cannot install. The
graph must have been built inside `tape.recording()`; draw it after backward to see
gradients.
"""

from html import escape

from lora_np.backend import to_host
from lora_np.graph import Node, topological
from lora_np.tape import Tensor

WIDTH, HEIGHT, GAP_X, GAP_Y = 138, 58, 34, 18
LIMIT = 200


class Svg:
    """SVG text that a notebook shows as a picture."""

    def __init__(self, text: str):
        self.text = text

    def _repr_svg_(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Svg, {len(self.text)} characters>"


def draw_graph(root: Tensor) -> Svg:
    """The graph of `root`, left to right; a box has operation, shape, value, grad.

    Raises ValueError for a tensor without a graph, one that was freed, or one with more
    than 200 nodes.

    >>> import numpy as np
    >>> from lora_np.tape import recording
    >>> with recording():
    ...     x = Tensor(np.array(3.0), requires_grad=True, name="x"); y = x * x
    >>> y.backward(); "grad 6" in draw_graph(y).text
    True
    """
    if root.node is None or root.node.freed:
        raise ValueError(
            "there is no graph to draw: build it inside `with recording():`, from at "
            "least one tensor that requires a gradient"
        )
    depth = _depths(root.node)
    if len(depth) > LIMIT:
        raise ValueError(
            f"{len(depth)} nodes are too many to read; draw a smaller case"
        )
    place: dict[Node, tuple[int, int]] = {}
    rows: dict[int, int] = {}
    for node, d in sorted(depth.items(), key=lambda item: item[1]):
        rows[d] = rows.get(d, -1) + 1
        place[node] = (10 + d * (WIDTH + GAP_X), 10 + rows[d] * (HEIGHT + GAP_Y))
    w = 20 + (max(depth.values()) + 1) * (WIDTH + GAP_X) - GAP_X
    lanes = {n: _edges(n, place, depth) for n in depth}
    every = [edge for edges in lanes.values() for edge in edges]
    long = any(far for _, _, far in every)
    h = 20 + (max(rows.values()) + 1) * (HEIGHT + GAP_Y) - GAP_Y + (22 if long else 0)
    floor = h - 8
    parts = [_arrow(start, end, floor if far else None) for start, end, far in every]
    parts += [_box(node, *at) for node, at in place.items()]
    style = "font-family:sans-serif;font-size:10px"
    return Svg(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}" '
        f'viewBox="0 0 {w} {h}" style="{style}">' + "".join(parts) + "</svg>"
    )


def _depths(root: Node) -> dict[Node, int]:
    """Column of each node: one more than its deepest parent."""
    depth: dict[Node, int] = {}
    for node in topological(root):
        depth[node] = 1 + max((depth[p] for p in node.parents), default=-1)
    return depth


def _short(array: object) -> str:
    if array is None:
        return "-"
    a = to_host(array)
    if a.size == 1:
        return f"{float(a.ravel()[0]):.4g}"
    flat = ", ".join(f"{v:.3g}" for v in a.ravel()[:2])
    return f"[{flat}{', …' if a.size > 2 else ''}]"


def _box(node: Node, x: int, y: int) -> str:
    leaf = node.leaf is not None
    fill = "#DCEBF7" if leaf else "#FFFFFF"
    grad = node.leaf.grad if node.leaf is not None else node.grad
    value = node.leaf.data if node.leaf is not None else node.value
    lines = [
        f"<tspan font-weight='bold'>{escape(node.op)}</tspan> {node.shape}",
        escape(f"value {_short(value)}"),
        escape(f"grad {_short(grad)}"),
    ]
    text = "".join(
        f'<text x="{x + 7}" y="{y + 16 + 15 * i}">{line}</text>'
        for i, line in enumerate(lines)
    )
    return (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="5" '
        f'fill="{fill}" stroke="#444444"/>{text}'
    )


def _edges(node: Node, place: dict, depth: dict) -> list[tuple]:
    """(start, end, far) of each edge into `node`; far ones skip a column.

    Edges that arrive at one box end at different heights, so that x * x shows two.
    """
    edges, n = [], len(node.parents)
    for k, parent in enumerate(node.parents):
        (x1, y1), (x2, y2) = place[parent], place[node]
        shift = (k + 1) * HEIGHT // (n + 1)
        start, end = (x1 + WIDTH, y1 + shift), (x2, y2 + shift)
        edges.append((start, end, depth[node] - depth[parent] > 1))
    return edges


def _arrow(start: tuple[int, int], end: tuple[int, int], floor: int | None) -> str:
    """A curve with a head; one that skips a column runs along the picture's floor."""
    (x1, y1), (x2, y2) = start, end
    tip = f"{x2 - 5},{y2}"
    if floor is None:
        bend = (x1 + x2) // 2
        path = f"M{x1},{y1} C{bend},{y1} {bend},{y2} {tip}"
    else:
        a, b = x1 + GAP_X // 2, x2 - GAP_X // 2
        path = (
            f"M{x1},{y1} C{a},{y1} {a},{floor} {a + 20},{floor} L{b - 20},{floor} "
            f"C{b},{floor} {b},{y2} {tip}"
        )
    return (
        f'<path d="{path}" fill="none" stroke="#444444"/>'
        f'<path d="M{x2},{y2} l-7,-3.5 v7 z" fill="#444444"/>'
    )
