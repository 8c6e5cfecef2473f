"""Wrong implementations of the pairs in `functional`."""

import functools
import inspect
import math
from typing import Any

import numpy as np

from lora_np import functional as F
from lora_np.backend import column_sum, erf
from lora_np.functional import attention as attention_forward
from lora_np.functional.rotary import _rotate
from lora_np.functional.unfold import taps
from lora_np.reference.wrong import (
    Catalogue,
    edit,
    first_row,
    mean_over_rows,
    transposed,
)

catalogue = Catalogue()
add = catalogue.add
ALL = F.ALL


# ---- linear, embedding


_L = (F.linear, F.linear_backward)
add(
    "linear",
    "dW_transposed",
    "dW = xᵀ dy: shape (in, out), not the weight's",
    backward=edit(*_L, W=transposed),
)
add(
    "linear",
    "db_mean",
    "the mean of dy over the batch instead of the sum",
    backward=edit(*_L, b=mean_over_rows),
)
add(
    "linear",
    "db_first_row",
    "no sum over the batch at all",
    backward=edit(*_L, b=first_row),
)
add(
    "linear",
    "dx_with_W_transposed",
    "dx = dy Wᵀ; raises unless the layer is square",
    backward=lambda dy, c: (dy @ c[1].T, *F.linear_backward(dy, c)[1:]),
)
add(
    "linear",
    "dW_mean",
    "dW divided by the batch, as if the loss were a mean here",
    backward=edit(*_L, W=mean_over_rows),
)


def _embedding_set(dy: Any, cache: Any) -> tuple:
    ids, shape = cache
    dE = np.zeros(shape)
    dE[ids] = dy
    return (dE,)


def _embedding_buffered(dy: Any, cache: Any) -> tuple:
    ids, shape = cache
    dE = np.zeros(shape)
    dE[ids] += dy
    return (dE,)


def _embedding_mean(dy: Any, cache: Any) -> tuple:
    ids, shape = cache
    count = np.bincount(ids, minlength=shape[0])
    return (F.embedding_backward(dy, cache)[0] / np.maximum(count, 1)[:, None],)


add(
    "embedding",
    "repeats_overwritten",
    "dE[ids] = dy keeps the last of repeated ids",
    backward=_embedding_set,
)
add(
    "embedding",
    "repeats_lost",
    "dE[ids] += dy adds once for repeated ids",
    backward=_embedding_buffered,
)
add(
    "embedding",
    "repeats_averaged",
    "divided by how often the id occurs",
    backward=_embedding_mean,
)

# ---- norms


def _layer_norm_variant(root: Any, bias: float = 0.0) -> Any:
    def forward(x_ND: Any, g_D: Any, b_D: Any, eps: float, needs: Any = ALL) -> Any:
        centred = x_ND - x_ND.mean(-1, keepdims=True)
        D = x_ND.shape[-1]
        variance = (centred * centred).sum(-1, keepdims=True) / (D - bias)
        xhat = centred / root(variance, eps)
        wanted = ("x" in needs, "g" in needs, b_D is not None)
        y = xhat * g_D
        cache = (xhat, 1 / root(variance, eps), g_D, *wanted)
        return (y if b_D is None else y + b_D), cache

    return forward


