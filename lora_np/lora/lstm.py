"""LoRA on the four gates of an LSTM: the method needs a linear map, not a Transformer.

T time · N batch · D inputs · H hidden · R rank.  Gates i, f, g, o stacked, as in
`functional.lstm`. One adapter on the input weights (Ax, Bx), one on the recurrent ones
(Ah, Bh); either may be left out.
"""

from collections.abc import Container

from lora_np.backend import Array, get_xp
from lora_np.functional.contract import (
    ALL,
    differentiable,
    expect_float,
    expect_shape,
)
from lora_np.functional.lstm import gate_gradients, gates
from lora_np.lora.linear import check_factors


def _check_pair(name: str, A: Array, B: Array, inputs: int, outputs: int) -> None:
    if (A is None) != (B is None):
        raise ValueError(f"give both A{name} and B{name}, or neither")
    if A is not None:
        check_factors(A, B, inputs, outputs, name)


def _low(v: Array, A: Array | None, B: Array, s: float) -> Array | float:
    return 0.0 if A is None else (s * (v @ A.T)) @ B.T


@differentiable("x", "h", "c", "b", "Ax", "Bx", "Ah", "Bh")
def lora_lstm(
    x_TND: Array,
    h_NH: Array,
    c_NH: Array,
    Wx_4HD: Array,
    Wh_4HH: Array,
    b_4H: Array,
    Ax_RD: Array | None,
    Bx_4HR: Array | None,
    Ah_RH: Array | None,
    Bh_4HR: Array | None,
    s: float,
    *,
    needs: Container[str] = ALL,
) -> tuple[tuple[Array, Array], tuple]:
    """[i f g o] = x Wxᵀ + s (x Axᵀ) Bxᵀ + h Whᵀ + s (h Ahᵀ) Bhᵀ + b,  then the cell

    Wx and Wh are frozen. Returns (all hidden states (T, N, H), the last cell (N, H)).
    Raises ValueError for no time step, one factor without the other, or no adapter.

    >>> import numpy as np
    >>> z = np.zeros
    >>> (hs, c), _ = lora_lstm(z((3, 1, 2)), z((1, 1)), np.ones((1, 1)), z((4, 2)),
    ...              z((4, 1)), z(4), None, None, np.ones((1, 1)), z((4, 1)), 2.0)
    >>> float(c[0, 0])   # B = 0: the frozen LSTM's (1/2)³
    0.125
    """
    expect_float(x=x_TND, h=h_NH, c=c_NH, Wx=Wx_4HD, Wh=Wh_4HH, b=b_4H)
    expect_shape("x_TND", x_TND, (None, h_NH.shape[0], Wx_4HD.shape[1]))
    H, D = h_NH.shape[1], x_TND.shape[2]
    expect_shape("c_NH", c_NH, tuple(h_NH.shape))
    expect_shape("Wx_4HD", Wx_4HD, (4 * H, D), "gates i, f, g, o stacked")
    expect_shape("Wh_4HH", Wh_4HH, (4 * H, H), "gates i, f, g, o stacked")
    expect_shape("b_4H", b_4H, (4 * H,))
    _check_pair("x", Ax_RD, Bx_4HR, D, 4 * H)
    _check_pair("h", Ah_RH, Bh_4HR, H, 4 * H)
    if Ax_RD is None and Ah_RH is None:
        raise ValueError("adapt the input weights, the recurrent ones or both; for "
                         "neither use `lstm`")  # fmt: skip
    if x_TND.shape[0] == 0:
        raise ValueError("lora_lstm needs at least one time step, got x_TND of "
                         "length 0")  # fmt: skip
    s, (h, c), hs, steps = float(s), (h_NH, c_NH), [], []
    for x_ND in x_TND:
        z = x_ND @ Wx_4HD.T + h @ Wh_4HH.T + b_4H  # summed as in lstm_cell: B = 0 is it
        z = z + _low(x_ND, Ax_RD, Bx_4HR, s) + _low(h, Ah_RH, Bh_4HR, s)
        (h_new, c_new), saved = gates(z, c)
        steps.append((h, c, saved))
        h, c = h_new, c_new
        hs.append(h)
    wanted = {n for n in lora_lstm.wrt if n in needs}  # type: ignore[attr-defined]
    weights = (Wx_4HD, Wh_4HH, Ax_RD, Bx_4HR, Ah_RH, Bh_4HR, s)
    return (get_xp(*hs).stack(hs), c), (x_TND, steps, weights, wanted)


def _factor_gradients(dz: Array, v: Array, A: Array, B: Array, s: float) -> tuple:
    """(dA, dB) as in `lora_linear`, rows of all time steps together."""
    return (s * (dz @ B)).T @ v, dz.T @ (s * (v @ A.T))


def lora_lstm_backward(dy: tuple, cache: tuple) -> tuple:
    """Backward through time to dz_t, then `lora_linear_backward` over all steps at once

    dx_t = dz_t Wx + s (dz_t Bx) Ax and dh_t-1 = dz_t Wh + s (dz_t Bh) Ah + its own dh;
    the factors are used at every step, so with the steps' rows stacked
    dBx = s Σ_t dz_tᵀ (x_t Axᵀ),  dAx = s Σ_t (dz_t Bx)ᵀ x_t,  for Ah, Bh with h_t-1.
    dWx and dWh are never formed.  Returns (dx, dh, dc, db, dAx, dBx, dAh, dBh).

    >>> import numpy as np
    >>> z, one = np.zeros, np.ones
    >>> _, k = lora_lstm(z((3, 1, 2)), z((1, 1)), z((1, 1)), z((4, 2)), z((4, 1)),
    ...                  z(4), None, None, one((1, 1)), z((4, 1)), 2.0)
    >>> g = lora_lstm_backward((z((3, 1, 1)), one((1, 1))), k)
    >>> float(g[2][0, 0])
    0.125
    """
    x_TND, steps, (Wx, Wh, Ax, Bx, Ah, Bh, s), wanted = cache
    xp = get_xp(x_TND, Wx)
    dhs_TNH, dc = dy
    dh, dzs = None, []
    for t in reversed(range(len(steps))):
        dh = dhs_TNH[t] if dh is None else dhs_TNH[t] + dh
        _, c_old, saved = steps[t]
        dz, dc = gate_gradients(dh, dc, c_old, saved)
        dh = dz @ Wh if Ah is None else dz @ Wh + (s * (dz @ Bh)) @ Ah
        dzs.append(dz)
    dz_P = xp.concatenate(dzs[::-1])  # P = T N rows, step by step
    grads = dict.fromkeys(lora_lstm.wrt)  # type: ignore[attr-defined]
    dx_P = dz_P @ Wx if Ax is None else dz_P @ Wx + (s * (dz_P @ Bx)) @ Ax
    grads |= {"x": dx_P.reshape(x_TND.shape), "h": dh, "c": dc, "b": dz_P.sum(axis=0)}
    if Ax is not None:
        x_P = x_TND.reshape(-1, x_TND.shape[2])
        grads["Ax"], grads["Bx"] = _factor_gradients(dz_P, x_P, Ax, Bx, s)
    if Ah is not None:
        h_P = xp.concatenate([h for h, _, _ in steps])
        grads["Ah"], grads["Bh"] = _factor_gradients(dz_P, h_P, Ah, Bh, s)
    return tuple(g if n in wanted else None for n, g in grads.items())
