"""An LSTM whose two weights carry dense updates, and its backward through time.

T steps · N rows · D inputs · H width; gates i, f, g, o stacked
"""

from typing import Any

import numpy as np

from lora_np.reference.oracle.dense import Array, Result, factors, product, wide


def _sigmoid(z: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-z))


def lstm(
    x: Array, h: Array, c: Array, Wx: Array, Wh: Array, b: Array,
    Ax: Array | None, Bx: Array | None, Ah: Array | None, Bh: Array | None, s: float,
    dy: tuple[Array, Array] | None = None,
) -> Result:  # fmt: skip
    """[i f g o] = x Wx'ᵀ + h Wh'ᵀ + b;  c ← σ(f) c + σ(i) tanh(g);  h ← σ(o) tanh(c)

    x (T,N,D)  h, c (N,H)  Wx (4H,D)  Wh (4H,H)  b (4H,)  A (R,·)  B (4H,R), both None
    for a weight left out; dy ((T,N,H), (N,H)).
    Returns y0 (all hidden states), y1 (the last cell), delta_x, merged_x, delta_h,
    merged_h, dx, dh, dc, db, dAx, dBx, dAh, dBh.

    >>> z = np.zeros
    >>> lstm(z((3, 1, 2)), z((1, 1)), np.ones((1, 1)), z((4, 2)), z((4, 1)), z(4),
    ...            None, None, np.ones((1, 1)), z((4, 1)), 2.0)["y1"].item()
    0.125
    """
    x, h, c, Wx, Wh, b = wide(x, h, c, Wx, Wh, b)
    Ax, Bx, Ah, Bh = wide(Ax, Bx, Ah, Bh)
    delta_x = np.zeros_like(Wx) if Ax is None else product(Ax, Bx, s)
    delta_h = np.zeros_like(Wh) if Ah is None else product(Ah, Bh, s)
    Vx, Vh = Wx + delta_x, Wh + delta_h
    kept: list[Any] = []
    hidden = []
    for row in x:
        i, f, g, o = np.split(row @ Vx.T + h @ Vh.T + b, 4, axis=1)
        gates = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
        new = gates[1] * c + gates[0] * gates[2]
        kept.append((row, h, c, gates, new))
        h, c = gates[3] * np.tanh(new), new
        hidden.append(h)
    out: Result = {"y0": np.stack(hidden), "y1": c, "delta_x": delta_x,
                   "merged_x": Vx, "delta_h": delta_h, "merged_h": Vh}  # fmt: skip
    if dy is not None:
        out |= _through_time(kept, Vx, Vh, *wide(*dy))
        if Ax is not None:
            out["dAx"], out["dBx"] = factors(out.pop("dense_x"), Ax, Bx, s)
        if Ah is not None:
            out["dAh"], out["dBh"] = factors(out.pop("dense_h"), Ah, Bh, s)
    return out


def _through_time(
    kept: list, Vx: Array, Vh: Array, dhidden: Array, dc: Array
) -> Result:
    """Backward, step by step, with the gradients of the dense weights."""
    dx = np.zeros((len(kept), len(dc), Vx.shape[1]))
    dense_x, dense_h, db = np.zeros_like(Vx), np.zeros_like(Vh), np.zeros(len(Vx))
    dh = np.zeros_like(dc)
    for t in reversed(range(len(kept))):
        row, h, c, (i, f, g, o), new = kept[t]
        dh = dh + dhidden[t]
        level = np.tanh(new)
        dnew = dc + dh * o * (1 - level**2)
        dz = np.concatenate(
            [dnew * g * i * (1 - i), dnew * c * f * (1 - f), dnew * i * (1 - g**2),
             dh * level * o * (1 - o)], axis=1,
        )  # fmt: skip
        dense_x += dz.T @ row
        dense_h += dz.T @ h
        db += dz.sum(0)
        dx[t], dh, dc = dz @ Vx, dz @ Vh, dnew * f
    return {"dx": dx, "dh": dh, "dc": dc, "db": db,
            "dense_x": dense_x, "dense_h": dense_h}  # fmt: skip
