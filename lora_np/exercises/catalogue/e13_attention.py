"""Attention with a mask."""

import numpy as np

from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes
from lora_np.functional import softmax


def attention(q, k, v, mask):
    """softmax(q kᵀ / √K) v, where each query looks at the keys that its mask allows.

    q: (T, K)   k: (S, K)   v: (S, H)   mask: (T, S), True where query t may look at
    key s (at least one in each row)   Returns y: (T, H).
    """
    scores = q @ k.T / float(np.sqrt(q.shape[1]))
    scores = np.where(mask, scores, -np.inf)
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True)) @ v


def problem(d):
    T, S, K, H = d.sizes(4)
    mask = d.mask(T, S)
    mask[np.arange(T), np.arange(T) % S] = True
    return {"q": d.array(T, K), "k": d.array(S, K), "v": d.array(S, H), "mask": mask}


def large(d):
    case = problem(d)
    return {**case, "q": 1000.0 * case["q"]}


def attended(q, k, v, mask, scale=None):
    """Row by row over the allowed keys alone."""
    scale = float(1 / np.sqrt(q.shape[1])) if scale is None else scale
    rows = [softmax(scale * (k[m] @ a))[0] @ v[m] for a, m in zip(q, mask, strict=True)]
    return np.stack(rows)


def scored(c, scale=None):
    return c.q @ c.k.T * (float(c.q.shape[1] ** -0.5) if scale is None else scale)


def masked_late(c):
    p = softmax(scored(c))[0] * c.mask
    return p @ c.v


def unshifted(c):
    e = np.exp(np.where(c.mask, scored(c), -np.inf))
    return e / e.sum(1, keepdims=True) @ c.v


def with_bias(c):
    """A large negative number added to the scores; the sums by einsum."""
    bias = np.where(c.mask, 0, np.finfo(c.q.dtype).min / 4).astype(c.q.dtype)
    scores = np.einsum("tk,sk->ts", c.q, c.k) * float(c.q.shape[1] ** -0.5) + bias
    p = np.exp(scores - scores.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return np.einsum("ts,sh->th", p, c.v)


def renormalised(c):
    """Weights of the forbidden keys set to 0, then the division by what is left."""
    top = np.where(c.mask, scored(c), -np.inf).max(1, keepdims=True)
    e = np.exp(np.minimum(scored(c) - top, 0)) * c.mask
    return e @ c.v / e.sum(1, keepdims=True)


EXERCISE = Exercise(
    id="e13",
    title="attention",
    kind="implement",
    minutes=12,
    difficulty=2,
    needs=("e01",),
    ask="""
    One head: T queries look at S keys, each query only where its row of the mask is
    True (causal attention is the case mask[t, s] = s <= t). Keys have K entries,
    values H.
    """,
    functions=(attention,),
    returns=("y",),
    want=lambda c: attended(**c),
    laws=(
        Law(
            "{arrays} is not softmax(q kᵀ / sqrt(K)) v over the allowed keys.", problem
        ),
        Law("scores of some thousands have weights like any other.", large),
    ),
    mistakes=mistakes(
        attention,
        ("y",),
        mistake(
            "no_scale",
            "scores without the division by sqrt(K)",
            lambda c: attended(c.q, c.k, c.v, c.mask, 1.0),
        ),
        mistake(
            "no_shift",
            "exp of the scores without subtracting the row's largest: it overflows",
            unshifted,
        ),
        mistake(
            "scale_K",
            "scores divided by K where its square root belongs",
            lambda c: attended(c.q, c.k, c.v, c.mask, 1 / c.q.shape[1]),
        ),
        mistake(
            "scale_of_values",
            "scores divided by sqrt(H), the width of the values",
            lambda c: attended(c.q, c.k, c.v, c.mask, float(c.v.shape[1] ** -0.5)),
        ),
        mistake(
            "scale_of_keys",
            "scores divided by sqrt(S), the number of keys",
            lambda c: attended(c.q, c.k, c.v, c.mask, float(len(c.k) ** -0.5)),
        ),
        mistake(
            "mask_after_softmax",
            "a mask on the probabilities: the allowed ones no longer sum to 1",
            masked_late,
        ),
        mistake(
            "mask_ignored",
            "attention to all keys: the mask is not used",
            lambda c: softmax(scored(c))[0] @ c.v,
        ),
        mistake(
            "mask_inverted",
            "attention to the forbidden keys: the mask is turned round",
            lambda c: softmax(np.where(c.mask, -np.inf, scored(c)))[0] @ c.v,
        ),
        mistake(
            "mask_multiplied",
            "scores set to 0 where forbidden: exp(0) = 1 is still a weight",
            lambda c: softmax(scored(c) * c.mask)[0] @ c.v,
        ),
        mistake(
            "softmax_over_queries",
            "a softmax over the queries (axis 0), not over the keys",
            lambda c: softmax(np.where(c.mask, scored(c), -1e30).T)[0].T @ c.v,
        ),
        mistake(
            "no_softmax",
            "scores used as weights without a softmax",
            lambda c: np.where(c.mask, scored(c), 0) @ c.v,
        ),
    ),
    others=(with_bias, renormalised, lambda c: attended(c.q, c.k, c.v, c.mask)),
    hints=(
        "Three steps: scores (T, S), softmax along the keys, weighted sum of the "
        "values.",
        "Forbidden scores become -inf before the softmax: exp(-inf) = 0, and the rest "
        "sums to 1.",
        "    scores = np.where(mask, scores, ____)",
    ),
    why="""
    The mask belongs before the softmax, because the probabilities of the allowed keys
    must sum to 1. The division by √K keeps the variance of the scores at about 1 for
    random q and k; without it the softmax saturates and its gradient vanishes. With one
    head of K = 1 the scale cannot be seen: that is how tests miss it.
    """,
    follow_ups=(
        (
            "What does a row with no allowed key give?",
            "0/0. Padding needs a decision: zeros, or a key that is always allowed.",
        ),
        (
            "What does LoRA on q change in the scores?",
            "q = x (W + s B A)ᵀ, so scores gain s (x Aᵀ)(k B)ᵀ: a low-rank term.",
        ),
    ),
    read="lora_np/functional/attention.py; chapter 04",
)
