"""D0's runs: classifiers under attack, the bottleneck beside LoRA, words copied, poems.

Each is cached for the process; the claims in `d0` read figures from them.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from lora_np.data import read_text
from lora_np.data.tasks import (
    BOOKS,
    Characters,
    book_texts,
    every_fifth,
    labelled_windows,
    poems,
)
from lora_np.documents import experiments as ex
from lora_np.documents.adversarial import AdversarialTraining, still_right
from lora_np.documents.encoders import Classifier, LSTMEncoder, low_rank
from lora_np.documents.gan import FeatureGAN
from lora_np.documents.recurrent import EncoderDecoder
from lora_np.documents.words import tokens
from lora_np.graph import no_grad
from lora_np.models import GPT, GPTConfig
from lora_np.nn import ops
from lora_np.nn.adapt import count_parameters
from lora_np.nn.layers import Linear
from lora_np.nn.module import Module
from lora_np.tape import Tensor
from lora_np.training import fine_tune, next_distribution

BASE_STEPS = 30
CLASSES, TIME, WIDTH, STEPS, TEST = len(BOOKS), 48, 48, 100, 240


@cache
def books(part: int) -> tuple:
    """The training (0) or held-out (1) bytes of every book."""
    return tuple(t[part] for t in book_texts())


def draw_books(rng: np.random.Generator) -> tuple:
    """A training batch: 24 windows of 48 bytes, which book each is from."""
    return labelled_windows(books(0), 24, TIME, rng)


@cache
def held_out_books() -> tuple[np.ndarray, np.ndarray]:
    """240 held-out windows and their labels."""
    return labelled_windows(books(1), TEST, TIME, np.random.default_rng(1))


@cache
def classifier(kind: str, rank: int | None, how: str, method: str) -> Classifier:
    """A trained book classifier; method "" for none, else an attack to train against.

    kind: "lstm" or "transformer" (two blocks), both 48 wide, from scratch.
    """
    rng = np.random.default_rng(0)
    config = GPTConfig(256, TIME, WIDTH, 2, 4, initializer_range=0.1)
    encoder = LSTMEncoder(256, WIDTH, rng) if kind == "lstm" else GPT(config, rng)
    model = Classifier(encoder, WIDTH, CLASSES, rng, rank, how)
    lr, eps = (1e-2, 0.5) if kind == "lstm" else (3e-3, 0.25)
    trained = AdversarialTraining(model, method, eps) if method else model
    fine_tune(trained, draw_books, STEPS, lr)
    return model


@cache
def right(eps: float, kind: str = "lstm", rank: int | None = None, how: str = "svd",
          method: str = "") -> np.ndarray:  # fmt: skip
    """Which held-out windows that classifier has right under PGD of norm eps."""
    model = classifier(kind, rank, how, method)
    return still_right(model, *held_out_books(), eps)


def accuracy(eps: float, kind: str = "lstm", rank: int | None = None, how: str = "svd",
             method: str = "") -> float:  # fmt: skip
    """Held-out accuracy of that classifier under PGD of norm eps (0: clean)."""
    return float(right(eps, kind, rank, how, method).mean())


class OnFeatures(Module):
    """A linear decoder on given features (N, D)."""

    def __init__(self, width: int, classes: int):
        self.head = Linear(width, classes, np.random.default_rng(0))

    def loss(self, ids, target, reduction="mean", rng=None) -> Tensor:  # type: ignore[no-untyped-def]
        """Cross-entropy of the labels; `ids` are the features."""
        return ops.cross_entropy(self.head(Tensor(ids)), target, reduction=reduction)


GAN_STEPS = 600


@cache
def gan_run(saturating: bool = False) -> dict:
    """A decoder on few features, with and without generated ones beside them.

    saturating: the generator's loss in the minimax form. "d_loss", "g_loss": the last
    100 steps; "moved": the generated mean off the real one, relative; "spread": the
    generated standard deviation over the real one; for each of the two decoders its
    share of right windows, clean and under PGD, and which they are ("… right").
    """
    model = classifier("lstm", None, "svd", "")
    rng = np.random.default_rng(0)
    with no_grad():
        x, y = labelled_windows(books(0), 90, TIME, rng)
        real = model.features(x).data
        test, labels = model.features(held_out_books()[0]).data, held_out_books()[1]
    gan = FeatureGAN(real, y, CLASSES, rng, saturating=saturating)
    gan.train(GAN_STEPS)
    fake, fake_y = gan.sample(900)
    out: dict = {
        "d_loss": float(np.mean([d for d, _ in gan.losses[-100:]])),
        "g_loss": float(np.mean([g for _, g in gan.losses[-100:]])),
        "moved": float(
            np.linalg.norm(fake.mean(0) - real.mean(0)) / np.linalg.norm(real.mean(0))
        ),
        "spread": float(fake.std(axis=0).mean() / real.std(axis=0).mean()),
    }
    sets = {"without": (real, y), "with": (np.concatenate([real, fake]),
                                           np.concatenate([y, fake_y]))}  # fmt: skip
    for name, (f, c) in sets.items():
        decoder = OnFeatures(WIDTH, CLASSES)

        def draw(r: np.random.Generator, f=f, c=c) -> tuple:  # type: ignore[no-untyped-def]
            rows = r.integers(0, len(f), 64)
            return f[rows].astype(np.float32), c[rows]

        fine_tune(decoder, draw, 200, 1e-2)
        guess = decoder.head(Tensor(test)).data.argmax(axis=1)
        out[name + " right"] = guess == labels
        out[name] = float((guess == labels).mean())
        model_copy = _with_head(model, decoder.head)
        hit = still_right(model_copy, *held_out_books(), 0.5)
        out[name + " attacked right"] = hit
        out[name + " attacked"] = float(hit.mean())
    return out


def _with_head(model: Classifier, head: Linear) -> Classifier:
    copy = Classifier(model.encoder, WIDTH, CLASSES, np.random.default_rng(0))
    copy.head = head
    return copy


class Wide(Module):
    """D0's decoder: a hidden layer, so that it trains as many numbers as the LoRA."""

    def __init__(self, width: int, middle: int, classes: int, rng: np.random.Generator):
        self.first, self.second = (
            Linear(width, middle, rng),
            Linear(middle, classes, rng),
        )

    def forward(self, x: Tensor, rng: np.random.Generator | None = None) -> Tensor:
        """x (N, D) → (N, C)."""
        return self.second(ops.gelu_tanh(self.first(x)))