_N = (F.layer_norm, F.layer_norm_backward)
add(
    "layer_norm",
    "eps_outside_root",
    "σ + eps instead of √(σ² + eps)",
    forward=_layer_norm_variant(lambda v, eps: np.sqrt(v) + eps),
)
add(
    "layer_norm",
    "no_eps",
    "eps left out",
    forward=_layer_norm_variant(lambda v, eps: np.sqrt(v)),
)
add(
    "layer_norm",
    "unbiased_variance",
    "divides by D - 1",
    forward=_layer_norm_variant(lambda v, eps: np.sqrt(v + eps), 1.0),
)
add(
    "layer_norm",
    "dx_mean_path_dropped",
    "forgets that μ depends on x",
    backward=edit(
        *_N,
        x=lambda g, dy, c: (
            c[1] * (dy * c[2] - c[0] * (dy * c[2] * c[0]).mean(-1, keepdims=True))
        ),
    ),
)
add(
    "layer_norm",
    "dx_variance_path_dropped",
    "forgets that σ depends on x",
    backward=edit(
        *_N, x=lambda g, dy, c: c[1] * (dy * c[2] - (dy * c[2]).mean(-1, keepdims=True))
    ),
)
add(
    "layer_norm",
    "dx_gain_forgotten",
    "uses dy where g · dy belongs",
    backward=lambda dy, c: (
        F.layer_norm_backward(dy, (*c[:2], np.ones_like(c[2]), *c[3:]))[0],
        *F.layer_norm_backward(dy, c)[1:],
    ),
)
add(
    "layer_norm",
    "db_first_row",
    "no sum over the batch",
    backward=edit(*_N, b=first_row),
)
_R = (F.rms_norm, F.rms_norm_backward)
add(
    "rms_norm",
    "mean_subtracted",
    "a layer norm by habit",
    forward=lambda x_ND, g_D, eps, needs=ALL: F.rms_norm(
        x_ND - x_ND.mean(-1, keepdims=True), g_D, eps, needs=needs
    ),
)
add(
    "rms_norm",
    "dx_projection_dropped",
    "forgets that the length depends on x",
    backward=edit(*_R, x=lambda g, dy, c: dy * c[2] * c[1]),
)
add(
    "rms_norm",
    "sum_for_mean",
    "divides by the length ‖x‖, not by its root mean square",
    forward=lambda x_ND, g_D, eps, needs=ALL: F.rms_norm(
        x_ND, g_D / math.sqrt(x_ND.shape[1]), eps, needs=needs
    ),
)
add(
    "rms_norm",
    "dg_mean",
    "the mean over the batch in dg",
    backward=edit(*_R, g=mean_over_rows),
)

# ---- activations: their cache is the slope, so a wrong slope is a wrong forward


def _slope(f: Any, wrong_slope: Any) -> Any:
    return lambda x, needs=ALL: (f(x, needs=needs)[0], wrong_slope(x))


def _phi(x: Any) -> Any:
    return np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _tanh_slope(x: Any, three: float) -> Any:
    c, k = math.sqrt(2 / math.pi), 0.044715
    t = np.tanh(c * (x + k * x * x * x))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + three * k * x * x)


add(
    "relu",
    "mask_of_dy",
    "1[dy > 0] instead of 1[x > 0]",
    backward=lambda dy, c: (dy * (dy > 0),),
)
add("relu", "no_mask", "the gradient passes everywhere", backward=lambda dy, c: (dy,))
add(
    "relu",
    "absolute_value",
    "max(x, -x)",
    forward=lambda x, needs=ALL: (np.where(x.real > 0, x, -x), F.relu(x)[1]),
)
add(
    "gelu",
    "density_term_dropped",
    "Φ(x) alone, x φ(x) forgotten",
    forward=_slope(F.gelu, lambda x: 0.5 * (1 + erf(x * math.sqrt(0.5)))),
)
add(
    "gelu",
    "tanh_approximation",
    "the tanh form under the name of the exact one",
    forward=F.gelu_tanh,
)
add(
    "gelu",
    "density_not_normalised",
    "φ without 1/√(2π)",
    forward=_slope(
        F.gelu, lambda x: F.gelu(x)[1] + x * _phi(x) * (math.sqrt(2 * math.pi) - 1)
    ),
)
add(
    "gelu_tanh",
    "three_forgotten",
    "derivative of x³ taken as x²",
    forward=_slope(F.gelu_tanh, lambda x: _tanh_slope(x, 1.0)),
)
add(
    "gelu_tanh",
    "exact_slope",
    "the exact GELU's slope under the tanh form",
    forward=lambda x, needs=ALL: (F.gelu_tanh(x)[0], F.gelu(x)[1]),
)
add(
    "gelu_tanh",
    "exact_form",
    "the exact form under the name of the approximation",
    forward=F.gelu,
)
add(
    "silu",
    "slope_of_sigmoid",
    "σ(1-σ), the product rule forgotten",
    forward=_slope(F.silu, lambda x: F.sigmoid(x) * (1 - F.sigmoid(x))),
)
add("silu", "gate_only", "σ alone, x σ' forgotten", forward=_slope(F.silu, F.sigmoid))
add(
    "silu",
    "sigmoid_of_minus_x",
    "x σ(-x)",
    forward=lambda x, needs=ALL: (lambda y, s: (-y, s))(*F.silu(-x)),
)
add(
    "swiglu",
    "gate_and_value_swapped",
    "silu(b) · a",
    forward=lambda a, b, needs=ALL: F.swiglu(b, a, needs=needs),
)
add(
    "swiglu",
    "db_without_silu",
    "db = dy · a",
    forward=lambda a, b, needs=ALL: (F.swiglu(a, b)[0], (F.silu(a)[1] * b, a)),
)
add(
    "swiglu",
    "gradients_swapped",
    "da and db exchanged",
    backward=lambda dy, c: F.swiglu_backward(dy, c)[::-1],
)

