"""Wrong implementations of what the documents' systems need: low rank, losses, LSTM."""

from typing import Any

import numpy as np

from lora_np import functional as F
from lora_np import lora as L
from lora_np.functional.lstm import gate_gradients
from lora_np.reference.wrong import Catalogue, edit, mean_over_rows, scaled
from lora_np.reference.wrong_lora import with_inputs

catalogue = Catalogue()
add = catalogue.add

# ---- truncated SVD

_S = (F.truncated_svd, F.truncated_svd_backward)


def _svd_parts(cache: Any) -> tuple:
    U, sigma, Vt, k = cache
    return U[..., :k], U[..., k:], sigma, Vt[..., :k, :], Vt[..., k:, :], k


def _swap(a: Any) -> Any:
    return a.swapaxes(-1, -2)


def _frozen_bases(g: Any, dy: Any, cache: Any) -> Any:
    """y = P x with P held constant."""
    Uk = _svd_parts(cache)[0]
    return Uk @ (_swap(Uk) @ dy)


def _both_projected(g: Any, dy: Any, cache: Any) -> Any:
    Uk, _, _, Vk, _, _ = _svd_parts(cache)
    return Uk @ (_swap(Uk) @ dy @ _swap(Vk)) @ Vk


def _tangent_only(g: Any, dy: Any, cache: Any) -> Any:
    """The projection on the tangent space without the curvature."""
    Uk, _, _, Vk, _, _ = _svd_parts(cache)
    left, right = _swap(Uk) @ dy, dy @ _swap(Vk)
    return Uk @ left + right @ Vk - Uk @ (left @ _swap(Vk)) @ Vk


def _curvature(change: Any) -> Any:
    """The right formula with another coefficient c(kept, rest)."""

    def wrong(g: Any, dy: Any, cache: Any) -> Any:
        Uk, Ur, sigma, Vk, Vr, k = _svd_parts(cache)
        kept, rest = sigma[..., :k, None], sigma[..., None, k:]
        left, right = _swap(Uk) @ dy, dy @ _swap(Vk)
        a, b = left @ _swap(Vr), _swap(_swap(Ur) @ right)
        c, up, across = change(kept, rest)
        dx = _tangent_only(g, dy, cache) + Uk @ (c * (up * a + across * b)) @ Vr
        return dx + Ur @ _swap(c * (up * b + across * a)) @ Vk

    return wrong


for _name, _why, _change in (
    ("gap_not_squared", "1/(σ_i - σ_j) where the squares belong",
     lambda i, j: (j / (i - j), j, i)),
    ("sign_of_gap", "σ_j² - σ_i² in the denominator",
     lambda i, j: (j / (j * j - i * i), j, i)),
    ("values_exchanged", "σ_i where σ_j belongs and the other way round",
     lambda i, j: (j / (i * i - j * j), i, j)),
    ("one_side_only", "the mirrored entry g_ji forgotten",
     lambda i, j: (j / (i * i - j * j), j, 0 * i)),
):  # fmt: skip
    add("truncated_svd", _name, _why, backward=edit(*_S, x=_curvature(_change)))
add("truncated_svd", "bases_held_constant", "P x with the projector P not derived",
    backward=edit(*_S, x=_frozen_bases))  # fmt: skip
add("truncated_svd", "kept_block_only", "P dy Q: everything outside the block lost",
    backward=edit(*_S, x=_both_projected))  # fmt: skip
add("truncated_svd", "no_curvature", "the tangent projection alone",
    backward=edit(*_S, x=_tangent_only))  # fmt: skip
add("truncated_svd", "identity", "dy passed through as if nothing was cut",
    backward=edit(*_S, x=lambda g, dy, c: dy))  # fmt: skip


def _smallest_kept(x: Any, k: int, *, needs: Any = F.ALL) -> Any:
    U, s, Vt = np.linalg.svd(x, full_matrices=False)
    y = (U[..., -k:] * s[..., None, -k:]) @ Vt[..., -k:, :]
    return y, F.truncated_svd(x, k)[1]


def _values_forgotten(x: Any, k: int, *, needs: Any = F.ALL) -> Any:
    U, s, Vt = np.linalg.svd(x, full_matrices=False)
    return U[..., :k] @ Vt[..., :k, :], F.truncated_svd(x, k)[1]


add("truncated_svd", "smallest_kept", "the k smallest singular values kept",
    forward=_smallest_kept)  # fmt: skip
add("truncated_svd", "values_forgotten", "U_k V_kᵀ without Σ_k",
    forward=_values_forgotten)  # fmt: skip

# ---- projection

_P = (F.projection, F.projection_backward)
add("projection", "not_back_up", "x scaled where (x P) Pᵀ belongs",
    forward=lambda x_ND, P_DK, *, needs=F.ALL: (
        x_ND * (P_DK**2).sum(), F.projection(x_ND, P_DK)[1]))  # fmt: skip