@dataclass(frozen=True)
class OnBase:
    """A classifier on the embedded base: trained numbers; which of the held-out windows
    it has right, clean and under attack."""

    trainable: int
    clean: np.ndarray
    attacked: np.ndarray


@cache
def on_base(name: str) -> OnBase:
    """One of four, with as many trained numbers.

    "bottleneck": frozen base, features at rank 4, a wide decoder; "adversarial": the
    same trained against FGM; "frozen": without the rank; "lora": rank 2 on the fused
    qkv and a linear decoder.
    """
    rng, base = np.random.default_rng(0), ex.base()
    model = Classifier(
        base, 128, CLASSES, rng, None if name in ("lora", "frozen") else 4
    )
    if name == "lora":
        ex.lora(base, 2, ["c_attn"])
    else:
        base.freeze()
        model.head = Wide(128, 34, CLASSES, rng)  # type: ignore[assignment]
    trained = AdversarialTraining(model, "fgm", 0.5) if name == "adversarial" else model
    fine_tune(trained, draw_books, BASE_STEPS, 1e-2)
    clean, attacked = (still_right(model, *held_out_books(), eps, "fgm")
                       for eps in (0.0, 0.5))  # fmt: skip
    return OnBase(count_parameters(trained)[0], clean, attacked)


class Bottleneck(Module):
    """Generation in D0's form: frozen base, features on k directions, own decoder.

    The projection is one matrix for all positions, because an SVD over a sequence lets
    position t see what comes after it.
    """

    def __init__(self, base: GPT, k: int | None):
        base.untie()
        base.freeze()
        self.base, self.k = base, k
        assert base.lm_head is not None
        base.lm_head.weight.requires_grad = True

    def loss(self, ids, target, reduction="mean", rng=None) -> Tensor:  # type: ignore[no-untyped-def]
        """Cross-entropy of the next byte."""
        h = self.base.hidden(ids)
        if self.k is not None:
            h = low_rank(h, len(ids), self.k, "orthonormal")
        return ops.linear_cross_entropy(
            h, self.base.head(), target.reshape(-1), reduction=reduction
        )