# ---- softmax, cross-entropy, dropout

add(
    "softmax",
    "diagonal_only",
    "p (1 - p), the off-diagonal terms forgotten",
    backward=lambda dy, p: (dy * p * (1 - p),),
)
add("softmax", "sum_not_subtracted", "p · dp", backward=lambda dy, p: (dy * p,))
add(
    "softmax",
    "first_axis",
    "normalised over the wrong axis",
    forward=lambda z, needs=ALL: (lambda p: (p, p))(
        np.swapaxes(F.softmax(np.swapaxes(z, 0, -1))[0], 0, -1)
    ),
)
add(
    "softmax",
    "mean_subtracted",
    "the plain mean of dp instead of the one weighted by p",
    backward=lambda dy, p: (p * (dy - dy.mean(-1, keepdims=True)),),
)


def _rows_for_counted(reduction_wrong: str) -> Any:
    """Cross-entropy that divides by all rows, or by none, whatever is asked for."""

    def forward(
        z_NV: Any,
        target_N: Any,
        ignore_index: int,
        reduction: str,
        needs: Any = ALL,
    ) -> Any:
        y, c = F.cross_entropy(z_NV, target_N, ignore_index, "sum", needs=needs)
        n = len(target_N) if reduction_wrong == "rows" and reduction == "mean" else 1
        return y / n, None if c is None else c / n

    return forward


def _without_one_hot(
    z_NV: Any,
    target_N: Any,
    ignore_index: int,
    reduction: str,
    needs: Any = ALL,
) -> Any:
    y, c = F.cross_entropy(z_NV, target_N, ignore_index, reduction, needs=needs)
    counted = target_N != ignore_index
    n = counted.sum() if reduction == "mean" else 1
    return y, F.softmax(z_NV)[0] * counted[:, None] / n


add(
    "cross_entropy",
    "ignored_rows_in_mean",
    "divides by all rows, not by the counted ones",
    forward=_rows_for_counted("rows"),
)
add("cross_entropy", "sum_for_mean", "never divides", forward=_rows_for_counted("none"))
add(
    "cross_entropy",
    "one_hot_forgotten",
    "dz = p: never pulls the target up",
    forward=_without_one_hot,
)
add(
    "cross_entropy",
    "ignored_rows_trained",
    "target -100 read as the last token",
    forward=lambda z_NV, target_N, ignore_index, reduction, needs=ALL: F.cross_entropy(
        z_NV,
        np.where(target_N == ignore_index, z_NV.shape[1] - 1, target_N),
        ignore_index,
        reduction,
        needs=needs,
    ),
)
add(
    "cross_entropy",
    "ignore_index_hard_coded",
    "-100 whatever was asked for",
    forward=lambda z_NV, target_N, ignore_index, reduction, needs=ALL: F.cross_entropy(
        z_NV, target_N, -100, reduction, needs=needs
    ),
)
add(
    "cross_entropy",
    "upstream_forgotten",
    "ignores dL/dloss",
    backward=lambda dy, c: (c,),
)
add(
    "cross_entropy",
    "base_two",
    "bits where nats are meant",
    forward=lambda z_NV, target_N, ignore_index, reduction, needs=ALL: tuple(
        None if v is None else v / math.log(2)
        for v in F.cross_entropy(z_NV, target_N, ignore_index, reduction, needs=needs)
    ),
)


