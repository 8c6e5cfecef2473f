"""Bag-of-words preprocessing: tokens, stop words, stems; and a naive Bayes classifier.

N texts · V words · C classes
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np


def tokens(text: str) -> list[str]:
    """Lower-case words.

    >>> tokens("The LORD's day.")
    ['the', "lord's", 'day']
    """
    return re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower().replace("’", "'"))


def stop_words(texts: Sequence[str], count: int) -> set[str]:
    """The `count` most frequent words of the texts (Luhn 1958): no list to import.

    >>> stop_words(["the cat the dog"], 1)
    {'the'}
    """
    seen = Counter(w for text in texts for w in tokens(text))
    return {w for w, _ in seen.most_common(count)}


def english_stemmer() -> Callable[[str], str]:
    """Porter's second stemmer, of the optional package snowballstemmer.

    Raises ModuleNotFoundError that says what to install.
    """
    try:
        import snowballstemmer
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "stemming needs the package snowballstemmer: pip install snowballstemmer"
        ) from error
    return snowballstemmer.stemmer("english").stemWord


def prepare(
    text: str, drop: set[str] | None = None, stem: Callable[[str], str] | None = None
) -> list[str]:
    """Tokens without those in `drop`, each stemmed if a stemmer is given.

    >>> prepare("The cats sat", {"the"}, lambda w: w.rstrip("s"))
    ['cat', 'sat']
    """
    kept = [w for w in tokens(text) if not drop or w not in drop]
    return [stem(w) for w in kept] if stem else kept


class NaiveBayes:
    """Multinomial naive Bayes with add-one smoothing on lists of words.

    >>> model = NaiveBayes([["a", "a"], ["b"]], [0, 1], 2)
    >>> model.predict([["a"], ["b", "b"]])
    array([0, 1])
    """

    def __init__(self, texts: list[list[str]], labels: Sequence[int], classes: int):
        self.index = {w: i for i, w in enumerate(sorted({w for t in texts for w in t}))}
        counts = np.ones((classes, len(self.index) + 1))  # the last column: unknown
        for words, label in zip(texts, labels, strict=True):
            for w in words:
                counts[label, self.index[w]] += 1
        self.log_p = np.log(counts / counts.sum(axis=1, keepdims=True))

    def predict(self, texts: list[list[str]]) -> np.ndarray:
        """The likeliest class of each text, classes taken as equally frequent."""
        unknown = len(self.index)
        rows = [[self.index.get(w, unknown) for w in words] for words in texts]
        return np.array([self.log_p[:, r].sum(axis=1).argmax() for r in rows])