add("projection", "dP_first_use_only", "P is used twice; one term of dP is missing",
    backward=edit(*_P, P=lambda g, dy, c: c[0].T @ (dy @ c[2])))  # fmt: skip
add("projection", "dP_second_use_only", "P is used twice; the other term is missing",
    backward=edit(*_P, P=lambda g, dy, c: dy.T @ c[1]))  # fmt: skip
add("projection", "dx_identity", "PPᵀ taken for 1, which it is in the mean only",
    backward=edit(*_P, x=lambda g, dy, c: dy))  # fmt: skip

# ---- Kullback-Leibler divergence

_K = (F.kl_divergence, F.kl_divergence_backward)


def _kl_reversed(z_NV: Any, w_NV: Any, reduction: str = "mean", *,
                 needs: Any = F.ALL) -> Any:  # fmt: skip
    return (F.kl_divergence(w_NV, z_NV, reduction)[0],
            F.kl_divergence(z_NV, w_NV, reduction)[1])  # fmt: skip


add("kl_divergence", "reversed", "KL(q ‖ p) for KL(p ‖ q)", forward=_kl_reversed)
add("kl_divergence", "dw_sign", "p - q for q - p", backward=edit(*_K, w=scaled(-1.0)))
add("kl_divergence", "dz_missing", "the teacher's side treated as a constant",
    backward=edit(*_K, z=scaled(0.0)))  # fmt: skip
add("kl_divergence", "dz_is_minus_dw", "p - q on the teacher's side, by symmetry",
    backward=edit(*_K, z=lambda g, dy, c: -c[1] * dy / c[2]))  # fmt: skip
add("kl_divergence", "mean_over_entries", "divided by rows times classes",
    backward=edit(*_K, z=lambda g, dy, c: g / g.shape[1],
                  w=lambda g, dy, c: g / g.shape[1]))  # fmt: skip

# ---- GAN losses

_D = (F.discriminator_loss, F.discriminator_loss_backward)
_G = (F.generator_loss, F.generator_loss_backward)


def _slopes(c: Any) -> tuple:
    return tuple(1.0 / (1.0 + np.exp(-x)) for x in c[:2])


def _labels_exchanged(real_N: Any, fake_M: Any, *, needs: Any = F.ALL) -> Any:
    return (F.discriminator_loss(-real_N, -fake_M)[0],
            F.discriminator_loss(real_N, fake_M)[1])  # fmt: skip


def _one_mean(g: Any, dy: Any, c: Any) -> Any:
    """One mean over all rows, real and generated together."""
    return g * len(g) / (len(c[0]) + len(c[1]))


add("discriminator_loss", "labels_exchanged", "real called generated and back",
    forward=_labels_exchanged)  # fmt: skip
add("discriminator_loss", "dreal_is_sigma", "σ(real) where 1 - σ(real) belongs",
    backward=edit(*_D, real=lambda g, dy, c: -_slopes(c)[0] * dy / len(g)))  # fmt: skip
add("discriminator_loss", "dfake_of_another", "1 - σ(fake) where σ(fake) belongs",
    backward=edit(*_D, fake=lambda g, dy, c: (1 - _slopes(c)[1]) * dy / len(g),
                  ))  # fmt: skip
add("discriminator_loss", "one_mean", "divided by the rows of both together",
    backward=edit(*_D, real=_one_mean, fake=_one_mean))  # fmt: skip
add("generator_loss", "maximised", "the sign: the generator would help to be found out",
    backward=edit(*_G, fake=scaled(-1.0)))  # fmt: skip
add("generator_loss", "other_form", "the slope of the other of the two forms",
    backward=lambda dy, c: F.generator_loss_backward(dy, (c[0], not c[1])))  # fmt: skip
add("generator_loss", "other_value", "the value of the other of the two forms",
    forward=lambda fake_M, saturating=False, *, needs=F.ALL: (
        F.generator_loss(fake_M, not saturating)[0],
        F.generator_loss(fake_M, saturating)[1]))  # fmt: skip
add("generator_loss", "sum_for_mean", "not divided by the rows",
    backward=edit(*_G, fake=lambda g, dy, c: g * len(g)))  # fmt: skip

# ---- LoRA on an LSTM

_L = (L.lora_lstm, L.lora_lstm_backward)


def _lstm_without_low(dy: Any, cache: Any) -> tuple:
    """The gradient to the earlier step goes through Wh alone."""
    x, steps, (Wx, Wh, Ax, Bx, Ah, Bh, s), wanted = cache
    none = None if Bh is None else 0 * Bh
    return L.lora_lstm_backward(dy, (x, steps, (Wx, Wh, Ax, Bx, Ah, none, s), wanted))


