"""The figures of the documents' chapters; each takes numbers and returns a Figure."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from lora_np.plots.style import COLOURS, MARKERS, new_figure, remember


def attacked_curves(
    eps: Sequence[float], accuracy: Mapping[str, Sequence[float]], chance: float
) -> Figure:
    """Accuracy under attack against the attack's norm, a line a training method."""
    figure, axis = new_figure()
    for i, (name, values) in enumerate(accuracy.items()):
        axis.plot(eps, values, color=COLOURS[i], marker=MARKERS[i], label=name)
    axis.axhline(chance, color=COLOURS[6], linestyle="--", linewidth=1)
    axis.annotate("chance", (eps[-1], chance), textcoords="offset points",
                  xytext=(-4, 4), ha="right", fontsize=8)  # fmt: skip
    axis.set_xlabel("norm ε of the attack on a sequence's embedding")
    axis.set_ylabel("held-out accuracy under PGD")
    axis.set_ylim(0, 1)
    axis.legend(fontsize=8)
    return remember(figure, {"eps": eps, **accuracy}, 0.1)


def kept_and_loss(
    ranks: Sequence[int], kept: Sequence[float], losses: Sequence[float],
    base_loss: float,
) -> Figure:  # fmt: skip
    """Left: share of a weight's norm kept at rank r; right: the loss with it."""
    figure, (left, right) = new_figure(1, 2, width=8.5, height=3.4)
    left.plot(ranks, kept, color=COLOURS[0], marker=MARKERS[0])
    left.set_ylabel("share of ‖W‖² kept (first qkv matrix)")
    left.set_ylim(0, 1.05)
    right.plot(ranks, losses, color=COLOURS[1], marker=MARKERS[1], label="W = R G")
    right.axhline(base_loss, color=COLOURS[6], linestyle="--", label="base, and LoRA")
    right.set_ylabel("loss on the old text, nats a byte")
    right.legend(fontsize=8)
    for axis in (left, right):
        axis.set_xscale("log", base=2)
        axis.set_xticks(ranks, [str(r) for r in ranks])
        axis.set_xlabel("rank r of the replacement")
    return remember(figure, {"ranks": ranks, "kept": kept, "losses": losses}, 0.03)


def bytes_by_tasks(
    counts: Sequence[int], copies: Sequence[float], formula: Sequence[float],
    measured: Mapping[int, float],
) -> Figure:  # fmt: skip
    """Bytes stored for N tasks: whole copies, one base and adapters, measured."""
    figure, axis = new_figure()
    axis.plot(counts, np.array(copies) / 1e6, color=COLOURS[1], label="N whole models")
    axis.plot(counts, np.array(formula) / 1e6, color=COLOURS[0],
              label="one base and N adapters (formula)")  # fmt: skip
    axis.plot(list(measured), [v / 1e6 for v in measured.values()], MARKERS[0],
              color=COLOURS[2], label="one base and N files (measured)")  # fmt: skip
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("number of tasks N")
    axis.set_ylabel("megabytes stored")
    axis.legend(fontsize=8)
    data = {"copies": copies, "formula": formula, "measured": list(measured.values())}
    return remember(figure, data, 1e-3)


def reconstruction(
    ranks: Sequence[int], errors: Mapping[str, Sequence[float]]
) -> Figure:
    """‖W - AB‖ / ‖W‖ against the rank, a line a method."""
    figure, axis = new_figure()
    for i, (name, values) in enumerate(errors.items()):
        axis.plot(ranks, values, color=COLOURS[i], marker=MARKERS[i], label=name,
                  linestyle=("-", "--", ":")[i], markersize=9 - 2 * i)  # fmt: skip
    axis.set_xlabel("rank r")
    axis.set_ylabel("relative error ‖W - AB‖ / ‖W‖")
    axis.set_ylim(0, 1)
    axis.legend(fontsize=8)
    return remember(figure, dict(errors), 1e-3)


def two_gradients(
    at: Sequence[float], right: Sequence[float], printed: Sequence[float],
    target: Sequence[float], labels: tuple[str, str], step: float = 1.0,
) -> Figure:  # fmt: skip
    """A quadratic loss over two numbers with minimum `target`; two steps downhill."""
    figure, axis = new_figure()
    x0, y0 = at
    ends = [np.array(at) - step * np.array(g) for g in (right, printed)]
    points = np.array([at, target, *ends])
    low, high = points.min(axis=0), points.max(axis=0)
    pad = 0.35 * (high - low).max()
    x = np.linspace(low[0] - pad, high[0] + pad, 120)
    y = np.linspace(low[1] - pad, high[1] + pad, 120)
    X, Y = np.meshgrid(x, y)
    loss = 0.5 * ((X - target[0]) ** 2 + (Y - target[1]) ** 2)
    axis.contour(X, Y, loss, levels=12, colors="0.75", linewidths=0.8)
    axis.plot(*target, "*", color=COLOURS[6], markersize=11)
    axis.annotate("lowest loss", target, textcoords="offset points", xytext=(8, 4),
                  fontsize=8)  # fmt: skip
    for name, end, colour in (("right", ends[0], COLOURS[0]),
                              ("printed", ends[1], COLOURS[1])):  # fmt: skip
        axis.annotate("", end, at, arrowprops={"arrowstyle": "-|>", "color": colour,
                                               "linewidth": 2})  # fmt: skip
        below = -14 if name == "right" else -4  # not over "lowest loss"
        axis.annotate(name, end, textcoords="offset points", xytext=(8, below),
                      color=colour, fontsize=9)  # fmt: skip
    axis.plot([x0], [y0], "o", color=COLOURS[6])
    axis.set_xlabel(labels[0])
    axis.set_ylabel(labels[1])
    axis.set_aspect("equal")
    return remember(figure, {"right": right, "printed": printed}, 1e-6)
