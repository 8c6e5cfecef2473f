"""The backward of attention."""

import numpy as np

from lora_np.exercises.exercise import Exercise, Law, derivative, mistake, mistakes
from lora_np.functional import softmax


def attention_backward(dy, q, k, v, mask):
    """The backward of y = softmax(q kᵀ / √K, where mask allows) v.

    dy: (T, H) = dL/dy   q: (T, K)   k: (S, K)   v: (S, H)   mask: (T, S), True where
    query t may look at key s   Returns (dq, dk, dv), of the shapes of q, k and v.
    """
    scale = float(1 / np.sqrt(q.shape[1]))
    scores = np.where(mask, scale * (q @ k.T), -np.inf)
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p = p / p.sum(axis=1, keepdims=True)
    dv = p.T @ dy
    dp = dy @ v.T
    dscores = p * (dp - (dp * p).sum(axis=1, keepdims=True))
    return scale * (dscores @ k), scale * (dscores.T @ q), dv


def problem(d):
    T, S, K, H = d.sizes(4)
    mask = d.mask(T, S)
    mask[np.arange(T), np.arange(T) % S] = True
    return {
        "dy": d.array(T, H),
        "q": d.array(T, K),
        "k": d.array(S, K),
        "v": d.array(S, H),
        "mask": mask,
    }


def large(d):
    case = problem(d)
    return {**case, "q": 1000.0 * case["q"]}


def forward(c):
    scores = c.q @ c.k.T / np.sqrt(c.q.shape[1])
    return softmax(np.where(c.mask, scores, -1e30))[0] @ c.v


def pieces(c, mask=True):
    """(scale, p, dp, dscores)"""
    scale = float(c.q.shape[1] ** -0.5)
    scores = scale * (c.q @ c.k.T)
    p = softmax(np.where(c.mask, scores, -np.inf) if mask else scores)[0]
    dp = c.dy @ c.v.T
    return scale, p, dp, p * (dp - (dp * p).sum(1, keepdims=True))


def with_scale(c, factor):
    _, p, _, ds = pieces(c)
    return factor * (ds @ c.k), factor * (ds.T @ c.q), p.T @ c.dy


def from_scores(c, ds):
    scale, p, _, _ = pieces(c)
    return scale * (ds @ c.k), scale * (ds.T @ c.q), p.T @ c.dy


def unmasked(c):
    scale, p, _, ds = pieces(c, mask=False)
    return scale * (ds @ c.k), scale * (ds.T @ c.q), p.T @ c.dy


def unshifted(c):
    scale, _, dp, _ = pieces(c)
    e = np.exp(np.where(c.mask, scale * (c.q @ c.k.T), -np.inf))
    p = e / e.sum(1, keepdims=True)
    ds = p * (dp - (dp * p).sum(1, keepdims=True))
    return scale * (ds @ c.k), scale * (ds.T @ c.q), p.T @ c.dy


def by_jacobian(c):
    scale, p, dp, _ = pieces(c)
    ds = np.stack(
        [(np.diag(a) - np.outer(a, a)) @ b for a, b in zip(p, dp, strict=True)]
    )
    return scale * ds @ c.k, scale * ds.T @ c.q, p.T @ c.dy


def with_output(c):
    """The sum over keys as dy · y, as fused kernels compute it."""
    scale, p, dp, _ = pieces(c)
    y = p @ c.v
    ds = p * (dp - (c.dy * y).sum(1, keepdims=True))
    return (ds * scale) @ c.k, (ds * scale).T @ c.q, p.T @ c.dy


def key_by_key(c):
    scale, p, dp, _ = pieces(c)
    dq, dk, dv = np.zeros_like(c.q), np.zeros_like(c.k), np.zeros_like(c.v)
    mean = np.einsum("ts,ts->t", p, dp)
    for s in range(len(c.k)):
        ds = scale * p[:, s] * (dp[:, s] - mean)
        dq += ds[:, None] * c.k[s]
        dk[s] = ds @ c.q
        dv[s] = p[:, s] @ c.dy
    return dq, dk, dv


