"""The figures of the main job; each takes numbers and returns a Figure."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lora_np.numerics import CENTRAL_LIMIT, COMPLEX_LIMIT
from lora_np.plots.style import COLOURS, MARKERS, new_figure, remember


def certification_errors(errors: Mapping[str, Mapping[str, float]]) -> Figure:
    """One row a pair, one mark a method: the worst relative error, by decade.

    errors: pair -> method ("tape", "exact", "complex", "central") -> largest relative
    error over the pair's arrays. Errors of 0 stand at the left edge.
    """
    names, left = list(errors), -17.5
    figure, axis = new_figure(height=0.21 * len(names) + 1.0)
    methods = ("tape", "exact", "complex", "central")
    data: dict[str, list[float]] = {}
    for i, method in enumerate(methods):
        rows = [k for k, n in enumerate(names) if method in errors[n]]
        worst = [errors[names[k]][method] for k in rows]
        x = [math.floor(math.log10(e)) + 0.5 if e > 1e-17 else left for e in worst]
        y = [k + (i - 1.5) * 0.17 for k in rows]
        axis.plot(x, y, MARKERS[i], color=COLOURS[i], markersize=4, label=method)
        data[method] = [*map(float, rows)]
    for limit, colour in ((COMPLEX_LIMIT, COLOURS[2]), (CENTRAL_LIMIT, COLOURS[3])):
        axis.axvline(math.log10(limit), color=colour, linestyle="--", linewidth=1)
    ticks = [left, -16, -13, -10, -7]
    axis.set_xticks(ticks, ["0"] + [f"1e{t}" for t in ticks[1:]])
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.invert_yaxis()
    axis.set_xlabel("largest error relative to the array's largest entry (by decade);"
                    "\ndashed: the limits of complex step and central differences",
                    fontsize=8)  # fmt: skip
    axis.legend(fontsize=7, ncols=4, loc="lower center", bbox_to_anchor=(0.45, 1.0))
    return remember(figure, data, 1e-9)


def loss_curves(
    curves: Mapping[str, Sequence[float]], held_out: Mapping[str, tuple[float, float]],
    window: int = 5,
) -> Figure:  # fmt: skip
    """Training loss (running mean) on the left; new against old text on the right.

    curves: method -> loss of each step in nats a byte. held_out: method -> (loss on the
    new text, loss on the old text), "base" among them.
    """
    figure, (left, right) = new_figure(1, 2, width=8.5, height=3.4)
    data: dict[str, list[float]] = {}
    for i, (name, loss) in enumerate(curves.items()):
        smooth = np.convolve(loss, np.ones(window) / window, "valid")
        steps = np.arange(window, len(loss) + 1)
        left.plot(steps, smooth, color=COLOURS[i], marker=MARKERS[i], label=name,
                  markevery=max(1, len(steps) // 6))  # fmt: skip
        data[name] = list(smooth)
    left.set_xlabel("step")
    left.set_ylabel(f"training loss, nats a byte\n(mean of {window} steps)")
    left.legend(fontsize=8)
    for i, (name, (new, old)) in enumerate(held_out.items()):
        colour, marker = (COLOURS[i - 1], MARKERS[i - 1]) if i else (COLOURS[6], "*")
        right.plot([new], [old], marker, color=colour, markersize=9)
        right.annotate(name, (new, old), textcoords="offset points", xytext=(7, 4),
                       fontsize=8)  # fmt: skip
        data["held out " + name] = [new, old]
    right.set_xlabel("held-out loss, new text (lower: learnt more)")
    right.set_ylabel("held-out loss, old text\n(lower: forgot less)")
    right.margins(0.25)
    return remember(figure, data, 0.03)


def loss_against_rank(
    ranks: Sequence[int], losses: Mapping[str, Sequence[float]], true_rank: int
) -> Figure:
    """Loss after training against r, for a teacher whose update has `true_rank`."""
    figure, axis = new_figure()
    for i, (name, values) in enumerate(losses.items()):
        axis.plot(ranks, values, color=COLOURS[i], marker=MARKERS[i], label=name)
    axis.axvline(true_rank, color=COLOURS[6], linestyle=":", linewidth=1)
    axis.annotate("rank of the teacher's update", (true_rank, 0.9), fontsize=8,
                  xycoords=("data", "axes fraction"), xytext=(5, 0),
                  textcoords="offset points")  # fmt: skip
    axis.set_xscale("log", base=2)
    axis.set_xticks(list(ranks), [str(r) for r in ranks])
    axis.set_xlabel("rank r of the adapter")
    axis.set_yscale("log")
    axis.set_ylabel("loss on fresh data (mean squared error)")
    axis.legend(fontsize=8)
    return remember(figure, {k: list(v) for k, v in losses.items()}, 0.03)


def memory_bars(
    bytes_of: Mapping[str, Mapping[str, int]], trained: Mapping[str, int] | None = None
) -> Figure:
    """Stacked bars: method -> purpose -> bytes; the checkpoint beside them.

    trained: method -> number of trained parameters, written below its bars.
    """
    figure, axis = new_figure()
    names = list(bytes_of)
    purposes = list(next(iter(bytes_of.values())))
    bottom = np.zeros(len(names))
    for i, purpose in enumerate(purposes):
        mb = np.array([bytes_of[n][purpose] / 1e6 for n in names])
        at = np.arange(len(names)) + (0.2 if purpose == "checkpoint" else -0.2)
        under = 0 * bottom if purpose == "checkpoint" else bottom
        hatch = "//" if purpose == "checkpoint" else None
        axis.bar(
            at, mb, 0.38, bottom=under, color=COLOURS[i], label=purpose, hatch=hatch
        )
        if purpose != "checkpoint":
            bottom = bottom + mb
    labels = [
        f"{n}\n{trained[n]:,} trained parameters" if trained else n for n in names
    ]
    axis.set_xticks(range(len(names)), labels)
    axis.set_ylabel("megabytes (10⁶ bytes), without activations")
    axis.legend(fontsize=8)
    data = {n: list(map(float, bytes_of[n].values())) for n in names}
    return remember(figure, data, 1e-9)


def singular_values(spectra: Mapping[str, np.ndarray], r: int) -> Figure:
    """Singular values of ΔW, largest first, one line a layer.

    The rank of s B A is at most r: from r + 1 on they are zero up to rounding.
    """
    figure, axis = new_figure()
    handles = []
    for i, (name, values) in enumerate(spectra.items()):
        colour, marker = COLOURS[i % 7], MARKERS[i % 7]
        shown = values[: 2 * r]
        axis.plot(range(1, len(shown) + 1), shown, color=colour, marker=marker,
                  markersize=4, linewidth=1)  # fmt: skip
        handles.append(Line2D([], [], color=colour, marker=marker, label=name))
    axis.axvline(r + 0.5, color=COLOURS[6], linestyle=":", linewidth=1)
    axis.set_xlabel(f"number of the singular value (dotted: after r = {r})")
    axis.set_ylabel("singular value of ΔW")
    axis.legend(handles=handles, fontsize=8)
    data = {n: [float(v) for v in s[:r]] for n, s in spectra.items()}
    return remember(figure, data, 0.05)
