"""D1: W replaced by R G, R trained; seven interview questions.

M outputs · D inputs · R rank.  R (M, r) times G (r, D) stands where W (M, D) stood.
"""

import copy
from functools import cache

import numpy as np

from lora_np.data import fixed_windows, random_windows, split_ids
from lora_np.documents import experiments as ex
from lora_np.documents import methods
from lora_np.documents.compress import by_svd, residual
from lora_np.documents.ledger import FAILS, HOLDS, REPAIRED, Document, Evidence
from lora_np.documents.measure import distance, drawn
from lora_np.documents.recurrent import LSTMLanguageModel
from lora_np.lora import lora_linear
from lora_np.models import GPT
from lora_np.nn import ops, remove_lora
from lora_np.nn.adapt import count_parameters, find_targets
from lora_np.nn.layers import Linear
from lora_np.nn.module import Module, Parameter
from lora_np.reference import check_pair, pair
from lora_np.tape import Tensor
from lora_np.training import fine_tune, held_out_loss

D1 = Document(
    "D1",
    "大规模语言模型从理论到实践：LoRA",
    "(the article gives no author)",
    "W = R G: the whole weight replaced, R trained; seven interview questions",
)


class Replaced(Module):
    """A linear layer whose weight is R G, with G frozen and R trained."""

    def __init__(self, base: Linear, R_MR: np.ndarray, G_RD: np.ndarray):
        dtype = base.weight.dtype
        self.R = Parameter(R_MR.astype(dtype))
        self.G = Parameter(G_RD.astype(dtype), requires_grad=False)
        self.bias = base.bias

    def forward(self, x: Tensor, rng: np.random.Generator | None = None) -> Tensor:
        """y = (x Gᵀ) Rᵀ + b."""
        return ops.linear(ops.linear(x, self.G), self.R, self.bias)


def factors(W: np.ndarray, r: int, how: str) -> tuple[np.ndarray, np.ndarray]:
    """(R, G): "svd", or "gaussian": G drawn, R the least-squares fit R G ≈ W."""
    if how == "svd":
        return by_svd(W, r)
    G = np.random.default_rng([r, W.shape[1]]).normal(size=(r, W.shape[1]))
    return np.linalg.lstsq(G.T, W.T, rcond=None)[0].T, G


def replace_weights(model: GPT, r: int, how: str) -> GPT:
    """Every linear layer of the model as R G, in place; only the R trainable."""
    model.freeze()
    layers = dict(model.named_modules())
    for path in find_targets(model, "all-linear"):
        base = layers[path]
        assert isinstance(base, Linear)
        W = base.weight.data.astype(np.float64)
        model.replace(path, Replaced(base, *factors(W, r, how)))
    return model


@cache
def replaced_losses(
    r: int, how: str, train: bool = False, lr: float | None = None
) -> tuple[float, float]:
    """(new, old text) losses of the base with W = R G, before or after training R."""
    model = replace_weights(ex.base(), r, how)
    if train:
        done = ex.run(model, lr or ex.RATES[how])
        return done.new, done.old
    return (held_out_loss(model, ex.held_out("devil")),
            held_out_loss(model, ex.held_out("bible")))  # fmt: skip


