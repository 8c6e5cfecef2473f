"""Sampling text from a model, with a key/value cache.

B = 1 sequence · V vocabulary
"""

from collections.abc import Sequence

import numpy as np

from lora_np.backend import Array, get_xp, to_host
from lora_np.graph import no_grad
from lora_np.models.gpt import GPT


def next_distribution(
    logits_V: np.ndarray,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> np.ndarray:
    """Probabilities after temperature, then top-k, then top-p (nucleus).

    temperature 0 puts everything on the largest logit. top_p keeps the smallest set of
    tokens whose probabilities reach top_p (Holtzman et al. 2020, 1904.09751).
    Raises ValueError for options out of range.

    >>> next_distribution(np.log(np.array([0.5, 0.3, 0.2])), top_p=0.6).round(3)
    array([0.625, 0.375, 0.   ])
    """
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be 0 or more and finite, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be 1 or more, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p must be more than 0 and at most 1, got {top_p}")
    logits = logits_V.astype(np.float64)
    if temperature == 0:
        return (np.arange(logits.size) == logits.argmax()).astype(np.float64)
    order = np.argsort(-logits, kind="stable")
    p = np.exp((logits[order] - logits[order[0]]) / temperature)
    p[p.size if top_k is None else top_k :] = 0.0
    p /= p.sum()
    if top_p is not None and top_p < 1.0:
        p[np.cumsum(p) - p >= top_p] = 0.0  # what came before already reaches top_p
        p /= p.sum()
    out = np.empty_like(p)
    out[order] = p
    return out


def generate(
    model: GPT,
    prompt: Sequence[int] | np.ndarray,
    max_new_tokens: int,
    rng: np.random.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    use_cache: bool = True,
    stop: int | None = None,
) -> np.ndarray:
    """The prompt's ids (T,) followed by up to max_new_tokens sampled ones.

    With the cache each step computes one position. When all n_positions are used, the
    window moves on by half of them and is computed again (with and without the cache,
    so both see the same context). `stop`: an id that ends the text.
    Raises ValueError for an empty prompt, IndexError for ids outside the vocabulary.
    """
    ids = [int(i) for i in prompt]
    if not ids or max_new_tokens < 0:
        raise ValueError(
            "generate needs a prompt of at least one id and "
            f"max_new_tokens of 0 or more, got {max_new_tokens}"
        )
    room, was_training = model.config.n_positions, model.training
    start, cache = max(0, len(ids) - room), None
    model.eval()
    try:
        with no_grad():
            for _ in range(max_new_tokens):
                if len(ids) - start > room:
                    start, cache = len(ids) - max(1, room // 2), None
                if use_cache and cache is None:
                    cache = model.new_cache(1)
                seen = start + (cache[0].length if cache else 0)
                logits = _last_logits(model, np.array([ids[seen:]]), cache)
                p = next_distribution(logits, temperature, top_k, top_p)
                ids.append(int(rng.choice(p.size, p=p)))
                if ids[-1] == stop:
                    break
    finally:
        model.train(was_training)
    return np.array(ids)


def _last_logits(model: GPT, ids_1T: Array, cache: list | None) -> np.ndarray:
    """Logits of the last position only."""
    h = model.hidden(ids_1T, cache=cache).data[-1:]
    return to_host(h @ get_xp(h).asarray(model.head().data).T)[0]