def _mean_of_means(
    h_ND: Any,
    W_VD: Any,
    target_N: Any,
    ignore_index: int,
    reduction: str,
    piece: int,
    needs: Any = ALL,
) -> Any:
    """Each piece's own mean, and their mean: wrong when pieces count differently."""
    if reduction == "sum":
        return F.linear_cross_entropy(h_ND, W_VD, target_N, ignore_index, "sum", piece)
    cuts = range(0, len(target_N), piece)
    parts = [
        F.linear_cross_entropy(
            h_ND[i : i + piece], W_VD, target_N[i : i + piece], ignore_index
        )
        for i in cuts
        if (target_N[i : i + piece] != ignore_index).any()
    ]
    n = len(parts)
    dh, at = np.zeros(h_ND.shape, np.result_type(h_ND, W_VD)), 0
    for i in cuts:
        if (target_N[i : i + piece] != ignore_index).any():
            dh[i : i + piece], at = parts[at][1][0] / n, at + 1
    return sum(p[0] for p in parts) / n, (dh, sum(p[1][1] for p in parts) / n)


_C = (F.linear_cross_entropy, F.linear_cross_entropy_backward)
add(
    "linear_cross_entropy",
    "mean_of_piece_means",
    "pieces that count fewer weigh more",
    forward=_mean_of_means,
)
add(
    "linear_cross_entropy",
    "upstream_forgotten",
    "ignores dL/dloss",
    backward=lambda dy, c: c,
)
add("linear_cross_entropy", "dW_transposed", "hᵀ dz", backward=edit(*_C, W=transposed))
add(
    "linear_cross_entropy",
    "dh_last_piece_only",
    "dh overwritten piece by piece",
    backward=edit(
        *_C,
        h=lambda g, dy, c: np.where(
            np.arange(len(g))[:, None] < (len(g) - 1) // 2 * 2, 0.0, g
        ),
    ),
)
add(
    "dropout",
    "backward_without_mask",
    "the gradient passes where nothing went forward",
    backward=lambda dy, c: (dy * c.max(),),
)
add(
    "dropout",
    "backward_not_rescaled",
    "1/(1-p) forgotten on the way back",
    backward=lambda dy, c: (dy * (c > 0),),
)
add(
    "dropout",
    "not_rescaled",
    "no 1/(1-p): training and evaluation differ in the mean",
    forward=lambda x, mask, p, needs=ALL: F.dropout(x, mask, 0.0, needs=needs),
)
add(
    "dropout",
    "mask_inverted",
    "keeps what should fall",
    forward=lambda x, mask, p, needs=ALL: F.dropout(x, ~mask, p, needs=needs),
)

# ---- attention

_A = (F.attention, F.attention_backward)


def _rescaled(power: float) -> Any:
    """Attention with another scale than 1/√K, with its own consistent backward."""

    def forward(q_BTHK: Any, k_BSGK: Any, v_BSGK: Any, causal: bool,
                key_mask_BS: Any = None, needs: Any = ALL) -> Any:  # fmt: skip
        f = q_BTHK.shape[3] ** power
        y, c = attention_forward(q_BTHK * f, k_BSGK, v_BSGK, causal, key_mask_BS)
        return y, (c, f)

    def backward(dy: Any, cache: Any) -> tuple:
        dq, dk, dv = F.attention_backward(dy, cache[0])
        return dq * cache[1], dk, dv

    return {"forward": forward, "backward": backward}


def _mask_after(q_BTHK: Any, k_BSGK: Any, v_BSGK: Any, causal: bool,
                key_mask_BS: Any = None, needs: Any = ALL) -> Any:  # fmt: skip
    """Softmax over everything, hidden entries set to zero afterwards."""
    _, c = attention_forward(q_BTHK, k_BSGK, v_BSGK)
    p, S = c[3], k_BSGK.shape[1]
    steps = q_BTHK.shape[1]
    if causal:
        p = p * (np.arange(S)[None] <= np.arange(S - steps, S)[:, None])
    if key_mask_BS is not None:
        p = p * key_mask_BS[:, None, None, None, :]
    o = (p @ c[2]).transpose(0, 3, 1, 2, 4).reshape(q_BTHK.shape)
    return o, (*c[:3], p, *c[4:])