@D1.claim(
    "D1.1",
    "W = R G and output = R G x: the weight itself is factored.",
    FAILS,
    "R G of rank r is at most the best rank-r approximation of W (Eckart-Young), and "
    "what is cut off is what the model knew: replacing every linear layer takes the "
    "old text from {base:.3f} to {r8:.3f} nats a byte at r = 8, {r64:.3f} at r = 64; "
    "only the full rank 128 gives {r128:.3f} back, and there R and G have {more:.2f} "
    "times W's numbers. LoRA keeps W and starts at {base:.3f} at every rank.",
)
def d1_1(e: Evidence) -> None:
    """The old text's loss against the rank of the replacement."""
    e.figure(
        "base", "old text, base", ex.base_losses()[1], ex.OLD, "nats a byte", 0.002
    )
    e.figure("r8", "old text, W = R G at r = 8", replaced_losses(8, "svd")[1], "4.815",
             "nats a byte", 0.01)  # fmt: skip
    e.figure("r64", "at r = 64", replaced_losses(64, "svd")[1], "1.205", "nats a byte",
             0.01)  # fmt: skip
    full = replaced_losses(128, "svd")[1]
    e.figure("r128", "at r = 128, the full rank", full, "1.182", "nats a byte", 0.002)
    W = ex.base().h[0].attn.c_attn.weight.data
    R, G = by_svd(W.astype(np.float64), 128)
    e.figure("more", "numbers in R and G over W's, r = 128, W (384, 128)",
             (R.size + G.size) / W.size, "1.333")  # fmt: skip
    lost = residual(W.astype(np.float64), by_svd(W.astype(np.float64), 8))
    e.figure("lost", "of the first qkv matrix lost at r = 8", lost, "0.764")
    e.conclude(as_stated=replaced_losses(8, "svd")[1] < ex.base_losses()[1] + 0.01)


def gaussian_A() -> GPT:
    """The base with LoRA whose A is Gaussian, rows of length about 1, and frozen."""
    model = ex.lora(ex.base())
    rng = np.random.default_rng(7)
    for name, p in model.named_parameters():
        if name.endswith("lora_A"):
            p.data = (rng.normal(size=p.shape) / np.sqrt(p.shape[1])).astype(p.dtype)
    methods.freeze_A(model)
    return model


@cache
def frozen_A() -> ex.Adapted:
    """B trained, A frozen and Gaussian: the same rank, steps and text as LoRA."""
    return ex.run(gaussian_A(), ex.RATES["frozen A"])


def mean_row_length(model: GPT) -> float:
    """Root of the mean squared length of the rows of every lora_A."""
    rows = [p.data for n, p in model.named_parameters() if n.endswith("lora_A")]
    return float(np.sqrt(sum((a**2).sum() for a in rows) / sum(map(len, rows))))


@D1.claim(
    "D1.2",
    "Get the low-rank R and the Gaussian G by a singular value decomposition of W.",
    REPAIRED,
    "The two exclude each other: the rows of an SVD's G are orthonormal (G Gᵀ = 1 to "
    "{svd:.0e}), a Gaussian's are not (off by {gauss:.2f}), and with G Gaussian the "
    "best R at r = 8 misses W by {miss:.2f} where the SVD misses it by {best:.2f}. As "
    "an *update* a frozen Gaussian factor is a real method (LoRA-FA, VeRA): with "
    "{trained:,.0f} trained numbers for LoRA's {lora_n:,.0f} it reaches {fa:.3f} nats "
    "a byte where LoRA reaches {lora:.3f} and the base has {base:.3f}.",
)
def d1_2(e: Evidence) -> None:
    """Orthonormal or Gaussian; then the honest reading, trained."""
    W = ex.base().h[0].attn.c_attn.weight.data.astype(np.float64)
    (R, G), (Rg, Gg) = factors(W, 8, "svd"), factors(W, 8, "gaussian")
    D = W.shape[1]
    e.figure(
        "svd",
        "SVD: G Gᵀ against the identity",
        distance(G @ G.T, np.eye(8)),
        "0.0",
        within=1e-12,
    )
    e.figure("gauss", "Gaussian: G Gᵀ/D against the identity",
             distance(Gg @ Gg.T / D, np.eye(8)), "0.264")  # fmt: skip
    best, miss = residual(W, (R, G)), residual(W, (Rg, Gg))
    e.figure("best", "SVD: error at r = 8", best, "0.764")
    e.figure("miss", "Gaussian G, best R: error at r = 8", miss, "0.963")
    fa, one, base = frozen_A(), ex.adapted("lora"), ex.base_losses()[0]
    e.figure("length", "A frozen: length of its rows",
             mean_row_length(gaussian_A()), "0.994")  # fmt: skip
    e.figure("trained", "numbers trained with A frozen", fa.trainable, "36864")
    e.figure("fa", "new text, A frozen and Gaussian", fa.new, "2.066", "nats a byte",
             ex.LOSS_DRIFT)  # fmt: skip
    e.figure("lora_n", "numbers trained by LoRA", one.trainable, "65536")
    e.figure(
        "lora",
        "new text, LoRA",
        one.new,
        ex.WRITTEN["lora"],
        "nats a byte",
        ex.LOSS_DRIFT,
    )
    e.figure("base", "new text, base", base, ex.WRITTEN["base"], "nats a byte", 0.002)
    e.conclude(as_stated=abs(best - miss) < 0.01, repaired=fa.new < base - 0.1)


