"""One step of generation with a key/value cache."""

import numpy as np

from lora_np.exercises.exercise import Exercise, Law, mistake, mistakes
from lora_np.functional import softmax


def cache_step(q, k, v, keys, values):
    """Attention of one new token to itself and to all before it.

    q, k: (K,) and v: (H,) of the new token   keys: (S, K), values: (S, H) of the S
    tokens before (S may be 0)   Returns (y, keys, values) with y: (H,) and the caches
    longer by one row. The caches that came in are not changed.
    """
    keys = np.concatenate([keys, k[None]])
    values = np.concatenate([values, v[None]])
    scores = keys @ q / float(np.sqrt(len(q)))
    e = np.exp(scores - scores.max())
    return (e / e.sum()) @ values, keys, values


def problem(d):
    S, K, H = d.sizes(3)
    return {
        "q": d.array(K),
        "k": d.array(K),
        "v": d.array(H),
        "keys": d.array(S, K),
        "values": d.array(S, H),
    }


def large(d):
    case = problem(d)
    return {**case, "q": 1000.0 * case["q"]}


def first_token(d):
    K, H = d.sizes(2)
    return {
        "q": d.array(K),
        "k": d.array(K),
        "v": d.array(H),
        "keys": np.zeros((0, K)),
        "values": np.zeros((0, H)),
    }


def looked(q, keys, values, scale=None):
    scale = float(len(q) ** -0.5) if scale is None else scale
    return softmax(scale * (keys @ q))[0] @ values


def grown(c, back=False):
    new = (c.k[None], c.keys) if back else (c.keys, c.k[None])
    return np.vstack(new), np.vstack(
        (c.v[None], c.values) if back else (c.values, c.v[None])
    )


def full(case):
    """The last row of attention over the whole sequence."""
    keys = np.append(case["keys"], case["k"][None], axis=0)
    values = np.append(case["values"], case["v"][None], axis=0)
    return looked(case["q"], keys, values), keys, values


def old_only(c):
    y = looked(c.q, c.keys, c.values) if len(c.keys) else 0 * c.v
    return (y, *grown(c))


def replaced(c):
    keys, values = c.keys.copy(), c.values.copy()
    if not len(keys):
        return (c.v.copy(), *grown(c))
    keys[-1], values[-1] = c.k, c.v
    return looked(c.q, keys, values), keys, values


def unshifted(c):
    keys, values = grown(c)
    e = np.exp(keys @ c.q * float(len(c.q) ** -0.5))
    return e / e.sum() @ values


def preallocated(c):
    S = len(c.keys)
    keys, values = (
        np.empty((S + 1, len(c.k)), c.k.dtype),
        np.empty((S + 1, len(c.v)), c.v.dtype),
    )
    keys[:S], values[:S], keys[S], values[S] = c.keys, c.values, c.k, c.v
    return looked(c.q, keys, values), keys, values


def in_two_parts(c):
    """Old and new apart, joined by their weights, as blockwise attention does."""
    scale = float(len(c.q) ** -0.5)
    before, own = scale * (c.keys @ c.q), scale * (c.k @ c.q)
    top = max([own, *before])
    old, new = np.exp(before - top), np.exp(own - top)
    y = (old @ c.values + new * c.v) / (old.sum() + new)
    return (y, *grown(c))


EXERCISE = Exercise(
    id="e15",
    title="a key/value cache",
    kind="implement",
    minutes=10,
    difficulty=2,
    needs=("e13",),
    ask="""
    Generating token by token, keys and values of earlier tokens never change. Write
    one step: append the new key and value, let the new query look at all of them.
    The result must equal the last row of attention over the whole sequence.
    """,
    functions=(cache_step,),
    returns=("y", "keys", "values"),
    want=full,
    laws=(
        Law("{arrays} differ from the last row of attention over all tokens.", problem),
        Law("scores of some thousands have weights like any other.", large),
        Law("the first token, with empty caches, looks at itself.", first_token),
    ),
    mistakes=mistakes(
        cache_step,
        ("y", "keys", "values"),
        mistake(
            "itself_not_seen",
            "attention to the tokens before alone: a token also looks at itself",
            old_only,
        ),
        mistake(
            "prepended",
            "caches with the new row in front: the order of positions is lost",
            lambda c: (looked(c.q, *grown(c)), *grown(c, back=True)),
        ),
        mistake(
            "not_grown",
            "the caches as they came in: the next token will not see this one",
            lambda c: (looked(c.q, *grown(c)), c.keys, c.values),
        ),
        mistake("last_replaced", "the new row in place of the last one", replaced),
        mistake(
            "no_scale",
            "scores without the division by sqrt(K)",
            y=lambda c: looked(c.q, *grown(c), scale=1.0),
        ),
        mistake(
            "no_shift",
            "exp of the scores without subtracting the largest: it overflows",
            y=unshifted,
        ),
        mistake(
            "scale_of_values",
            "scores divided by sqrt(H), the width of the values",
            y=lambda c: looked(c.q, *grown(c), scale=float(len(c.v) ** -0.5)),
        ),
        mistake(
            "key_for_query",
            "scores of the new key with the others: q is not used",
            y=lambda c: looked(c.k, *grown(c)),
        ),
        mistake(
            "no_softmax",
            "a sum weighted with the scores themselves",
            y=lambda c: grown(c)[0] @ c.q * float(len(c.q) ** -0.5) @ grown(c)[1],
        ),
    ),
    others=(lambda c: full(vars(c)), preallocated, in_two_parts),
    hints=(
        "Append first, then attend: the new token is one of the keys.",
        "No mask is needed: all rows of the cache lie in the past or are the token "
        "itself.",
        "    keys = np.concatenate([keys, ____])",
    ),
    why="""
    The causal mask lets token t look at 0 … t, so its row of the attention needs
    only its own query and all keys so far. One step costs S K + S H multiply-adds
    instead of S times as many. Appending before attending gives the diagonal of the
    mask.
    """,
    follow_ups=(
        (
            "How many bytes does the cache of one sequence take?",
            "2 · layers · key heads · head size · length · bytes a number.",
        ),
        (
            "LoRA adapters are switched in the middle of a text. May the cache stay?",
            "No, not if k or v is adapted: its rows were computed with the old "
            "weights.",
        ),
    ),
    read="lora_np/models/gpt.py; chapter 04",
)