def _group_first_head(dy: Any, cache: Any) -> tuple:
    """dk, dv from the first query head of each group alone."""
    q, k, v, p, *rest = cache
    only = np.zeros(p.shape[2])
    only[0] = 1.0
    _, dk, dv = F.attention_backward(dy, (q, k, v, p * only[:, None, None], *rest))
    return F.attention_backward(dy, cache)[0], dk, dv


def _no_row_sum(dy: Any, cache: Any) -> tuple:
    q, k, v, p, scale, _, q_shape, k_shape = cache
    G, n = p.shape[1:3]
    dO = dy.reshape(*dy.shape[:2], G, n, -1).transpose(0, 2, 3, 1, 4)
    ds = p * (dO @ v.swapaxes(-1, -2)) * scale
    dq = (ds @ k).transpose(0, 3, 1, 2, 4).reshape(q_shape)
    dk = (ds.swapaxes(-1, -2) @ q).sum(2).transpose(0, 2, 1, 3)
    return dq, dk, F.attention_backward(dy, cache)[2]


def _heads_modulo(q_BTHK: Any, k_BSGK: Any, v_BSGK: Any, causal: bool,
                  key_mask_BS: Any = None, needs: Any = ALL) -> Any:  # fmt: skip
    H, G = q_BTHK.shape[2], k_BSGK.shape[2]
    order = np.argsort(np.arange(H) % G, kind="stable")
    y, c = attention_forward(q_BTHK[:, :, order], k_BSGK, v_BSGK, causal, key_mask_BS)
    return y[:, :, np.argsort(order)], c


add("attention", "no_scale", "1/√K forgotten", **_rescaled(0.5))
add("attention", "scale_without_root", "1/K instead of 1/√K", **_rescaled(-0.5))
add(
    "attention",
    "mask_after_softmax",
    "hidden keys still take their share of the sum",
    forward=_mask_after,
)
add(
    "attention",
    "not_causal",
    "later positions are visible",
    forward=lambda q_BTHK, k_BSGK, v_BSGK, causal, key_mask_BS=None, needs=ALL: (
        attention_forward(q_BTHK, k_BSGK, v_BSGK, False, key_mask_BS, needs=needs)
    ),
)
add(
    "attention",
    "padding_ignored",
    "padded keys are looked at",
    forward=lambda q_BTHK, k_BSGK, v_BSGK, causal, key_mask_BS=None, needs=ALL: (
        attention_forward(q_BTHK, k_BSGK, v_BSGK, causal, None, needs=needs)
    ),
)
add(
    "attention",
    "dS_row_sum_dropped",
    "the softmax's backward without Σ dP P",
    backward=_no_row_sum,
)
add(
    "attention",
    "dq_not_scaled",
    "1/√K forgotten in dQ",
    backward=edit(*_A, q=lambda g, dy, c: g / c[4]),
)
add(
    "attention",
    "group_first_head_only",
    "query heads that share a key do not add up",
    backward=_group_first_head,
)
add(
    "attention",
    "groups_interleaved",
    "query head h uses key h mod G, not h·G // H",
    forward=_heads_modulo,
)


def _qkv_reordered(order: str) -> Any:
    def forward(qkv_NC: Any, batch: int, heads: int, kv_heads: int, causal: bool,
                key_mask_BS: Any = None, rotary_base: Any = None,
                needs: Any = ALL) -> Any:  # fmt: skip
        K = qkv_NC.shape[1] // (heads + 2 * kv_heads)
        at = np.arange(qkv_NC.shape[1])
        ends = [heads * K, (heads + kv_heads) * K]
        q, k, v = np.split(at, ends)
        if order == "kv":
            at = np.concatenate([q, v, k])
        else:  # heads innermost: (size, heads) instead of (heads, size)
            at = np.concatenate([q.reshape(K, heads).T.ravel(), k, v])
        return F.qkv_attention(
            qkv_NC[:, at], batch, heads, kv_heads, causal, key_mask_BS, rotary_base
        )

    return forward