@D1.claim(
    "D1.3",
    "Train R by gradient descent so that the model adapts to the task.",
    REPAIRED,
    "R G x sees of x only G's {r:.0f} directions: of a random rank-8 change of W the "
    "part within G's rows can be reached, and {missed:.3f} of it (√(1 - 8/128) = "
    "{theory:.3f} on average) cannot, whatever R; LoRA, which trains both factors, "
    "reaches it with error {lora_fit:.0e}. On text, {steps:.0f} steps of training R at "
    "r = 8 bring the new text to {svd:.3f} nats a byte (G from the SVD) or {gauss:.3f} "
    "(Gaussian G), where the untouched base has {base:.3f} and LoRA reaches "
    "{lora:.3f}. Only at r = 64, where the SVD has kept nearly all of W, does "
    "training R adapt the model: {wide:.3f}.",
)
def d1_3(e: Evidence) -> None:
    """What lies outside G's row space; then R trained on text."""
    rng = np.random.default_rng(2)
    target = rng.normal(size=(96, 8)) @ rng.normal(size=(8, 128))
    G = rng.normal(size=(8, 128))
    best = np.linalg.lstsq(G.T, target.T, rcond=None)[0].T @ G
    r = int(np.linalg.matrix_rank(best))
    e.figure("r", "rank of the best that R can reach", r, "8")
    missed = distance(best, target)
    e.figure("missed", "random rank-8 change: part that no R reaches", missed, "0.974")
    e.figure("theory", "√(1 - 8/128)", float(np.sqrt(1 - r / 128)), "0.968")
    A, B = by_svd(target, 8)
    e.figure("lora_fit", "both factors free: error", distance(A @ B, target), "0.0",
             within=1e-12)  # fmt: skip
    e.figure("steps", "steps", ex.STEPS, "30")
    svd, gauss = (replaced_losses(8, how, True)[0] for how in ("svd", "gaussian"))
    e.figure(
        "svd", "new text, R trained, G from the SVD", svd, "2.860", "nats a byte", 0.05
    )
    e.figure("gauss", "new text, R trained, G Gaussian", gauss, "2.858", "nats a byte",
             0.05)  # fmt: skip
    wide = replaced_losses(64, "svd", True, 3e-3)[0]
    e.figure(
        "wide", "new text, R trained at r = 64", wide, "1.999", "nats a byte", 0.05
    )
    base, one = ex.base_losses()[0], ex.adapted("lora").new
    e.figure(
        "base",
        "new text, untouched base",
        base,
        ex.WRITTEN["base"],
        "nats a byte",
        0.002,
    )
    e.figure(
        "lora", "new text, LoRA", one, ex.WRITTEN["lora"], "nats a byte", ex.LOSS_DRIFT
    )
    e.conclude(as_stated=svd < base, repaired=wide < base)


