"""The LSTM cell and sequence, with backward through time.

T time · N batch · D inputs · H hidden. The four gates are stacked as i, f, g, o along
the first axis of Wx (4H, D), Wh (4H, H) and b (4H,), the order of PyTorch.
"""

from collections.abc import Container

from lora_np.backend import Array, get_xp
from lora_np.functional.activation import sigmoid
from lora_np.functional.contract import (
    ALL,
    differentiable,
    expect_float,
    expect_shape,
)


def _check(h: Array, c: Array, Wx: Array, Wh: Array, b: Array) -> None:
    H = h.shape[-1]
    expect_shape("c_NH", c, h.shape)
    expect_shape("Wx_4HD", Wx, (4 * H, None), "gates i, f, g, o stacked")
    expect_shape("Wh_4HH", Wh, (4 * H, H), "gates i, f, g, o stacked")
    expect_shape("b_4H", b, (4 * H,))


def gates(z_N4H: Array, c_NH: Array) -> tuple[tuple[Array, Array], tuple]:
    """((h', c'), (i, f, g, o, tanh c')) from the pre-activations of the four gates.

    >>> import numpy as np
    >>> gates(np.zeros((1, 4)), np.ones((1, 1)))[0][1]   # σ(0) = 1/2 of the old cell
    array([[0.5]])
    """
    xp, H = get_xp(z_N4H), c_NH.shape[1]
    i, f, o = (sigmoid(z_N4H[:, n * H : (n + 1) * H]) for n in (0, 1, 3))
    g = xp.tanh(z_N4H[:, 2 * H : 3 * H])
    c_new = f * c_NH + i * g
    t = xp.tanh(c_new)
    return (o * t, c_new), (i, f, g, o, t)


def gate_gradients(
    dh: Array, dc: Array, c_old: Array, saved: tuple
) -> tuple[Array, Array]:
    """(dz, gradient of the old cell): h' = o t, t = tanh c', c' = f c + i g.

    >>> import numpy as np
    >>> one = np.ones((1, 1))
    >>> _, saved = gates(np.zeros((1, 4)), one)
    >>> gate_gradients(0 * one, one, one, saved)[1]
    array([[0.5]])
    """
    i, f, g, o, t = saved
    dc = dc + dh * o * (1.0 - t * t)  # c' is used twice: by h' and by the next step
    di, df = dc * g * i * (1.0 - i), dc * c_old * f * (1.0 - f)
    dg, do = dc * i * (1.0 - g * g), dh * t * o * (1.0 - o)
    return get_xp(dh).concatenate([di, df, dg, do], axis=1), dc * f


@differentiable("x", "h", "c", "Wx", "Wh", "b")
def lstm_cell(
    x_ND: Array,
    h_NH: Array,
    c_NH: Array,
    Wx_4HD: Array,
    Wh_4HH: Array,
    b_4H: Array,
    *,
    needs: Container[str] = ALL,
) -> tuple[tuple[Array, Array], tuple]:
    """c' = σ(f) c + σ(i) tanh(g),  h' = σ(o) tanh(c'),  [i f g o] = x Wxᵀ + h Whᵀ + b

    Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    Returns (h', c').

    >>> import numpy as np
    >>> z = np.zeros
    >>> (h, c), _ = lstm_cell(z((1, 2)), z((1, 1)), np.ones((1, 1)), z((4, 2)),
    ...                       z((4, 1)), z(4))
    >>> c   # half of the old cell is kept: σ(0) = 1/2
    array([[0.5]])
    """
    expect_float(x=x_ND, h=h_NH, c=c_NH, Wx=Wx_4HD, Wh=Wh_4HH, b=b_4H)
    _check(h_NH, c_NH, Wx_4HD, Wh_4HH, b_4H)
    expect_shape("x_ND", x_ND, (h_NH.shape[0], Wx_4HD.shape[1]))
    state, saved = gates(x_ND @ Wx_4HD.T + h_NH @ Wh_4HH.T + b_4H, c_NH)
    wanted = tuple(n in needs for n in lstm_cell.wrt)  # type: ignore[attr-defined]
    return state, (x_ND, h_NH, c_NH, Wx_4HD, Wh_4HH, *saved, wanted)