add(
    "qkv_attention",
    "keys_and_values_swapped",
    "columns read as q, v, k",
    forward=_qkv_reordered("kv"),
)
add(
    "qkv_attention",
    "heads_innermost",
    "columns read as (size, heads)",
    forward=_qkv_reordered("heads"),
)
add(
    "qkv_attention",
    "rotation_not_undone",
    "rotary forgotten in the backward",
    backward=lambda dy, c: F.qkv_attention_backward(dy, (c[0], None, None, *c[3:])),
)
add(
    "qkv_attention",
    "dv_dropped",
    "no gradient to the value columns",
    backward=lambda dy, c: (
        np.where(
            np.arange(c[-1][1]) < c[-1][1] * (c[4] + c[5]) // (c[4] + 2 * c[5]),
            F.qkv_attention_backward(dy, c)[0],
            0.0,
        ),
    ),
)
add(
    "rotary",
    "backward_rotates_forward",
    "the same angle instead of its negative",
    backward=lambda dy, c: (_rotate(dy, *c),),
)
add(
    "rotary",
    "backward_identity",
    "no rotation in the backward",
    backward=lambda dy, c: (dy,),
)
add(
    "rotary",
    "positions_from_zero",
    "the given positions are ignored",
    forward=lambda x_BTHK, position_T, base, needs=ALL: F.rotary(
        x_BTHK, np.arange(len(position_T)), base, needs=needs
    ),
)
add(
    "rotary",
    "base_squared",
    "exponent 4i/K instead of 2i/K",
    forward=lambda x_BTHK, position_T, base, needs=ALL: F.rotary(
        x_BTHK, position_T, base * base, needs=needs
    ),
)

# ---- convolution


def _with_signature(wrong: Any, right: Any) -> Any:
    """Parameters of the right one by name, so that problems can be passed on."""

    @functools.wraps(right)
    def call(*args: Any, **given: Any) -> Any:
        bound = inspect.signature(right).bind(*args, **given)
        needs = bound.arguments.pop("needs", ALL)
        bound.apply_defaults()
        bound.arguments.pop("needs", None)
        return wrong(needs=needs, **bound.arguments)

    return call


def _fold_overwriting(cols: Any, image: Any, options: Any) -> Any:
    (sh, sw), (ph, pw), (dh, dw) = options
    B, C, h, w, H2, W2 = cols.shape
    padded = np.zeros((B, C, image[0] + 2 * ph, image[1] + 2 * pw))
    for i, j, rows, columns in taps((H2, W2), (h, w), (sh, sw), (dh, dw)):
        padded[:, :, rows, columns] = cols[:, :, i, j]
    return padded[:, :, ph : ph + image[0], pw : pw + image[1]]