def distilled() -> ex.Adapted:
    """A student of every second block follows a LoRA-adapted teacher for the steps."""
    teacher = copy.deepcopy(ex.trained_lora(8)[0])
    remove_lora(teacher, keep_merged=True)
    student = methods.Distillation(teacher)
    fine_tune(student, ex.draw_devil, ex.STEPS, ex.RATES["distilled"])
    student.follow = False
    return ex.Adapted(
        count_parameters(student)[0], held_out_loss(student, ex.held_out("devil")),
        held_out_loss(student, ex.held_out("bible")), 0.0,
    )  # fmt: skip


@cache
def method(name: str) -> ex.Adapted:
    """One way of adapting the base to the same text in the same steps, at its rate."""
    rng = np.random.default_rng(3)
    start = random_windows(ex.split_devil(), 1, 8, np.random.default_rng(4))[0]
    if name in ("lora", "full", "head"):
        return ex.adapted(name)
    if name == "distilled":
        return distilled()
    model = {
        "lora r=1": lambda: ex.lora(ex.base(), 1, ["c_attn"]),
        "bitfit": lambda: methods.bitfit(ex.base()),
        "prompt": lambda: methods.PromptTuning(ex.base(), start),
        "prefix": lambda: methods.prefix_tuning(ex.base(), 8, rng),
        "adapters": lambda: methods.bottleneck_adapters(ex.base(), 32, rng),
    }[name]()
    return ex.run(model, ex.RATES[name])


METHODS = {
    "full": "full fine-tuning", "lora": "LoRA, r 8, all linear layers",
    "lora r=1": "LoRA, r 1, fused qkv", "head": "output head only",
    "bitfit": "biases only (BitFit)", "prompt": "prompt tuning, 8 positions",
    "prefix": "prefix tuning, 8 positions", "adapters": "bottleneck adapters, 32 wide",
    "distilled": "distillation into half the blocks",
}  # fmt: skip


@D1.claim(
    "D1.4",
    "Other ways of adaptation (distillation, transfer learning) may have to train "
    "from scratch, or need many parameters.",
    FAILS,
    "Every method here starts from the trained base, distillation too (its student "
    "starts as every second block of the teacher). {fewer:.0f} of the eight others "
    "train fewer numbers than LoRA at r = 8: prompt tuning {prompt_n:,.0f}, biases "
    "{bitfit_n:,.0f}, prefix tuning {prefix_n:,.0f}, against {lora_n:,.0f}. After "
    "{steps:.0f} steps: {prompt:.3f}, {bitfit:.3f}, {prefix:.3f} against LoRA's "
    "{lora:.3f} nats a byte. The number trained does not decide: biases learn more "
    "than prefixes, with fewer.",
)
def d1_4(e: Evidence) -> None:
    """The table: numbers trained and loss, every method on one model and text."""
    e.figure("steps", "steps", ex.STEPS, "30")
    written = {
        "full": (842_496, ex.WRITTEN["full"]),
        "lora": (65_536, ex.WRITTEN["lora"]),
        "head": (32_768, ex.WRITTEN["head"]),
        "lora r=1": (2_048, "2.131"),
        "bitfit": (5_760, "2.032"),
        "prompt": (1_024, "2.188"),
        "prefix": (8_192, "2.086"),
        "adapters": (66_816, "1.982"),
        "distilled": (445_952, "2.053"),
    }
    for name, words in METHODS.items():
        done, key = method(name), name.split(" ")[0] + ("1" if "r=1" in name else "")
        numbers, loss = written[name]
        e.figure(key + "_n", f"{words}: numbers trained", done.trainable, str(numbers))
        e.figure(key, f"{words}: new text", done.new, loss, "nats a byte",
                 2 * ex.LOSS_DRIFT)  # fmt: skip
    others = [m for m in METHODS if m != "lora"]
    fewer = sum(method(m).trainable < method("lora").trainable for m in others)
    e.figure("fewer", "of the eight others train fewer numbers than LoRA r 8", fewer,
             "5")  # fmt: skip
    e.conclude(as_stated=fewer == 0)


