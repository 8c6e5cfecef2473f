"""Tasks made of the committed texts: questions, verse pairs, poems, labelled windows.

B batch · T time. Every split is by item (an element, a verse, a poem), never by window.
"""

import re
from collections.abc import Sequence

import numpy as np

from lora_np.data import encode, random_windows, read_text, split_ids

IGNORE = -100  # targets that do not count, as in functional.cross_entropy
Batch = tuple[np.ndarray, np.ndarray]
Pairs = list[tuple[str, str]]
BOOKS = ("bible", "devil", "elements")  # the classes of the book classifier


def every_fifth(items: Sequence) -> tuple[list, list]:
    """(training items, held-out items): items 4, 9, 14 … are held out.

    >>> every_fifth("abcdef")
    (['a', 'b', 'c', 'd', 'f'], ['e'])
    """
    return ([x for i, x in enumerate(items) if i % 5 != 4],
            [x for i, x in enumerate(items) if i % 5 == 4])  # fmt: skip


def element_entries() -> list[str]:
    """The 103 entries of the elements database, hydrogen to lawrencium.

    >>> element_entries()[1].split()[0], len(element_entries())
    ('helium', 103)
    """
    blocks = re.split(r"\n\s*\n", read_text("elements.txt"))
    return [b.strip() for b in blocks if re.search(r"^Symbol:", b, re.M)]


def element_questions(entries: list[str]) -> Pairs:
    """(question, answer) pairs: symbol, name, atomic number and weight of each.

    >>> element_questions(element_entries()[1:2])[0]
    ('What is the symbol of helium?', 'He')
    """
    pairs = []
    for entry in entries:
        name = entry.split("\n")[0]
        facts = dict(re.findall(r"^(Symbol|Atomic number|Atomic weight): *(.+)$",
                                entry, re.M))  # fmt: skip
        pairs.append((f"What is the symbol of {name}?", facts["Symbol"]))
        pairs.append((f"Which element is {facts['Symbol']}?", name))
        for fact in ("Atomic number", "Atomic weight"):
            question = f"What is the {fact.lower()} of {name}?"
            pairs.append((question, facts[fact].strip("() ")))
    return pairs


def verse_pairs() -> Pairs:
    """Genesis, (English, Spanish), verse by verse, quoted verbatim.

    >>> verse_pairs()[0][1]
    'EN el principio crió Dios los cielos y la tierra.'
    """
    english, spanish = (read_text(f"genesis_{c}.txt").splitlines() for c in "en es"
                        .split())  # fmt: skip
    return list(zip(english, spanish, strict=True))


def poems() -> list[str]:
    """The Tang poems, lines joined.

    >>> poems()[0][:12]
    '兰叶春葳蕤，桂华秋皎洁。'
    """
    blocks = read_text("tang.txt").strip().split("\n\n")
    return [b.replace("\n", "") for b in blocks]


class Characters:
    """A vocabulary of characters; id 0 stands for every character not in it.

    >>> c = Characters("aab", at_least=2); c.encode("abz"), c.decode([1, 0])
    (array([1, 0, 0]), 'a□')
    """

    def __init__(self, text: str, at_least: int = 1):
        seen, counts = np.unique(list(text), return_counts=True)
        kept = [str(c) for c, n in zip(seen, counts, strict=True) if n >= at_least]
        self.characters = ["□", *kept]
        self.ids = {c: i for i, c in enumerate(kept, start=1)}

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        """Ids (T,), 0 for unknown characters."""
        return np.array([self.ids.get(c, 0) for c in text], np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        """The characters; □ for the unknown."""
        return "".join(self.characters[int(i)] for i in ids)


def prompt_batch(pairs: Pairs, time: int) -> Batch:
    """(ids, targets), both (B, time): prompt, answer, line feed; only answers count.

    Longer pairs lose the end of their prompt first (never the answer, unless it alone
    is longer than `time` - 1).

    >>> x, y = prompt_batch([("a?", "b")], 6)
    >>> x.tolist(), y.tolist()
    ([[97, 63, 98, 0, 0, 0]], [[-100, 98, 10, -100, -100, -100]])
    """
    ids = np.zeros((len(pairs), time), np.int64)
    targets = np.full((len(pairs), time), IGNORE, np.int64)
    for row, (prompt, answer) in enumerate(pairs):
        end = encode(answer + "\n")[:time]
        start = encode(prompt)[: max(1, time + 1 - len(end))]
        whole = np.concatenate([start, end])[: time + 1]
        ids[row, : len(whole) - 1] = whole[:-1]
        targets[row, len(start) - 1 : len(whole) - 1] = whole[len(start) :]
    return ids, targets


def random_prompts(
    pairs: Pairs, batch: int, time: int, rng: np.random.Generator
) -> Batch:
    """`prompt_batch` of `batch` pairs drawn at random.

    >>> random_prompts([("a?", "b")], 2, 4, np.random.default_rng(0))[0].shape
    (2, 4)
    """
    return prompt_batch([pairs[i] for i in rng.integers(0, len(pairs), batch)], time)


def book_texts() -> list[tuple[np.ndarray, np.ndarray]]:
    """(training ids, held-out ids) of every book in BOOKS, as bytes.

    >>> [len(part) == 2 for part in book_texts()]
    [True, True, True]
    """
    elements = tuple(
        encode("\n\n".join(part)) for part in every_fifth(element_entries())
    )
    return [split_ids("bible"), split_ids("devil"), elements]  # type: ignore[list-item]


def labelled_windows(
    texts: Sequence[np.ndarray], batch: int, time: int, rng: np.random.Generator
) -> Batch:
    """(ids (B, time), class labels (B,)): as many windows of each text, at random.

    Raises ValueError unless `batch` is a multiple of the number of texts.

    >>> x, y = labelled_windows([np.zeros(9, int), np.ones(9, int)], 4, 3,
    ...                         np.random.default_rng(0))
    >>> x[:, 0].tolist() == y.tolist()
    True
    """
    each, rest = divmod(batch, len(texts))
    if rest:
        raise ValueError(f"batch {batch} is no multiple of the {len(texts)} classes")
    windows = [random_windows(ids, each, time, rng)[0] for ids in texts]
    labels = np.repeat(np.arange(len(texts)), each)
    order = rng.permutation(batch)
    return np.concatenate(windows)[order], labels[order]
