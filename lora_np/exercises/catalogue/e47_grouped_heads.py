"""The backward of scores with grouped heads."""

import numpy as np

from lora_np.exercises.exercise import Exercise, Law, derivative, mistake, mistakes


def grouped_scores_backward(dscores, q, k):
    """The backward of scores[h] = q[h] kᵀ[g] / √K, where g = h // (H / G).

    dscores: (H, T, S) = dL/dscores   q: (H, T, K)   k: (G, S, K), H a multiple of G:
    query heads 0 … H/G - 1 share key head 0, the next ones key head 1, and so on.
    Returns (dq, dk), of the shapes of q and k.
    """
    H, G = len(q), len(k)
    scale = float(1 / np.sqrt(q.shape[2]))
    dq = scale * (dscores @ np.repeat(k, H // G, axis=0))
    dk = scale * (dscores.transpose(0, 2, 1) @ q)  # (H, S, K): for each query head
    return dq, dk.reshape(G, H // G, *k.shape[1:]).sum(axis=1)


def problem(d):
    T, S = d.sizes(2, high=2)
    K = d.choice([1, 4])  # so that the scale is exact
    G, share = d.choice([(1, 1), (1, 2), (2, 1), (2, 2)])
    if d.rng is not None:
        G, share = d.choice([(2, 3), (3, 2)])
        K = 4  # so that the scale is seen
    H = G * share
    return {
        "dscores": d.array(H, T, S),
        "q": d.array(H, T, K),
        "k": d.array(G, S, K),
    }


def forward(c):
    """All heads at once, the key heads repeated."""
    k = np.repeat(c.k, len(c.q) // len(c.k), axis=0)
    return float(c.q.shape[2] ** -0.5) * (c.q @ k.transpose(0, 2, 1))


def parts(c):
    """(scale, heads a key head, dk of each query head)"""
    scale = float(c.q.shape[2] ** -0.5)
    each = scale * np.einsum("hts,htk->hsk", c.dscores, c.q)
    return scale, len(c.q) // len(c.k), each


def by_group(c):
    _, share, each = parts(c)
    return each.reshape(len(c.k), share, *c.k.shape[1:])


def right_dq(c, k=None):
    scale, share, _ = parts(c)
    return scale * np.einsum(
        "hts,hsk->htk", c.dscores, np.repeat(c.k, share, axis=0) if k is None else k
    )


def interleaved(c):
    """Query head h with key head h % G."""
    _, share, each = parts(c)
    dk = each.reshape(share, len(c.k), *c.k.shape[1:]).sum(0)
    return right_dq(c, np.tile(c.k, (share, 1, 1))), dk


def loops(c):
    scale, share, _ = parts(c)
    dq, dk = np.zeros_like(c.q), np.zeros_like(c.k)
    for h in range(len(c.q)):
        dq[h] = scale * c.dscores[h] @ c.k[h // share]
        dk[h // share] += scale * c.dscores[h].T @ c.q[h]
    return dq, dk


def with_einsum(c):
    scale, share, _ = parts(c)
    groups = (len(c.k), share)
    ds = c.dscores.reshape(*groups, *c.dscores.shape[1:])
    q = c.q.reshape(*groups, *c.q.shape[1:])
    dq = scale * np.einsum("gjts,gsk->gjtk", ds, c.k)
    return dq.reshape(c.q.shape), scale * np.einsum("gjts,gjtk->gsk", ds, q)


def scattered(c):
    _, share, each = parts(c)
    dk = np.zeros_like(c.k)
    np.add.at(dk, np.arange(len(c.q)) // share, each)
    return right_dq(c), dk


EXERCISE = Exercise(
    id="e47",
    title="a key head that several query heads share",
    kind="derive",
    minutes=10,
    difficulty=2,
    needs=("e14",),
    ask="""
    With grouped heads (GQA) there are H query heads and only G key heads: the first
    H / G query heads use key head 0, the next ones key head 1. The scores of head h are
    q[h] kᵀ / √K with the key head of its group. A loss sends back dscores. Derive the
    gradients of q and k.
    """,
    functions=(grouped_scores_backward,),
    returns=("dq", "dk"),
    want=derivative(
        forward, {"dq": "q", "dk": "k"}, cotangent="dscores", method="exact"
    ),
    laws=(
        Law("{arrays} is not the derivative of sum(dscores * scores).", problem, True),
    ),
    mistakes=mistakes(
        grouped_scores_backward,
        ("dq", "dk"),
        mistake(
            "dk_mean",
            "the mean over a group's query heads in dk: a shared thing gets the sum",
            dk=lambda c: by_group(c).mean(1),
        ),
        mistake(
            "dk_first_head",
            "dk from the first query head of each group alone",
            dk=lambda c: by_group(c)[:, 0],
        ),
        mistake(
            "dk_last_head",
            "dk from the last query head of each group: = where += belongs",
            dk=lambda c: by_group(c)[:, -1],
        ),
        mistake(
            "dk_not_summed",
            "one dk for each query head: those of a group share one key head, sum them",
            dk=lambda c: parts(c)[2],
        ),
        mistake(
            "dk_all_heads",
            "the sum over all query heads in every key head",
            dk=lambda c: np.broadcast_to(parts(c)[2].sum(0), c.k.shape).copy(),
        ),
        mistake(
            "interleaved",
            "gradients for key head h % G: neighbouring query heads share one, so "
            "it is h // (H / G)",
            interleaved,
        ),
        mistake(
            "dq_not_scaled",
            "dq without 1/sqrt(K)",
            dq=lambda c: right_dq(c) / parts(c)[0],
        ),
        mistake(
            "dk_not_scaled",
            "dk without 1/sqrt(K)",
            dk=lambda c: by_group(c).sum(1) / parts(c)[0],
        ),
        mistake(
            "not_scaled",
            "dq and dk without 1/sqrt(K)",
            lambda c: (
                right_dq(c) / parts(c)[0],
                by_group(c).sum(1) / parts(c)[0],
            ),
        ),
        mistake(
            "first_key_head",
            "dq with key head 0 for every query head",
            dq=lambda c: right_dq(c, np.repeat(c.k[:1], len(c.q), axis=0)),
        ),
    ),
    others=(loops, with_einsum, scattered),
    hints=(
        "The gradient of a shared thing is the sum over its uses. How often is a "
        "key head used?",
        "Compute dk as if each query head had a key head of its own, (H, S, K); then "
        "sum over the heads of each group.",
        "    return dq, dk.reshape(____, *k.shape[1:]).sum(axis=1)",
    ),
    why="""
    Without sharing, dk[h] = dscores[h]ᵀ q[h] / √K. Key head g stands in the scores
    of H / G query heads, so its gradient is the sum of theirs: the backward of the
    repetition. dq needs no sum, because a query head is used once; it reads the key
    head of its group. The same holds for the values.
    """,
    follow_ups=(
        (
            "By how much do grouped heads shrink the key/value cache?",
            "By H / G: G heads are stored instead of H.",
        ),
        (
            "LoRA is put on k. What do grouped heads change for dA and dB?",
            "B has G K rows instead of H K; what reaches it is the summed dk, so each "
            "of its rows gathers the gradients of H / G query heads.",
        ),
    ),
    read="lora_np/functional/attention.py; chapter 04",
)