@cache
def lstm_adapted() -> dict[str, float]:
    """An LSTM language model of the Bible, adapted by LoRA on its gates."""
    model = LSTMLanguageModel(256, 48, 128, np.random.default_rng(0))
    bible = split_ids("bible")[0]
    fine_tune(model, lambda rng: random_windows(bible, 16, 48, rng), 250, 1e-2)
    new, old = (fixed_windows(split_ids(n)[1], 16, 48) for n in ("devil", "bible"))
    out = {"new": held_out_loss(model, new), "old": held_out_loss(model, old)}
    model.freeze()
    model.lstm.add_lora(8, 16, np.random.default_rng(1))
    out["trained"] = count_parameters(model)[0]
    fine_tune(
        model, lambda rng: random_windows(ex.split_devil(), 16, 48, rng), 60, 1e-2
    )
    return out | {"after": held_out_loss(model, new)}


@D1.claim(
    "D1.5",
    "LoRA mainly suits decomposable models such as Transformers; an RNN may need "
    "another method.",
    FAILS,
    "The method needs a linear map, and an LSTM's gates are two. lora_lstm passes the "
    "same certification ({rows:.0f} comparisons, {failed:.0f} fail, complex step to "
    "{worst:.0e}); an LSTM language model of the old text, adapted with "
    "{trained:,.0f} numbers on its gates alone, goes from {new:.3f} to {after:.3f} "
    "nats a byte on the new text.",
)
def d1_5(e: Evidence) -> None:
    """Certify LoRA on the gates; adapt an LSTM with it."""
    rows = [r for case in range(4) for r in check_pair(pair("lora_lstm"), drawn(case))]
    checked = [r for r in rows if r.passed is not None]
    e.figure("rows", "comparisons", len(checked), "92")
    e.figure("failed", "of these fail", sum(r.passed is False for r in checked), "0")
    worst = max(r.relative for r in checked if r.method == "complex")
    e.figure("worst", "worst relative error, complex step", worst, "0.0", within=1e-13)
    done = lstm_adapted()
    e.figure("trained", "numbers trained", int(done["trained"]), "9600")
    e.figure("new", "new text before", done["new"], "2.975", "nats a byte", 0.05)
    e.figure("after", "new text after LoRA on the gates", done["after"], "2.702",
             "nats a byte", 0.05)  # fmt: skip
    works = done["after"] < done["new"] - 0.1
    e.conclude(as_stated=not works)


@D1.claim(
    "D1.6",
    "LoRA keeps most of the performance at few parameters.",
    HOLDS,
    "Of what full fine-tuning gains in {steps:.0f} steps on the new text ({base:.3f} "
    "to {full:.3f} nats a byte with {full_n:,.0f} numbers) LoRA gains {share:.0f} % "
    "with {lora_n:,.0f} numbers, {percent:.1f} % of them; the head alone gains "
    "{head_share:.0f} % with {head_n:,.0f}. Each at about its best learning rate. "
    "More steps favour full fine-tuning a little (main job, 60 steps).",
)
def d1_6(e: Evidence) -> None:
    """Parameters against loss."""
    one, full, head = (ex.adapted(m) for m in ("lora", "full", "head"))
    base = ex.base_losses()[0]
    e.figure("steps", "steps", ex.STEPS, "30")
    e.figure("base", "new text, base", base, ex.WRITTEN["base"], "nats a byte", 0.002)
    e.figure(
        "full",
        "full fine-tuning",
        full.new,
        ex.WRITTEN["full"],
        "nats a byte",
        ex.LOSS_DRIFT,
    )
    e.figure("lora", "LoRA", one.new, ex.WRITTEN["lora"], "nats a byte", ex.LOSS_DRIFT)
    e.figure(
        "head", "head only", head.new, ex.WRITTEN["head"], "nats a byte", ex.LOSS_DRIFT
    )
    for key, done in (("full_n", full), ("lora_n", one), ("head_n", head)):
        e.figure(
            key,
            f"numbers trained, {key[:-2]}",
            done.trainable,
            {"full_n": "842496", "lora_n": "65536", "head_n": "32768"}[key],
        )
    e.figure("percent", "LoRA's numbers, of all", 100 * one.trainable / full.trainable,
             "7.8", "%")  # fmt: skip
    gain = base - full.new
    share, head_share = (100 * (base - m.new) / gain for m in (one, head))
    e.figure("share", "LoRA's gain, of full fine-tuning's", share, "99", "%", 15)
    e.figure(
        "head_share", "head's gain, of full fine-tuning's", head_share, "80", "%", 15
    )
    e.conclude(as_stated=share > 80)