LENGTH = 7


@cache
def copying_words() -> tuple[list[str], list[str]]:
    """(training, held-out): the Bible's words of 3 to 7 letters, each once."""
    found = {w for w in tokens(read_text("web_train.txt")) if w.isalpha()}
    return every_fifth(sorted(w for w in found if 3 <= len(w) <= LENGTH))


def word_codes(words: list[str]) -> tuple:
    """((source, target so far), target): letters 2 … 27, 0 padding, 1 the start."""
    source = np.zeros((len(words), LENGTH), np.int64)
    target = np.zeros((len(words), LENGTH + 1), np.int64)
    for row, word in enumerate(words):
        codes = [ord(c) - 95 for c in word]
        source[row, LENGTH - len(codes) :] = codes
        target[row, : len(codes)] = codes
    start = np.ones((len(words), 1), np.int64)
    return (source, np.concatenate([start, target[:, :-1]], axis=1)), target


@cache
def copier() -> EncoderDecoder:
    """An LSTM encoder-decoder that writes the word it read."""
    model = EncoderDecoder(28, 24, 96, np.random.default_rng(0))
    words = copying_words()[0]

    def draw(rng: np.random.Generator) -> tuple:
        return word_codes([words[i] for i in rng.integers(0, len(words), 64)])

    fine_tune(model, draw, 400, 1e-2)
    return model


PROMPT = "我喜欢编程"


@cache
def poem_model() -> tuple[GPT, Characters, np.ndarray, np.ndarray]:
    """(model, vocabulary, training ids, held-out ids) of the Tang poems.

    A character that occurs once in the training poems is unknown (□), so that the model
    meets □ while it learns.
    """
    train, held = ("\n".join(part) for part in every_fifth(poems()))
    vocabulary = Characters(train, at_least=2)
    ids, held_ids = vocabulary.encode(train), vocabulary.encode(held)
    model = GPT(
        GPTConfig(len(vocabulary), 32, 64, 2, 4, initializer_range=0.1),
        np.random.default_rng(0),
    )

    def draw(rng: np.random.Generator) -> tuple:
        start = rng.integers(0, len(ids) - 33, 16)
        window = ids[start[:, None] + np.arange(33)]
        return window[:, :-1], window[:, 1:]

    fine_tune(model, draw, 300, 3e-3)
    return model, vocabulary, ids, held_ids


def unigram(ids: np.ndarray, size: int) -> np.ndarray:
    """Frequencies of the characters, one added to each."""
    counts = np.bincount(ids, minlength=size) + 1.0
    return counts / counts.sum()


@cache
def next_character() -> dict:
    """The distribution after 我喜欢编程, and the unigram one beside it."""
    model, vocabulary, ids, held = poem_model()
    prompt = vocabulary.encode("\n" + PROMPT)
    with no_grad():
        p = next_distribution(model.logits(prompt[None]).data[-1])
    q = unigram(ids, len(vocabulary))
    windows = np.array([held[i : i + 33] for i in range(0, len(held) - 33, 33)])
    with no_grad():
        loss = float(model.loss(windows[:, :-1], windows[:, 1:]).data)
    return {"p": p, "q": q, "loss": loss, "vocabulary": vocabulary,
            "unigram_loss": float(-np.log(q[windows[:, 1:]]).mean()),
            "unknown": [c for c in PROMPT if c not in vocabulary.ids]}  # fmt: skip