EXERCISE = Exercise(
    id="e14",
    title="the backward of attention",
    kind="derive",
    minutes=20,
    difficulty=3,
    needs=("e02", "e13"),
    ask="""
    y = p v with p = softmax of the scores q kᵀ / √K, forbidden ones left out. A
    loss sends back dy. Recompute p, and derive the gradients of q, k and v.
    """,
    functions=(attention_backward,),
    returns=("dq", "dk", "dv"),
    want=derivative(forward, {"dq": "q", "dk": "k", "dv": "v"}),
    laws=(
        Law("{arrays} is not the derivative of the loss sum(dy * y).", problem),
        Law("scores of some thousands have gradients like any other.", large),
    ),
    mistakes=mistakes(
        attention_backward,
        ("dq", "dk", "dv"),
        mistake(
            "dq_not_scaled",
            "dq without 1/sqrt(K): the scale is in the scores, so it comes back",
            dq=lambda c: pieces(c)[3] @ c.k,
        ),
        mistake(
            "dk_not_scaled", "dk without 1/sqrt(K)", dk=lambda c: pieces(c)[3].T @ c.q
        ),
        mistake(
            "not_scaled", "dq and dk without 1/sqrt(K)", lambda c: with_scale(c, 1.0)
        ),
        mistake(
            "scale_twice",
            "dq and dk with 1/K: the scale was applied twice",
            lambda c: with_scale(c, 1 / c.q.shape[1]),
        ),
        mistake(
            "softmax_diagonal",
            "dscores = p (1 - p) dp, the slope of a sigmoid",
            lambda c: from_scores(c, pieces(c)[1] * (1 - pieces(c)[1]) * pieces(c)[2]),
        ),
        mistake(
            "softmax_sum_missing",
            "dscores = p dp: the row's sum of dp * p is not subtracted",
            lambda c: from_scores(c, pieces(c)[1] * pieces(c)[2]),
        ),
        mistake(
            "softmax_skipped",
            "dscores = dp, as if there were no softmax",
            lambda c: from_scores(c, np.where(c.mask, pieces(c)[2], 0)),
        ),
        mistake(
            "mask_forgotten",
            "the gradients of attention to all keys: p was computed without the mask",
            unmasked,
        ),
        mistake(
            "no_shift",
            "exp of the scores without subtracting the row's largest: it overflows",
            unshifted,
        ),
        mistake(
            "dv_from_scores",
            "dv from the derivative of the scores; v is weighted with p",
            dv=lambda c: pieces(c)[3].T @ c.dy,
        ),
        mistake(
            "dv_mean",
            "dv as the mean over the queries, not their sum",
            dv=lambda c: pieces(c)[1].T @ c.dy / len(c.q),
        ),
    ),
    others=(by_jacobian, with_output, key_by_key),
    hints=(
        "Backwards through three steps: y = p v, p = softmax(scores), scores = q kᵀ "
        "/ √K.",
        "dv = pᵀ dy and dp = dy vᵀ; then the backward of softmax; then q and k as "
        "the two factors of a product, with the scale.",
        "    dscores = p * (dp - ____)",
    ),
    why="""
    Each step is a known one: a product, a softmax, a product. Where the mask
    forbids, p = 0, so dscores = 0 by itself: the mask needs no line of its own in
    the backward. The sum Σ_s dp p of a row equals dy · y of that row, which spares
    a (T, S) product: fused kernels use it.
    """,
    follow_ups=(
        (
            "What must be stored from the forward?",
            "q, k, v and either p (T S numbers) or one log-sum a row to recompute it.",
        ),
        (
            "With grouped heads, what changes for dk and dv?",
            "Several query heads share a key head: their gradients are summed.",
        ),
    ),
    read="lora_np/functional/attention.py; chapter 04",
)