def _conv_overwriting(dy: Any, cache: Any) -> tuple:
    _, W, shape, groups, options, image, _ = cache
    B, O, H2, W2 = dy.shape
    Wg = W.reshape(groups, O // groups, -1)
    dcols = Wg.swapaxes(-1, -2) @ dy.reshape(B, groups, O // groups, -1)
    dcols = dcols.reshape(B, shape[1] * groups, *shape[2:], H2, W2)
    return (_fold_overwriting(dcols, image, options), *F.conv2d_backward(dy, cache)[1:])


def _add_conv(name: str, forward: Any, backward: Any, axes: tuple) -> None:
    both = (forward, backward)
    flip = tuple(range(2, 2 + len(axes)))

    def positional(change: Any) -> Any:
        def wrong(*, needs: Any, **given: Any) -> Any:
            return forward(*change(list(given.values())), needs=needs)

        return _with_signature(wrong, forward)

    add(
        name,
        "kernel_flipped",
        "a convolution in the mathematician's sense",
        forward=positional(lambda a: [a[0], np.flip(a[1], flip), *a[2:]]),
    )
    add(
        name,
        "dilation_ignored",
        "dilation read as 1 (faults in the shape, or the sum)",
        forward=positional(lambda a: [*a[:5], 1, *a[6:]]),
    )
    add(
        name,
        "padding_ignored",
        "padding read as 0",
        forward=positional(lambda a: [*a[:4], 0, *a[5:]]),
    )
    add(
        name,
        "db_one_place",
        "no sum over the output places",
        backward=edit(
            *both,
            b=lambda g, dy, c: dy[(slice(None), slice(None)) + (0,) * len(axes)].sum(0),
        ),
    )
    add(
        name,
        "dW_batch_mean",
        "the mean over the batch",
        backward=edit(*both, W=mean_over_rows),
    )
    add(
        name,
        "dx_flipped",
        "dx turned end to end",
        backward=edit(*both, x=lambda g, dy, c: np.flip(g, flip)),
    )


_add_conv("conv2d", F.conv2d, F.conv2d_backward, ("h", "w"))
_add_conv("conv1d", F.conv1d, F.conv1d_backward, ("t",))
add(
    "conv2d",
    "dx_overlap_lost",
    "places that share a pixel overwrite each other",
    backward=_conv_overwriting,
)

# ---- LSTM

_K = (F.lstm_cell, F.lstm_cell_backward)


def _gates_reordered(forward: Any) -> Any:
    def wrong(*args: Any, needs: Any = ALL, **given: Any) -> Any:
        values = list(args) + list(given.values())
        H = values[1].shape[1]
        at = np.concatenate([np.arange(n * H, (n + 1) * H) for n in (0, 1, 3, 2)])
        return forward(*values[:3], *(v[at] for v in values[3:]), needs=needs)

    return wrong


def _cell_without_h_path(dy: Any, cache: Any) -> tuple:
    """dc ignores that h' also depends on c'."""
    x, h, c, Wx, Wh, i, f, g, o, t, _ = cache
    dh, dc = dy
    dz = np.concatenate(
        [
            dc * g * i * (1 - i),
            dc * c * f * (1 - f),
            dc * i * (1 - g * g),
            dh * t * o * (1 - o),
        ],
        axis=1,
    )
    return dz @ Wx, dz @ Wh, dc * f, dz.T @ x, dz.T @ h, column_sum(dz)


add(
    "lstm_cell",
    "gates_i_f_o_g",
    "the gates read in another library's order",
    forward=_gates_reordered(F.lstm_cell),
)
add(
    "lstm_cell",
    "hidden_path_dropped",
    "c' receives nothing through h' = o tanh(c')",
    backward=_cell_without_h_path,
)
add(
    "lstm_cell",
    "db_mean",
    "the mean over the batch",
    backward=edit(*_K, b=lambda g, dy, c: g / dy[0].shape[0]),
)
add(
    "lstm_cell",
    "old_cell_not_gated",
    "dc = dc' without the forget gate",
    backward=edit(*_K, c=lambda g, dy, c: g / c[6]),
)
add(
    "lstm_cell",
    "dWh_with_new_hidden",
    "uses h' where h belongs",
    backward=lambda dy, c: F.lstm_cell_backward(dy, (c[0], c[8] * c[9], *c[2:])),
)


def _lstm_cut(keep_h: bool, keep_c: bool, last_only: bool = False) -> Any:
    def backward(dy: Any, cache: Any) -> tuple:
        caches, _ = cache
        dhs, dc = dy
        dh, dxs, sums = np.zeros_like(dhs[0]), [], None
        for t in reversed(range(len(caches))):
            dx, dh, dc, *dw = F.lstm_cell_backward((dhs[t] + dh, dc), caches[t])
            if t:
                dh, dc = dh * keep_h, dc * keep_c
            dxs.append(dx)
            if sums is None or not last_only:
                sums = dw if sums is None else [a + b for a, b in zip(sums, dw)]
        return np.stack(dxs[::-1]), dh, dc, *sums

    return backward


add(
    "lstm",
    "truncated_hidden",
    "dh is not carried from step to step",
    backward=_lstm_cut(False, True),
)
add(
    "lstm",
    "truncated_cell",
    "dc is not carried from step to step",
    backward=_lstm_cut(True, False),
)
add(
    "lstm",
    "weights_overwritten",
    "only the last step's weight gradients",
    backward=_lstm_cut(True, True, last_only=True),
)
add(
    "lstm",
    "dx_reversed",
    "the steps' dx left in backward order",
    backward=edit(F.lstm, F.lstm_backward, x=lambda g, dy, c: g[::-1]),
)
add(
    "lstm",
    "gates_i_f_o_g",
    "the gates read in another library's order",
    forward=_gates_reordered(F.lstm),
)

WRONG = tuple(catalogue.items)