def _last_step_only(dy: Any, cache: Any) -> tuple:
    """Factor gradients of the last step alone."""
    x, steps, (Wx, Wh, Ax, Bx, Ah, Bh, s), _ = cache
    right = dict(zip(L.lora_lstm.wrt, L.lora_lstm_backward(dy, cache), strict=True))  # type: ignore[attr-defined]
    h, c, saved = steps[-1]
    dz, _ = gate_gradients(dy[0][-1], dy[1], c, saved)
    for name, v, A, B in (("x", x[-1], Ax, Bx), ("h", h, Ah, Bh)):
        if A is not None:
            right["A" + name] = (s * (dz @ B)).T @ v
            right["B" + name] = dz.T @ (s * (v @ A.T))
    return tuple(right.values())


def _first_gate(B: Any) -> Any:
    if B is None:
        return None
    H = B.shape[0] // 4
    return np.concatenate([B[:H], 0 * B[H:]])


add("lora_lstm", "no_scale", "s left out of the forward",
    forward=with_inputs(L.lora_lstm, lambda g: g | {"s": 1.0}))  # fmt: skip
add("lora_lstm", "one_gate_only", "the update added to the input gate alone",
    forward=with_inputs(L.lora_lstm, lambda g: g | {
        n: _first_gate(g[n]) for n in ("Bx_4HR", "Bh_4HR")}))  # fmt: skip
add("lora_lstm", "factors_not_scaled", "s twice in dA and dB",
    backward=edit(*_L, **{n: (lambda g, dy, c: g * c[2][6]) for n in
                          ("Ax", "Bx", "Ah", "Bh")}))  # fmt: skip
add("lora_lstm", "last_step_only", "the factors' gradient not summed over time",
    backward=_last_step_only)  # fmt: skip
add("lora_lstm", "recurrent_path_cut", "dh goes back through Wh, not through Bh Ah",
    backward=_lstm_without_low)  # fmt: skip
add("lora_lstm", "db_mean", "the mean over rows and steps",
    backward=edit(*_L, b=lambda g, dy, c: g / dy[1].shape[0]))  # fmt: skip
add("lora_lstm", "dx_reversed", "the steps' dx left in backward order",
    backward=edit(*_L, x=lambda g, dy, c: g[::-1]))  # fmt: skip

# ---- one frozen layer, many tasks

_T = (L.lora_linear_tasks, L.lora_linear_tasks_backward)


def _mean_bias(given: dict) -> dict:
    c = given["c_JM"]
    return given if c is None else given | {"c_JM": 0 * c + c.mean(axis=0)}


def _all_rows(dy: Any, cache: Any) -> tuple:
    """Every task's factors learn from all rows."""
    x, W, A, B, groups, s, wanted = cache
    every = np.arange(len(x))
    own = L.lora_linear_tasks_backward(dy, cache)
    wrong = L.lora_linear_tasks_backward(
        dy, (x, W, A, B, [(j, every) for j, _ in groups], s, wanted)
    )
    return own[0], wrong[1], wrong[2], own[3]


def _overwritten(dy: Any, cache: Any) -> tuple:
    """A task's rows overwrite each other: only its last row counts."""
    x, W, A, B, groups, s, wanted = cache
    last = [(j, rows[-1:]) for j, rows in groups]
    own = L.lora_linear_tasks_backward(dy, cache)
    wrong = L.lora_linear_tasks_backward(dy, (x, W, A, B, last, s, wanted))
    return own[0], wrong[1], wrong[2], own[3]


add("lora_linear_tasks", "first_task_for_all", "the batch's first task for every row",
    forward=with_inputs(L.lora_linear_tasks, lambda g: g | {
        "task_N": 0 * g["task_N"] + g["task_N"][0]}))  # fmt: skip
add("lora_linear_tasks", "bias_shared", "one bias, the tasks' mean, for all tasks",
    forward=with_inputs(L.lora_linear_tasks, _mean_bias))  # fmt: skip
add("lora_linear_tasks", "all_rows_teach_all", "every task learns from all rows",
    backward=_all_rows)  # fmt: skip
add("lora_linear_tasks", "rows_overwrite", "repeated tasks overwrite, not add",
    backward=_overwritten)  # fmt: skip
add("lora_linear_tasks", "dx_low_path_missing", "dx = dy W alone",
    backward=edit(*_T, x=lambda g, dy, c: dy @ c[1]))  # fmt: skip
add("lora_linear_tasks", "dA_not_scaled", "s left out of dA",
    backward=edit(*_T, A=lambda g, dy, c: g / c[5]))  # fmt: skip
add("lora_linear_tasks", "dA_mean", "the mean over the batch",
    backward=edit(*_T, A=mean_over_rows))  # fmt: skip

WRONG = tuple(catalogue.items)
