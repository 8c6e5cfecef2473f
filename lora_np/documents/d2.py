"""D2: W = W_const + W1 W2ᵀ with a bias a task, many tasks on one constant part.

M outputs · D inputs · R rank.  W1 (M, R) is B, W2 (D, R) is Aᵀ.
"""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from lora_np.data import fetch as optional
from lora_np.data import fixed_windows, random_windows, read_text
from lora_np.data.tasks import (
    book_texts,
    element_entries,
    element_questions,
    every_fifth,
    labelled_windows,
    prompt_batch,
    random_prompts,
    verse_pairs,
)
from lora_np.documents import experiments as ex
from lora_np.documents.ledger import FAILS, HOLDS, REPAIRED, Document, Evidence
from lora_np.documents.measure import error, raises
from lora_np.documents.multitask import Multitask, stored_bytes
from lora_np.lora import lora_linear, lora_linear_backward
from lora_np.nn import ops, remove_lora
from lora_np.nn.adapt import count_parameters
from lora_np.nn.layers import Linear
from lora_np.nn.module import Module, Parameter
from lora_np.tape import Tensor
from lora_np.training import fine_tune, held_out_loss

D2 = Document(
    "D2",
    "(the file begins without its title; its sections: LoRA的核心概念与联系 …)",
    "(the article gives no author)",
    "W = W_const + W1 W2ᵀ, a low-rank matrix and a bias a task; a text classifier",
)


@D2.claim(
    "D2.1",
    "W = W_const + W1 W2ᵀ; only W1 and W2 are adjusted.",
    HOLDS,
    "With W1 = B and W2 = Aᵀ it is LoRA: outputs agree to {same:.0e}, and the rank of "
    "the update is {rank:.0f} for r = 3.",
)
def d2_1(e: Evidence) -> None:
    """The article's form against the library's pair."""
    rng = np.random.default_rng(0)
    W1, W2, W = (rng.normal(size=s) for s in ((6, 3), (5, 3), (6, 5)))
    x = rng.normal(size=(4, 5))
    y = lora_linear(x, W, None, W2.T, W1, 1.0)[0]
    same = error(x @ (W + W1 @ W2.T).T, y)
    e.figure(
        "same", "their form against lora_linear, relative", same, "0.0", within=1e-14
    )
    rank = int(np.linalg.matrix_rank(W1 @ W2.T))
    e.figure("rank", "rank of W1 W2ᵀ, r = 3", rank, "3")
    e.conclude(as_stated=same < 1e-13 and rank == 3)


TASKS = ("dictionary", "elements", "spanish")
STEPS = 60


@cache
def task_ids(name: str) -> tuple[np.ndarray, np.ndarray]:
    """(training, held-out) bytes of a task's text."""
    if name == "spanish":
        lines = read_text("genesis_es.txt").splitlines()
        train, held = every_fifth(lines)
        return tuple(_bytes("\n".join(part)) for part in (train, held))  # type: ignore[return-value]
    return book_texts()[1 if name == "dictionary" else 2]


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int64)


def mixed_batch(rng: np.random.Generator) -> tuple:
    """Four windows of each task: ((ids, tasks), targets)."""
    parts = [random_windows(task_ids(n)[0], 4, ex.TIME, rng) for n in TASKS]
    ids, target = (np.concatenate([p[i] for p in parts]) for i in (0, 1))
    return (ids, np.repeat(np.arange(len(TASKS)), 4)), target


@cache
def multitask() -> Multitask:
    """Three tasks trained at once on one frozen base, in mixed batches."""
    many = Multitask(ex.base(), list(TASKS))
    fine_tune(many, mixed_batch, STEPS, 1e-2)
    return many


@cache
def task_losses() -> dict[tuple[str, str], float]:
    """(text, adapter) -> held-out loss; adapter "base" for the base alone."""
    many, base, out = multitask(), ex.base(), {}
    for text in TASKS:
        windows = fixed_windows(task_ids(text)[1], 16, ex.TIME)
        for j, adapter in enumerate(TASKS):
            rows = [((x, np.full(len(x), j)), y) for x, y in windows]
            out[text, adapter] = held_out_loss(many, rows)
        out[text, "base"] = held_out_loss(base, windows)
    return out


