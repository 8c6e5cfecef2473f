"""D0's and D2's applications on the optional sets: sentiment, news, reviews, Chinese.

Each is LoRA of rank 8 on the embedded base, which read nothing but the Bible: what a
model of this size can do, not what the method can do.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lora_np.data import encode
from lora_np.data import fetch as sets
from lora_np.documents import experiments as ex
from lora_np.documents.d2 import task_by_prompt
from lora_np.documents.encoders import Classifier
from lora_np.graph import no_grad
from lora_np.training import fine_tune

TIME, STEPS, BATCH, TEST = 96, 60, 16, 240


@dataclass(frozen=True)
class Result:
    """One optional task: what was measured before and after LoRA."""

    task: str
    measure: str
    before: float
    after: float


def fixed(texts: list[str]) -> np.ndarray:
    """Bytes (B, TIME): the end cut off, the front filled with spaces."""
    rows = np.full((len(texts), TIME), 32, np.int64)
    for row, text in enumerate(texts):
        ids = encode(text)[:TIME]
        rows[row, TIME - len(ids) :] = ids
    return rows


def split_by_document(rows: sets.Scored) -> tuple[sets.Scored, sets.Scored]:
    """(training, held-out): every fifth document is held out, whole.

    >>> split_by_document([("a", 1.0, str(i)) for i in range(5)])[1]
    [('a', 1.0, '4')]
    """
    names = {d: i for i, d in enumerate(dict.fromkeys(d for _, _, d in rows))}
    train = [r for r in rows if names[r[2]] % 5 != 4]
    return train, [r for r in rows if names[r[2]] % 5 == 4]


def classified(rows: sets.Scored, label: Callable[[float], int], classes: int) -> tuple:
    """(share of the largest class, accuracy, correlation of p_1 with the rating).

    Trained and tested with as many texts of each class.
    """
    rng = np.random.default_rng(0)
    train, held = ([(t, s) for t, s, _ in part] for part in split_by_document(rows))
    groups = [[t for t, s in train if label(s) == c] for c in range(classes)]

    def draw(r: np.random.Generator) -> tuple:
        labels = r.integers(0, classes, BATCH)
        texts = [groups[c][r.integers(len(groups[c]))] for c in labels]
        return fixed(texts), labels

    each = [[p for p in held if label(p[1]) == c] for c in range(classes)]
    size = min(TEST // classes, min(map(len, each)))
    tests = [
        p
        for group in each
        for p in (group[i] for i in rng.permutation(len(group))[:size])
    ]
    base = ex.base()
    model = Classifier(ex.lora(base), 128, classes, rng)
    fine_tune(model, draw, STEPS, 1e-2)
    with no_grad():
        z = model.logits(fixed([t for t, _ in tests])).data.astype(np.float64)
    truth = np.array([label(s) for _, s in tests])
    p = 1 / (1 + np.exp(z[:, 0] - z[:, -1]))
    ratings = np.array([s for _, s in tests])
    together = float(np.corrcoef(p, ratings)[0, 1]) if np.ptp(ratings) else 0.0
    return 1 / classes, float((z.argmax(axis=1) == truth).mean()), together


def sign(score: float) -> int:
    """Class 1 for a positive rating.

    >>> sign(-0.5), sign(2.0)
    (0, 1)
    """
    return int(score > 0)


def run(name: str) -> list[Result]:
    """Results on one fetched set.

    Raises FileNotFoundError that says how to fetch it.
    """
    found = []
    if name == "sentiment":
        kinds = {"movie": "movie reviews", "amazon": "product reviews",
                 "news": "news editorials", "tweets": "tweets"}  # fmt: skip
        for kind, words in kinds.items():
            chance, right, together = classified(sets.sentiment(kind), sign, 2)
            found.append(Result(f"{words}, polarity", "accuracy", chance, right))
            found.append(Result(f"{words}, intensity", "correlation", 0.0, together))
        mixed = [(t, float(i), f"{kind} {d}") for i, kind in
                 enumerate(("movie", "amazon", "news", "tweets"))
                 for t, _, d in sets.sentiment(kind)]  # fmt: skip
        chance, right, _ = classified(mixed, int, 4)
        found.append(Result("kind of text: film, product, news, tweet", "accuracy",
                            chance, right))  # fmt: skip
    elif name == "sentiment-zh":
        chance, right, _ = classified(sets.sentiment_zh(), sign, 2)
        found.append(Result("Chinese reviews, polarity", "accuracy", chance, right))
    else:
        before, after, _ = task_by_prompt(name.split("-")[1])
        language = {"zh": "Chinese", "fr": "French"}[name.split("-")[1]]
        found.append(Result(f"English to {language}, phrases", "nats a byte", before,
                            after))  # fmt: skip
    return found
