"""Wrong implementations of the pairs in `lora`: faults seen in public LoRA code."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from lora_np import functional as F
from lora_np import lora as L
from lora_np.reference.wrong import (
    Catalogue,
    edit,
    first_row,
    mean_over_rows,
    scaled,
    transposed,
)

catalogue = Catalogue()
add = catalogue.add
ALL = F.ALL


def with_inputs(right: Callable, change: Callable[[dict], dict]) -> Callable:
    """The right forward on changed inputs: change(name -> value) gives the new ones."""

    @functools.wraps(right)
    def wrong(*args: Any, **given: Any) -> Any:
        bound = inspect.signature(right).bind(*args, **given)
        bound.apply_defaults()
        return right(**change(dict(bound.arguments)))

    return wrong


def _set(**values: Any) -> Callable[[dict], dict]:
    """A change that sets inputs; a function gets all inputs."""
    return lambda given: (
        given | {k: v(given) if callable(v) else v for k, v in values.items()}
    )


# ---- linear: what an interviewer looks for first

_L = (L.lora_linear, L.lora_linear_backward)


def _forward(**values: Any) -> dict:
    return {"forward": with_inputs(L.lora_linear, _set(**values))}


def _backward(**edits: Any) -> dict:
    return {"backward": edit(*_L, **edits)}


def _plain_x(g: Any, dy: Any, c: Any) -> Any:
    """dA with x as it was before dropout (its mask and factor taken out)."""
    xd, _, _, B, s, dropped, _ = c
    kept = xd if dropped is None else np.where(dropped > 0, xd / dropped.max(), 1.0)
    return (s * dy @ B).T @ kept


def _base_dropped(given: dict) -> dict:
    """x replaced by x_d everywhere: the frozen path loses entries too."""
    mask, p = given["mask_ND"], given["p"]
    if mask is None:
        return given
    return given | {"x_ND": F.dropout(given["x_ND"], mask, p)[0], "mask_ND": None}


add(
    "lora_linear",
    "no_scale",
    "s left out everywhere; unnoticed where α = r",
    **_forward(s=1.0),
)
add(
    "lora_linear",
    "scale_squared",
    "s applied to A's and to B's product",
    **_forward(s=lambda g: g["s"] ** 2),
)
add(
    "lora_linear",
    "dA_not_scaled",
    "s forgotten in dA",
    **_backward(A=lambda g, dy, c: g / c[4]),
)
add(
    "lora_linear",
    "dB_not_scaled",
    "s forgotten in dB",
    **_backward(B=lambda g, dy, c: g / c[4]),
)
add(
    "lora_linear", "dA_transposed", "xᵀ(dy B): shape (in, r)", **_backward(A=transposed)
)
add("lora_linear", "dB_transposed", "uᵀ dy: shape (r, out)", **_backward(B=transposed))
add(
    "lora_linear",
    "dA_B_forgotten",
    "dA = s dyᵀ x cut to r rows: B left out of the chain",
    **_backward(A=lambda g, dy, c: np.resize(c[4] * dy.T @ c[0], g.shape)),
)
add(
    "lora_linear",
    "dB_A_forgotten",
    "x instead of x Aᵀ reaches dB",
    **_backward(B=lambda g, dy, c: np.resize(c[4] * dy.T @ c[0], g.shape)),
)
add(
    "lora_linear",
    "dx_low_rank_path_dropped",
    "dx = dy W, as if only the base were there",
    **_backward(x=lambda g, dy, c: dy @ c[2][0]),
)
add(
    "lora_linear",
    "dx_base_path_dropped",
    "dx = s (dy B) A, as if only the update were",
    **_backward(x=lambda g, dy, c: g - dy @ c[2][0]),
)
add(
    "lora_linear",
    "dA_mean",
    "the mean over the batch where the sum belongs",
    **_backward(A=mean_over_rows),
)
add(
    "lora_linear",
    "dB_mean",
    "the mean over the batch where the sum belongs",
    **_backward(B=mean_over_rows),
)
add(
    "lora_linear",
    "db_first_row",
    "no sum over the batch in db",
    **_backward(b=first_row),
)
add(
    "lora_linear",
    "dx_not_scaled",
    "s forgotten on the low-rank path of dx",
    **_backward(x=lambda g, dy, c: dy @ c[2][0] + (g - dy @ c[2][0]) / c[4]),
)
add(
    "lora_linear",
    "dropout_not_rescaled",
    "1/(1-p) forgotten: merging changes the mean",
    **_forward(p=0.0),
)
add(
    "lora_linear",
    "dropout_on_base_too",
    "the frozen path sees the mask as well",
    forward=with_inputs(L.lora_linear, _base_dropped),
)
add("lora_linear", "dA_without_mask", "x before dropout in dA", **_backward(A=_plain_x))
add(
    "lora_linear",
    "dropout_forgotten_in_dx",
    "the mask does not come back in dx",
    backward=lambda dy, c: L.lora_linear_backward(dy, (*c[:5], None, c[6])),
)
add(
    "lora_linear",
    "bias_dropped",
    "the base layer's bias lost when it was wrapped",
    **_forward(b_M=None),
)

# ---- embedding and tied head

_E = (L.lora_embedding, L.lora_embedding_backward)


def _repeats_lost(g: Any, dy: Any, c: Any) -> Any:
    ids, _, B, s, _ = c
    dA = np.zeros(g.shape[::-1])
    dA[ids] = s * dy @ B
    return dA.T


add(
    "lora_embedding",
    "no_scale",
    "s left out",
    forward=with_inputs(L.lora_embedding, _set(s=1.0)),
)
add(
    "lora_embedding",
    "repeats_lost",
    "the last of repeated ids wins in dA",
    backward=edit(*_E, A=_repeats_lost),
)
add(
    "lora_embedding",
    "dA_not_scaled",
    "s forgotten in dA",
    backward=edit(*_E, A=lambda g, dy, c: g / c[3]),
)
add(
    "lora_embedding",
    "dB_transposed",
    "aᵀ g: shape (r, width)",
    backward=edit(*_E, B=transposed),
)
add(
    "lora_embedding",
    "dB_mean",
    "the mean over the tokens",
    backward=edit(*_E, B=mean_over_rows),
)
add(
    "lora_embedding",
    "dA_averaged",
    "divided by how often the id occurs",
    backward=edit(
        *_E, A=lambda g, dy, c: g / np.maximum(1, np.bincount(c[0], minlength=c[4]))
    ),
)


def _tied_without(path: int) -> Callable:
    def backward(dy: Any, cache: Any) -> tuple:
        part = [np.zeros_like(d) if i == path else d for i, d in enumerate(dy)]
        right = L.lora_tied_backward(dy, cache)
        return (right[0], *L.lora_tied_backward(tuple(part), cache)[1:])

    return backward


def _tied_half(given: dict) -> dict:
    return given | {"E_VD": given["E_VD"] + given["s"] * given["B_VR"] @ given["A_RD"]}


def _head_only(*args: Any, **given: Any) -> Any:
    """The update enters the head but not the embedding."""
    y, c = L.lora_tied(*args, **given)
    return (c[2][c[0]], y[1]), c


add(
    "lora_tied",
    "embedding_path_dropped",
    "only the head's path reaches A and B",
    backward=_tied_without(0),
)
add(
    "lora_tied",
    "head_path_dropped",
    "only the embedding's path reaches A and B",
    backward=_tied_without(1),
)
add(
    "lora_tied",
    "merged_twice",
    "merged into E while the adapter is still active",
    forward=with_inputs(L.lora_tied, _tied_half),
)
add("lora_tied", "head_only", "embedding and head no longer tied", forward=_head_only)
add(
    "lora_tied", "no_scale", "s left out", forward=with_inputs(L.lora_tied, _set(s=1.0))
)

# ---- convolution

for _name, _f, _b in (
    ("lora_conv2d", L.lora_conv2d, L.lora_conv2d_backward),
    ("lora_conv1d", L.lora_conv1d, L.lora_conv1d_backward),
):
    _both = (_f, _b)
    add(_name, "no_scale", "s left out", forward=with_inputs(_f, _set(s=1.0)))
    add(
        _name,
        "dilation_dropped",
        "A is applied without the base's dilation",
        forward=with_inputs(_f, _set(dilation=1)),
    )
    add(
        _name,
        "padding_dropped",
        "A is applied without the base's padding",
        forward=with_inputs(_f, _set(padding=0)),
    )
    add(
        _name,
        "dA_not_scaled",
        "s forgotten in dA",
        backward=edit(*_both, A=lambda g, dy, c: g / c[3]),
    )
    add(
        _name,
        "dB_mean",
        "the mean over the batch",
        backward=edit(*_both, B=mean_over_rows),
    )
    add(
        _name,
        "dx_base_alone",
        "the low-rank path forgotten in dx",
        backward=edit(
            *_both,
            x=lambda g, dy, c: F.conv2d_backward(
                dy.reshape(c[0][2] and dy.shape[0], dy.shape[1], -1, dy.shape[-1]),
                c[0],
            )[0].reshape(g.shape),
        ),
    )
    add(
        _name,
        "db_twice",
        "the bias added by base and adapter",
        backward=edit(*_both, b=scaled(2.0)),
    )
    add(
        _name,
        "kernel_flipped",
        "A's kernel turned end to end",
        forward=with_inputs(
            _f,
            lambda g: {
                k: np.flip(v, tuple(range(2, v.ndim))) if k.startswith("A_") else v
                for k, v in g.items()
            },
        ),
    )

# ---- fused qkv and the whole of attention

_Q = (L.lora_qkv, L.lora_qkv_backward)


def _exchange(first: str, second: str) -> Callable[[dict], dict]:
    """Put the factors of one part to the columns of another."""

    def change(given: dict) -> dict:
        keys = {k.split("_")[0]: k for k in given}
        out = dict(given)
        for letter in "AB":
            a, b = keys[letter + first], keys[letter + second]
            out[a], out[b] = given[b], given[a]
        return out

    return change


def _shared_A(given: dict) -> dict:
    """One A for all parts (q's, or the first that there is)."""
    keys = [k for k in given if k.startswith("A") and given[k] is not None]
    first = given[keys[0]]
    return given | {k: np.resize(first, given[k].shape) for k in keys}


def _last_part_dx(g: Any, dy: Any, c: Any) -> Any:
    x, W, parts, _, s, _ = c
    _, A, B, columns = parts[-1]
    wrong = dy @ W + s * dy[:, columns] @ B @ A
    return wrong if len(parts) > 1 else dy @ W


add(
    "lora_qkv",
    "keys_and_values_exchanged",
    "k's adapter on v's columns",
    forward=with_inputs(L.lora_qkv, _exchange("k", "v")),
)
add("lora_qkv", "no_scale", "s left out", forward=with_inputs(L.lora_qkv, _set(s=1.0)))
add(
    "lora_qkv",
    "one_A_for_all",
    "q, k and v share A: another method",
    forward=with_inputs(L.lora_qkv, _shared_A),
)
add(
    "lora_qkv",
    "dx_last_part_only",
    "dx overwritten part by part, not added",
    backward=edit(*_Q, x=_last_part_dx),
)
add(
    "lora_qkv",
    "dA_not_scaled",
    "s forgotten in dA",
    backward=edit(*_Q, **{n: lambda g, dy, c: g / c[4] for n in ("Aq", "Ak", "Av")}),
)
add(
    "lora_qkv",
    "dB_transposed",
    "shape (r, out)",
    backward=edit(*_Q, Bq=transposed, Bk=transposed, Bv=transposed),
)
add(
    "lora_qkv",
    "dB_mean",
    "the mean over the batch",
    backward=edit(*_Q, Bq=mean_over_rows, Bk=mean_over_rows, Bv=mean_over_rows),
)

_S = (L.lora_self_attention, L.lora_self_attention_backward)
add(
    "lora_self_attention",
    "keys_and_values_exchanged",
    "k's adapter on v's columns",
    forward=with_inputs(L.lora_self_attention, _exchange("k", "v")),
)
add(
    "lora_self_attention",
    "no_scale",
    "s left out",
    forward=with_inputs(L.lora_self_attention, _set(s=1.0)),
)
add(
    "lora_self_attention",
    "mask_inverted",
    "causal where it should not be, and not",
    forward=with_inputs(L.lora_self_attention, _set(causal=lambda g: not g["causal"])),
)
add(
    "lora_self_attention",
    "output_adapter_detached",
    "dAo, dBo never computed",
    backward=edit(*_S, Ao=scaled(0.0), Bo=scaled(0.0)),
)
add(
    "lora_self_attention",
    "value_adapter_detached",
    "dAv, dBv never computed",
    backward=edit(*_S, Av=scaled(0.0), Bv=scaled(0.0)),
)
add("lora_self_attention", "dx_negated", "a sign", backward=edit(*_S, x=scaled(-1.0)))

# ---- DoRA

_D = (L.dora_linear, L.dora_linear_backward)


def _as_constant(dy: Any, c: Any) -> tuple:
    """The norm treated as a constant (c[7] says whether the derivative is full)."""
    return L.dora_linear_backward(dy, (*c[:7], False, *c[8:]))


def _as_full(dy: Any, c: Any) -> tuple:
    return L.dora_linear_backward(dy, (*c[:7], True, *c[8:]))


def _base_norm(given: dict) -> dict:
    return given | {"norm_M": L.row_norm(given["W_MD"])}


def _column_norm(given: dict) -> dict:
    V = given["W_MD"] + given["s"] * given["B_MR"] @ given["A_RD"]
    return given | {"norm_M": np.resize(L.row_norm(V.T), V.shape[0])}


add(
    "dora_linear",
    "norm_detached",
    "the norm treated as a constant: about a third off",
    backward=_as_constant,
)
add(
    "dora_linear",
    "norm_of_base",
    "‖W‖ instead of ‖W + s B A‖",
    forward=with_inputs(L.dora_linear, _base_norm),
)
add(
    "dora_linear",
    "norm_of_columns",
    "column norms: the paper's layout on (out, in)",
    forward=with_inputs(L.dora_linear, _column_norm),
)
add(
    "dora_constant_norm",
    "norm_differentiated",
    "the full derivative of another function",
    backward=_as_full,
)
add(
    "dora_constant_norm",
    "norm_recomputed",
    "the given norm ignored",
    forward=with_inputs(L.dora_linear, _base_norm),
)
for _name in ("dora_linear", "dora_constant_norm"):
    add(
        _name,
        "dB_not_scaled",
        "s forgotten in dB",
        backward=edit(*_D, B=lambda g, dy, c: g / c[6]),
    )
    add(
        _name,
        "magnitude_forgotten_in_dV",
        "m left out of dV",
        backward=edit(
            *_D,
            A=lambda g, dy, c: L.dora_linear_backward(
                dy, (*c[:3], np.ones_like(c[3]), *c[4:])
            )[2],
        ),
    )
    add(
        _name,
        "dm_divided_by_m",
        "the gradient of ln m",
        backward=edit(*_D, m=lambda g, dy, c: g / (1 + c[3])),
    )
    add(_name, "dA_transposed", "shape (in, r)", backward=edit(*_D, A=transposed))

WRONG = tuple(catalogue.items)