def lstm_cell_backward(dy: tuple, cache: tuple) -> tuple:
    """With dy = (dh', dc'):  dc = dc' + dh' o (1 - tanh²c'), then gate by gate.

    i, f, o are the gates after σ, g after tanh: di = dc·g·i(1-i), df = dc·c·f(1-f),
    dg = dc·i(1-g²), do = dh'·tanh(c')·o(1-o); with
    dz = [di df dg do]: dx = dz Wx, dh = dz Wh, dWx = dzᵀ x, dWh = dzᵀ h, db = Σ_n dz;
    the old cell gets dc·f.  Returns (dx, dh, dc, dWx, dWh, db).

    >>> import numpy as np
    >>> z = np.zeros
    >>> _, k = lstm_cell(z((1, 2)), z((1, 1)), z((1, 1)), z((4, 2)), z((4, 1)), z(4))
    >>> lstm_cell_backward((z((1, 1)), np.ones((1, 1))), k)[2]
    array([[0.5]])
    """
    x, h, c_old, Wx, Wh = cache[:5]
    wx, wh, wc, wWx, wWh, wb = cache[-1]
    dz, dc_old = gate_gradients(dy[0], dy[1], c_old, cache[5:10])
    return (
        dz @ Wx if wx else None,
        dz @ Wh if wh else None,
        dc_old if wc else None,
        dz.T @ x if wWx else None,
        dz.T @ h if wWh else None,
        dz.sum(axis=0) if wb else None,
    )


@differentiable("x", "h", "c", "Wx", "Wh", "b")
def lstm(
    x_TND: Array,
    h_NH: Array,
    c_NH: Array,
    Wx_4HD: Array,
    Wh_4HH: Array,
    b_4H: Array,
    *,
    needs: Container[str] = ALL,
) -> tuple[tuple[Array, Array], tuple]:
    """h_t, c_t = lstm_cell(x_t, h_t-1, c_t-1) for t = 1 … T

    Returns (all hidden states (T, N, H), the last cell (N, H)).
    Raises ValueError for no time step.

    >>> import numpy as np
    >>> z = np.zeros
    >>> (hs, c), _ = lstm(z((3, 1, 2)), z((1, 1)), np.ones((1, 1)), z((4, 2)),
    ...                   z((4, 1)), z(4))
    >>> float(c[0, 0])   # (1/2)³
    0.125
    """
    expect_shape("x_TND", x_TND, (None, None, None))
    if x_TND.shape[0] == 0:
        raise ValueError("lstm needs at least one time step, got x_TND of length 0")
    caches, hs, state = [], [], (h_NH, c_NH)
    for x_ND in x_TND:
        state, cache = lstm_cell(x_ND, *state, Wx_4HD, Wh_4HH, b_4H, needs=ALL)
        hs.append(state[0])
        caches.append(cache)
    wanted = tuple(n in needs for n in lstm.wrt)  # type: ignore[attr-defined]
    return (get_xp(h_NH, *hs).stack(hs), state[1]), (caches, wanted)


def lstm_backward(dy: tuple, cache: tuple) -> tuple:
    """Backward through time: from the last step to the first, carrying the state.

    dh at step t is the output's own dh_t plus what step t+1 sent back; the weights are
    used at every step, so their gradients add.  Returns (dx, dh, dc, dWx, dWh, db).

    >>> import numpy as np
    >>> z = np.zeros
    >>> _, k = lstm(z((3, 1, 2)), z((1, 1)), z((1, 1)), z((4, 2)), z((4, 1)), z(4))
    >>> float(lstm_backward((z((3, 1, 1)), np.ones((1, 1))), k)[2][0, 0])
    0.125
    """
    caches, wanted = cache
    dhs_TNH, dc = dy
    dh, dxs, sums = None, [], None
    for t in reversed(range(len(caches))):
        dh = dhs_TNH[t] if dh is None else dhs_TNH[t] + dh
        dx, dh, dc, *dw = lstm_cell_backward((dh, dc), caches[t])
        dxs.append(dx)
        sums = dw if sums is None else [s + d for s, d in zip(sums, dw, strict=True)]
    gradients = (get_xp(dh).stack(dxs[::-1]), dh, dc, *(sums or ()))
    return tuple(g if w else None for g, w in zip(gradients, wanted, strict=True))