@D1.claim(
    "D1.8",
    "The input vector and the weight matrix are decomposed into a low-rank and a "
    "Gaussian matrix.",
    FAILS,
    "Only the weight's update is factored. Truncating the input to rank 8 changes a "
    "layer's output by {truncated:.2f} of its size; LoRA at its start changes it by "
    "exactly {start:.0f}, and its factors have the weight's sizes, none of them the "
    "batch's.",
)
def d1_8(e: Evidence) -> None:
    """A batch of real activations, truncated or left alone."""
    model = ex.base()
    ids = ex.held_out("bible")[0][0][:4]
    x = model.h[0].ln_1(model.embed(ids)).data
    layer = model.h[0].attn.c_attn
    y = layer(Tensor(x)).data
    A, B = by_svd(x.astype(np.float64), 8)
    low = layer(Tensor((A @ B).astype(np.float32))).data
    e.figure(
        "truncated",
        "input at rank 8: output changed by",
        distance(low, y),
        "0.704",
        "",
        1e-3,
    )
    lora = np.random.default_rng(0).normal(size=(8, 128)).astype(np.float32)
    zero = np.zeros((384, 8), np.float32)
    same = lora_linear(x, layer.weight.data, layer.bias.data, lora, zero, 2.0)[0]  # type: ignore[union-attr]
    start = float(np.abs(same - y).max())
    e.figure("start", "LoRA with B = 0: output changed by", start, "0.0", within=0.0)
    e.conclude(as_stated=start != 0.0)


def linear_layers(model: Module) -> list[Linear]:
    """The linear layers: a multiply-add a token for each number of their weights."""
    return [m for _, m in model.named_modules() if isinstance(m, Linear)]


@D1.claim(
    "D1.9",
    "Fewer model parameters, so easier deployment and inference.",
    FAILS,
    "Unmerged, a layer of 768 x 768 with r = 8 takes {unmerged:.4f} of the base's "
    "multiply-adds, merged exactly {merged:.1f}; the model's numbers are "
    "{numbers:.3f} of the base's unmerged, {same:.1f} merged. Deployment is easier in "
    "one respect: at equal precision a task is a file of {adapter:.1f} % of the "
    "model's bytes.",
)
def d1_9(e: Evidence) -> None:
    """Multiply-adds of the forward, numbers, bytes."""
    d, r = 768, 8
    e.figure("unmerged", "forward multiply-adds, unmerged over base",
             (d * d + r * 2 * d) / d**2, "1.0208")  # fmt: skip
    model = ex.base()
    own = count_parameters(model)[1]
    before = sum(m.weight.data.size for m in linear_layers(model))
    ex.lora(model)
    trained, more = count_parameters(model)
    remove_lora(model, keep_merged=True)
    merged = count_parameters(model)[1]
    products = sum(m.weight.data.size for m in linear_layers(model))
    e.figure(
        "merged", "forward multiply-adds, merged over base", products / before, "1.0"
    )
    e.figure("numbers", "numbers, unmerged over base", more / own, "1.078")
    e.figure("same", "numbers, merged over base", merged / own, "1.0")
    e.figure(
        "adapter", "an adapter's bytes, of the model's", 100 * trained / own, "7.8", "%"
    )
    e.conclude(as_stated=merged < own or more < own)