@cache
def bytes_on_disk() -> dict[int, int]:
    """Measured: number of tasks -> bytes of that many task files together."""
    many, sizes = multitask(), {}
    with tempfile.TemporaryDirectory() as folder:
        total = 0
        for i in range(1, 101):
            path = Path(folder) / f"task_{i}.safetensors"
            many.save_task(TASKS[i % len(TASKS)], path)
            total += path.stat().st_size
            sizes[i] = total
    return sizes


def task_numbers(r: int = 4) -> int:
    """Formula: numbers of one task, Σ over the adapted layers of r (in + out) + out."""
    D = 128
    shapes = [(3 * D, D), (D, D), (4 * D, D), (D, 4 * D)]
    return 4 * sum(r * (M + N) + M for M, N in shapes)


@D2.claim(
    "D2.2",
    "One low-rank matrix and one bias a task, the constant part shared by all tasks.",
    HOLDS,
    "Three tasks trained in mixed batches on one base: each text is predicted best by "
    "its own adapter ({dictionary:.2f}, {elements:.2f}, {spanish:.2f} nats a byte "
    "against {dictionary_base:.2f}, {elements_base:.2f}, {spanish_base:.2f} without); "
    "a mixed batch equals row by row to {mixed:.0e}; the base moves by exactly 0; a "
    "saved task loads bit for bit. A task costs {task:,.0f} bytes of numbers; 100 "
    "tasks on one base take {ratio:.1f} % of 100 models.",
)
def d2_2(e: Evidence) -> None:
    """Losses by text and adapter, mixed rows, storage."""
    losses = task_losses()
    written = {"dictionary": ("2.107", "2.506"), "elements": ("1.983", "3.423"),
               "spanish": ("2.555", "5.330")}  # fmt: skip
    for text in TASKS:
        own, without = written[text]
        e.figure(text, f"{text}: own adapter", losses[text, text], own, "nats a byte",
                 2 * ex.LOSS_DRIFT)  # fmt: skip
        e.figure(f"{text}_base", f"{text}: base alone", losses[text, "base"], without,
                 "nats a byte", 0.002)  # fmt: skip
    best = sum(min(TASKS, key=lambda a, t=t: losses[t, a]) == t for t in TASKS)  # type: ignore[misc]
    e.figure("best", "texts whose own adapter is the best", best, "3")
    many = multitask()
    (ids, tasks), _ = mixed_batch(np.random.default_rng(9))
    whole = many.logits(ids, tasks).data.reshape(len(ids), -1)
    rows = [
        many.logits(ids[i : i + 1], tasks[i : i + 1]).data.ravel() for i in range(12)
    ]
    mixed = error(np.stack(rows), whole)
    e.figure("mixed", "mixed batch against row by row, relative", mixed, "0.0",
             within=1e-5)  # fmt: skip
    other = Multitask(ex.base(), ["first", "second"], seed=5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spanish.safetensors"
        many.save_task("spanish", path)
        other.load_task("second", path)
    loaded = other.task_tensors("second")
    same = [np.array_equal(a, loaded[k])
            for k, a in many.task_tensors("spanish").items()]  # fmt: skip
    e.figure("loaded", "arrays that a saved task loads bit for bit", sum(same), "48")
    e.figure("arrays", "arrays of a task", len(same), "48")
    before = dict(ex.base().named_parameters())
    moved = max(
        float(np.abs(p.data - before[n.replace("model.", "").replace(".base_layer", "")]
                     .data).max())
        for n, p in many.named_parameters() if not p.requires_grad
    )  # fmt: skip
    e.figure("moved", "base moved by", moved, "0.0", within=0.0)
    e.figure(
        "task", "bytes of one task's numbers, formula", 4 * task_numbers(), "149504"
    )
    sizes, base = bytes_on_disk(), sum(p.data.nbytes for p in before.values())
    e.figure("file1", "one task's file, measured", sizes[1], "153632", "bytes")
    e.figure(
        "file100", "a hundred tasks' files, measured", sizes[100], "15363200", "bytes"
    )
    over = sizes[100] / (100 * 4 * task_numbers()) - 1
    e.figure("header", "measured over formula, 100 tasks", 100 * over, "2.8", "%")
    shared, copies = stored_bytes(base, sizes[1], 100)
    e.figure("ratio", "100 tasks on one base over 100 models", 100 * shared / copies,
             "5.6", "%")  # fmt: skip
    right = best == 3 and mixed < 1e-4 and moved == 0.0 and all(same)
    e.conclude(as_stated=right and over < 0.05)


def jacobian_W1(W1: np.ndarray, W2: np.ndarray) -> np.ndarray:
    """∂W_ij/∂W1_kl of W = W1 W2ᵀ, (M, D, M, R), by differences.

    W is linear in each entry of W1, so a difference with step 1 is exact.
    """
    J = np.zeros((W1.shape[0], W2.shape[0], *W1.shape))
    for k in np.ndindex(W1.shape):
        step = np.zeros_like(W1)
        step[k] = 1.0
        J[(..., *k)] = (W1 + step) @ W2.T - W1 @ W2.T
    return J


def jacobian_W2(W1: np.ndarray, W2: np.ndarray) -> np.ndarray:
    """∂W_ij/∂W2_kl of W = W1 W2ᵀ, (M, D, D, R), by differences of step 1."""
    return jacobian_W1(W2, W1).swapaxes(0, 1)


@D2.claim(
    "D2.3",
    "∂W/∂W1 = W2 and ∂W/∂W2 = W1ᵀ.",
    REPAIRED,
    "A derivative of a matrix by a matrix has four indices: built for 4 x 3 and rank "
    "2 it has {entries:.0f} numbers where W2 has {printed:.0f}, and ∂W_ij/∂W1_kl = "
    "δ_ik W2_jl to the last bit. What a programmer needs is its contraction with "
    "dL/dW: dL/dW1 = (dL/dW) W2 and dL/dW2 = (dL/dW)ᵀ W1, which agree with the "
    "contracted Jacobian to {contracted:.0e} and with the certified pair to "
    "{pair:.0e}.",
)
def d2_3(e: Evidence) -> None:
    """The Jacobian in full, its pattern, its contraction, the library's gradients."""
    rng = np.random.default_rng(0)
    W1, W2 = rng.integers(-3, 4, (4, 2)) * 1.0, rng.integers(-3, 4, (3, 2)) * 1.0
    J1, J2 = jacobian_W1(W1, W2), jacobian_W2(W1, W2)
    pattern = np.einsum("ik,jl->ijkl", np.eye(4), W2)
    e.figure("entries", "numbers in ∂W/∂W1", int(J1.size), "96")
    e.figure("printed", "numbers in W2", int(W2.size), "6")
    exact = float(np.abs(J1 - pattern).max())
    e.figure("pattern", "built against δ_ik W2_jl", exact, "0.0", within=0.0)
    x, dy = rng.normal(size=(5, 3)), rng.normal(size=(5, 4))
    dW = dy.T @ x
    one, two = np.einsum("ij,ijkl->kl", dW, J1), np.einsum("ij,ijkl->kl", dW, J2)
    contracted = max(error(dW @ W2, one), error(dW.T @ W1, two))
    e.figure("contracted", "by hand against the contraction", contracted, "0.0",
             within=1e-14)  # fmt: skip
    _, cache_ = lora_linear(x, np.zeros((4, 3)), None, W2.T, W1, 1.0)
    dA, dB = lora_linear_backward(dy, cache_)[2:]
    same = max(error(dW @ W2, dB), error((dW.T @ W1).T, dA))
    e.figure("pair", "by hand against the certified pair", same, "0.0", within=1e-14)
    e.conclude(J1.shape == W2.shape, repaired=max(contracted, same, exact) < 1e-13)


class Mended(Module):
    """The listing's own network with its parameter mended to an r x r matrix P.

    z = W_2 (P (W_1 x + b_1)) + b_2; every weight is trained. P is drawn N(0, 1).
    """

    def __init__(self, inputs: int, outputs: int, r: int, rng: np.random.Generator):
        self.fc1, self.fc2 = Linear(inputs, r, rng), Linear(r, outputs, rng)
        self.low_rank = Parameter(rng.normal(size=(r, r)).astype(np.float32))

    def loss(self, ids, target, reduction="mean", rng=None) -> Tensor:  # type: ignore[no-untyped-def]
        """Cross-entropy in nats; `ids` are the features."""
        h = ops.linear(self.fc1(Tensor(ids.astype(np.float32))), self.low_rank, None)
        return ops.cross_entropy(self.fc2(h), target, reduction=reduction)


class SimpleClassifier(Module):
    """The article's classifier, repaired: z = x (W_const + W1 W2ᵀ)ᵀ + c.

    W_const is frozen; W1, W2 (lora_B and lora_A) and the task's bias c are trained.
    """

    def __init__(self, inputs: int, outputs: int, r: int, rng: np.random.Generator):
        self.weight = Parameter(rng.normal(size=(outputs, inputs)) / inputs, False)
        self.lora_A = Parameter(rng.normal(size=(r, inputs)) / inputs**0.5)
        self.lora_B = Parameter(np.zeros((outputs, r)))
        self.bias = Parameter(np.zeros(outputs))

    def forward(self, x: np.ndarray) -> Tensor:
        """x (N, inputs) → logits (N, outputs)."""
        if self.weight.requires_grad:  # while W_const itself is made
            return ops.linear(Tensor(x), self.weight, self.bias)
        return ops.lora_linear(Tensor(x), self.weight, self.bias, self.lora_A,
                               self.lora_B, 1.0)  # fmt: skip

    def loss(self, ids, target, reduction="mean", rng=None) -> Tensor:  # type: ignore[no-untyped-def]
        """Cross-entropy in nats; `ids` are the features."""
        return ops.cross_entropy(self(ids), target, reduction=reduction)


@cache
def frequent_pairs() -> np.ndarray:
    """The 100 most frequent pairs of bytes in the three books together, as numbers."""
    codes = np.concatenate([t[:-1][:40_000] * 256 + t[1:][:40_000]
                            for t, _ in book_texts()])  # fmt: skip
    return np.argsort(-np.bincount(codes, minlength=65536), kind="stable")[:100]


def pair_counts(ids: np.ndarray) -> np.ndarray:
    """Features (B, 100) of windows (B, T): how often each frequent pair occurs."""
    codes = ids[:, :-1] * 256 + ids[:, 1:]
    return (codes[:, :, None] == frequent_pairs()).sum(axis=1).astype(float)


def fresh_random(rng: np.random.Generator) -> tuple:
    """The listing's data: a fresh batch of noise with random labels, every step."""
    return rng.normal(size=(16, 100)), rng.integers(0, 10, 16)


def book_features(part: int, count: int) -> Callable:
    """A batch of `count` windows of three books as pair counts, with their labels."""
    texts = [t[part] for t in book_texts()]

    def draw(rng: np.random.Generator) -> tuple:
        ids, labels = labelled_windows(texts, count, 64, rng)
        return pair_counts(ids), labels

    return draw


def book_classifier() -> SimpleClassifier:
    """The repaired classifier, r = 1, on a W_const that tells two books apart.

    W_const is trained on the Bible and The Devil's Dictionary alone and then frozen;
    what rank 1 has to add is the third book, the elements.
    """
    model = SimpleClassifier(100, 3, 1, np.random.default_rng(0))
    model.freeze()
    model.weight.requires_grad = True
    three_books = book_features(0, 30)

    def two_books(rng: np.random.Generator) -> tuple:
        x, labels = three_books(rng)
        return x[labels < 2], labels[labels < 2]

    fine_tune(model, two_books, 300, 3e-2)
    model.weight.requires_grad = False
    for p in (model.lora_A, model.lora_B, model.bias):
        p.requires_grad = True
    return model


@D2.claim(
    "D2.4",
    "The listing SimpleClassifier: a classifier whose parameters are a low-rank "
    "matrix.",
    REPAIRED,
    "Its parameter is made of two integers, which raises; it has no frozen weight, so "
    "it is a plain network with a bottleneck; and it trains on fresh random labels, "
    "where cross-entropy cannot stay below ln 10 = {floor:.4f}: with the parameter "
    "mended to an r x r matrix, over its last 100 of {steps:.0f} steps it is at "
    "{mended:.2f}, and the repaired classifier, which starts at ln 10, at "
    "{random:.3f}. Repaired, a "
    "frozen W_const that tells two books apart by their pairs of bytes is given a "
    "third by an update of rank 1: accuracy on held-out windows of 64 bytes "
    "{start:.2f} before, {accuracy:.2f} after, W_const unmoved.",
)
def d2_4(e: Evidence) -> None:
    """Three faults, then the repaired classifier on noise and on text."""
    made = raises(lambda: Parameter(5, 5), says="holds an array")  # type: ignore[arg-type]
    e.figure(
        "raises", "a Parameter of two integers raises", int(made), "1", "yes or no"
    )
    e.figure("floor", "ln 10", float(np.log(10)), "2.3026")
    steps = 300
    mended, random = (
        float(np.mean(fine_tune(model(100, 10, 5, np.random.default_rng(0)),
                                fresh_random, steps, 1e-3).loss[-100:]))
        for model in (Mended, SimpleClassifier)
    )  # fmt: skip
    e.figure("steps", "steps on random labels", steps, "300")
    e.figure("mended", "random labels, the listing mended: mean loss of the last 100",
             mended, "2.589", "nats", ex.LOSS_DRIFT)  # fmt: skip
    e.figure("random", "random labels, the repaired classifier: the same", random,
             "2.307", "nats")  # fmt: skip
    real = book_classifier()
    x, labels = book_features(1, 600)(np.random.default_rng(1))
    before = float((real(x).data.argmax(axis=1) == labels).mean())
    untouched = real.weight.data.copy()
    fine_tune(real, book_features(0, 30), 300, 3e-2)
    after = float((real(x).data.argmax(axis=1) == labels).mean())
    moved = float(np.abs(real.weight.data - untouched).max())
    e.figure("moved", "W_const moved by", moved, "0.0", within=0.0)
    e.figure(
        "start", "three books, accuracy before", before, "0.525", "", ex.ACCURACY_DRIFT
    )
    e.figure("accuracy", "three books, accuracy after", after, "0.765", "",
             ex.ACCURACY_DRIFT)  # fmt: skip
    above = min(mended, random) > np.log(10) - 0.01
    e.conclude(not made, repaired=above and after > before + 0.1)


def translation_draw(pairs: list, time: int) -> Callable:
    """Random batches of eight prompted pairs."""
    return lambda rng: random_prompts(pairs, 8, time, rng)


@cache
def prompted(name: str) -> tuple[list, list, list]:
    """(training pairs, held-out batches, the same with the prompts exchanged)."""
    if name == "translation":
        pairs = [(a + "\n=> ", b) for a, b in verse_pairs() if len(a) + len(b) < 120]
        train, held = every_fifth(pairs)
    elif name == "questions":
        split = every_fifth(element_entries())
        train, held = (element_questions(part) for part in split)
        train, held = ([(q + " ", a) for q, a in part] for part in (train, held))
    else:
        train, held = every_fifth(optional.translation(name)[:1500])
        train, held = ([(a[:60] + "\n=> ", b[:20]) for a, b in part]
                       for part in (train, held))  # fmt: skip
    held = held[:96]
    turned = [(held[i - 4][0], b) for i, (_, b) in enumerate(held)]  # same kind
    windows, exchanged = (
        [prompt_batch(pairs[i : i + 16], 124) for i in range(0, len(pairs), 16)]
        for pairs in (held, turned)
    )
    return train, windows, exchanged


@cache
def prompted_base(name: str) -> float:
    """The untouched base's loss on the held-out answers."""
    return held_out_loss(ex.base(), prompted(name)[1])


def task_by_prompt(
    name: str, model: Module | None = None, lr: float = 1e-2
) -> tuple[float, float, float]:
    """Loss in nats a byte of the answers of held-out pairs.

    Before training, after it, and after it with the prompts exchanged, which says how
    much the prompt is used. model: LoRA of rank 8 on the base if not given.
    """
    train, windows, exchanged = prompted(name)
    model = model or ex.lora(ex.base())
    fine_tune(model, translation_draw(train, 124), STEPS, lr)
    after = held_out_loss(model, windows)
    return prompted_base(name), after, held_out_loss(model, exchanged)


# The best of 3e-3, 1e-2, 3e-2 for LoRA of rank 4.
PROMPT_RATES = {"translation": 3e-2, "questions": 1e-2}


@cache
def lora_by_prompt(name: str) -> tuple[float, float, float]:
    """`task_by_prompt` with LoRA of rank 4 at its rate; D0.9 compares with it too."""
    return task_by_prompt(name, ex.lora(ex.base(), 4), PROMPT_RATES[name])


@D2.claim(
    "D2.5",
    "Useful for news classification, sentiment polarity and intensity, English to "
    "Chinese translation, product reviews and other languages.",
    REPAIRED,
    "On the committed texts, LoRA of rank 4 on the same base each time: Spanish "
    "verses after their English from {translation0:.2f} to {translation:.2f} nats a "
    "byte, answers about elements it never saw from {questions0:.2f} to "
    "{questions:.2f}, Spanish text from {spanish0:.2f} to {spanish:.2f}. So the "
    "language and the form of an answer are learnt. The content hardly: with another "
    "verse's English it is {turned:.2f}, asked about another element {other:.2f}. "
    "Repaired: a base of {size:,.0f} numbers adapts its style; translating and "
    "answering need a larger one. News, reviews, sentiment and Chinese need data that "
    "is not ours to commit: see the note.",
)
def d2_5(e: Evidence) -> None:
    """Committed tasks always; the optional sets where they were fetched."""
    before, after, turned = lora_by_prompt("translation")
    answer, answered, other = lora_by_prompt("questions")
    for key, words, value, want in (
        ("translation0", "English to Spanish verses, before", before, "5.508"),
        ("translation", "English to Spanish verses, after", after, "2.475"),
        ("turned", "the same, with another verse's English", turned, "2.510"),
        ("questions0", "questions about held-out elements, before", answer, "10.856"),
        ("questions", "questions about held-out elements, after", answered, "3.361"),
        ("other", "the same, about another element", other, "3.380"),
    ):
        e.figure(key, words, value, want, "nats a byte", 2 * ex.LOSS_DRIFT)
    losses = task_losses()
    e.figure("spanish0", "Spanish text, before", losses["spanish", "base"], "5.330",
             "nats a byte", 0.005)  # fmt: skip
    e.figure(
        "spanish",
        "Spanish text, after",
        losses["spanish", "spanish"],
        "2.555",
        "nats a byte",
        2 * ex.LOSS_DRIFT,
    )
    e.figure("size", "numbers in the model", sum(
        p.data.size for p in ex.base().parameters()), "842496")  # fmt: skip
    e.note(
        "news, sentiment, reviews, Chinese: python -m lora_np fetch all, then python "
        "-m lora_np documents --optional (not committed: other people's texts)"
    )
    used = min(turned - after, other - answered)  # what the right prompt is worth
    e.conclude(
        as_stated=used > 0.2, repaired=after < before - 1 and answered < answer - 1
    )


@D2.claim(
    "D2.6",
    "The method lowers the parameter count of the model itself.",
    FAILS,
    "The model keeps all of its {own:,.0f} numbers; with an adapter it has "
    "{more:,.0f}, merged {merged:,.0f} again. What shrinks is what is trained and "
    "stored for a task: {trained:,.0f}.",
)
def d2_6(e: Evidence) -> None:
    """Counted on the base, with an adapter, and merged."""
    model = ex.base()
    own = count_parameters(model)[1]
    ex.lora(model)
    trained, more = count_parameters(model)
    remove_lora(model, keep_merged=True)
    merged = count_parameters(model)[1]
    e.figure("own", "numbers in the base", own, "842496")
    e.figure("more", "with an unmerged adapter, r 8", more, "908032")
    e.figure("merged", "merged", merged, "842496")
    e.figure("trained", "trained and stored for a task", trained, "65536")
    e.conclude(as_stated=more < own or merged < own)