QUESTIONS = (
    (
        "What is LoRA?",
        ("D1.1", "D1.8"),
        "W is kept and frozen; the update is s B A with A (r, in), B (out, r), B = 0 "
        "at the start, s = α/r; only A and B are trained and the product can be "
        "merged into W.",
    ),
    (
        "How does it differ from distillation or transfer learning?",
        ("D1.4",),
        "All start from a trained model. LoRA trains a low-rank update beside frozen "
        "weights; distillation trains another model on the first one's outputs; "
        "fine-tuning trains the weights themselves. Prompt tuning and BitFit train "
        "fewer numbers than LoRA of rank 8.",
    ),
    (
        "How is the low-rank decomposition computed?",
        ("D1.2",),
        "It is not: nothing is decomposed. The factors are initialised (A random, B "
        "zero) and trained. (PiSSA does start from an SVD of W, and keeps the "
        "residual frozen.)",
    ),
    (
        "Write a simple LoRA model and compare it with the original.",
        ("D1.6",),
        "A frozen layer plus s (x Aᵀ) Bᵀ; compare loss, trained numbers and the loss "
        "on the old text, each method at its own best learning rate.",
    ),
    (
        "Does it suit every pretrained model?",
        ("D1.5",),
        "Every model with linear maps: also recurrent ones, convolutions and "
        "embeddings. Whether low rank is enough is a question about the task, not "
        "about the model.",
    ),
    (
        "How is the low-rank matrix optimised?",
        ("D1.3",),
        "Both factors by gradient descent (AdamW): dB = s dyᵀ(x Aᵀ), dA = s (dy B)ᵀ "
        "x; W gets no gradient. Training one factor alone fixes the row or the column "
        "space.",
    ),
    (
        "What are its advantages in practice?",
        ("D1.6", "D1.9"),
        "Few trained numbers: small gradients, optimizer state and checkpoints, many "
        "tasks on one base, no cost at inference once merged. Not a smaller or faster "
        "model.",
    ),
)


@D1.claim(
    "D1.7",
    "Seven interview questions with answers.",
    FAILS,
    "A printed answer stands as far as the claims above that it repeats, and those of "
    "the {questions:.0f} repeat {claims:.0f}. {right:.0f} stands as printed (question "
    "{first:.0f}), {repaired:.0f} when repaired, {wrong:.0f} repeat a claim that "
    "fails. Right answers in two sentences each are in documents/d1.py (QUESTIONS) "
    "and in chapter 07.",
)
def d1_7(e: Evidence) -> None:
    """Every answer by the worst verdict of its claims."""
    found = standing()
    e.figure("questions", "questions", len(QUESTIONS), "7")
    e.figure("right", "printed answers that stand", len(found[HOLDS]), "1")
    e.figure("first", "the first of these", min(found[HOLDS]), "4")
    e.figure("repaired", "that stand when repaired", len(found[REPAIRED]), "2")
    e.figure("wrong", "that repeat a claim that fails", len(found[FAILS]), "4")
    used = {i for _, ids, _ in QUESTIONS for i in ids}
    e.figure("claims", "claims that the answers repeat", len(used), "8")
    e.conclude(as_stated=len(found[HOLDS]) == len(QUESTIONS))


def standing() -> dict[str, list[int]]:
    """Verdict -> numbers of the questions whose printed answer has it.

    An answer has the worst verdict of the claims that it repeats.
    Raises ValueError for an answer that names no claim: nothing would decide it.

    >>> standing()[HOLDS]
    [4]
    """
    order = (HOLDS, REPAIRED, FAILS)  # from best to worst
    found: dict[str, list[int]] = {verdict: [] for verdict in order}
    for number, (question, ids, _) in enumerate(QUESTIONS, start=1):
        if not ids:
            raise ValueError(f"{question!r} names no claim that its answer repeats")
        found[max((D1.claims[i].verdict for i in ids), key=order.index)].append(number)
    return found
