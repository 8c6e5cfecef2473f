"""Attacks on a classifier's embedding, and training against them.

B batch · T time · D width.  An attack is an offset (B T, D) added to the embedded text,
of Euclidean norm ε for each sequence, whatever the method: so they can be compared.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from lora_np.backend import Array, to_host
from lora_np.documents.encoders import Classifier
from lora_np.graph import no_grad
from lora_np.nn import ops
from lora_np.nn.layers import Rng
from lora_np.nn.module import Module
from lora_np.tape import Tensor

METHODS = ("fgsm", "fgm", "pgd", "vat")


@contextmanager
def frozen(model: Module) -> Iterator[None]:
    """No parameter receives a gradient inside; afterwards as before.

    An attack differentiates with respect to the input; without this its backward would
    add to the weights' gradients.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    for p in trained:
        p.requires_grad = False
    try:
        yield
    finally:
        for p in trained:
            p.requires_grad = True


def offset_gradient(
    model: Module, loss: Callable[[Tensor], Tensor], offset: Array
) -> Array:
    """d loss(offset) / d offset, leaving every weight's gradient as it is."""
    leaf = Tensor(offset, requires_grad=True)
    with frozen(model):
        loss(leaf).backward()
    assert leaf.grad is not None
    return leaf.grad


def to_norm(offset: Array, batch: int, eps: float) -> Array:
    """Each sequence's offset scaled to norm eps; zero stays zero.

    >>> to_norm(np.array([[3.0, 4.0]]), 1, 1.0)
    array([[0.6, 0.8]])
    """
    flat = offset.reshape(batch, -1)
    norm = np.sqrt((flat * flat).sum(axis=1, keepdims=True))
    scale = eps / np.where(norm == 0, 1.0, norm)
    return (flat * scale).astype(offset.dtype).reshape(offset.shape)


def within_norm(offset: Array, batch: int, eps: float) -> Array:
    """Each sequence's offset shortened to norm eps if it is longer.

    >>> within_norm(np.array([[0.3, 0.4]]), 1, 1.0)
    array([[0.3, 0.4]])
    """
    flat = offset.reshape(batch, -1)
    norm = np.sqrt((flat * flat).sum(axis=1, keepdims=True))
    scale = np.minimum(1.0, eps / np.where(norm == 0, 1.0, norm))
    return (flat * scale).astype(offset.dtype).reshape(offset.shape)


def check_attack(method: str, eps: float, steps: int) -> None:
    """Raise ValueError unless eps is a distance, the method known, steps 1 or more.

    >>> check_attack("pgd", 0.5, 3)
    """
    if not 0 <= eps < float("inf"):
        raise ValueError(f"eps is a distance, 0 or more and finite, got {eps}")
    if method not in METHODS or steps < 1:
        raise ValueError(f"method must be one of {METHODS} and steps 1 or more, got "
                         f"{method!r} and {steps}")  # fmt: skip


def perturb(
    model: Classifier, ids: Array, labels: Array, eps: float, method: str = "pgd",
    steps: int = 5, rng: Rng | None = None,
) -> Array:  # fmt: skip
    """The offset (B T, D) that a method finds, of norm eps for each sequence.

    fgsm: the sign of the gradient (Goodfellow et al. 2015, 1412.6572), here scaled to
    the same Euclidean norm as the others; fgm: the gradient (Miyato et al. 2017,
    1605.07725);
    pgd: `steps` steps of eps/steps · 1.5, projected on the ball (Madry et al. 2018,
    1706.06083); vat: the direction that changes the prediction most, found by one power
    iteration, without labels (Miyato et al. 2018, 1704.03976).
    Raises ValueError for eps < 0, another method or no step.
    """
    check_attack(method, eps, steps)
    if not len(ids):
        raise ValueError("an attack needs at least one sequence, got none")
    with no_grad():
        zero = np.zeros_like(to_host(model.encoder.embed(ids).data))
    B = len(ids)
    if eps == 0:
        return zero
    if method == "vat":
        return _virtual(model, ids, eps, zero, rng or np.random.default_rng(0))

    def loss(offset: Tensor) -> Tensor:
        z = model.logits(ids, offset)
        return ops.cross_entropy(z, labels, reduction="sum")

    if method == "fgsm":
        return to_norm(np.sign(offset_gradient(model, loss, zero)), B, eps)
    if method == "fgm":
        return to_norm(offset_gradient(model, loss, zero), B, eps)
    offset = zero
    for _ in range(steps):
        g = offset_gradient(model, loss, offset)
        offset = within_norm(offset + to_norm(g, B, 1.5 * eps / steps), B, eps)
    return offset


def _virtual(model: Classifier, ids: Array, eps: float, zero: Array, rng: Rng) -> Array:
    with no_grad():
        clean = to_host(model.logits(ids).data)
    B, small = len(ids), 0.1 * eps
    start = to_norm(rng.normal(size=zero.shape).astype(zero.dtype), B, small)
    g = offset_gradient(
        model,
        lambda offset: ops.kl_divergence(clean, model.logits(ids, offset), "sum"),
        start,
    )
    return to_norm(g, B, eps)


class AdversarialTraining(Module):
    """A classifier whose loss is that of the clean text plus that under an attack.

    The attack is recomputed at every step and treated as a constant in backward.
    """

    def __init__(self, model: Classifier, method: str, eps: float, steps: int = 3):
        check_attack(method, eps, steps)
        self.model, self.method, self.eps, self.steps = model, method, eps, steps

    def loss(
        self, ids: Array, target: Array, reduction: str = "mean", rng: Rng | None = None
    ) -> Tensor:
        """Clean plus attacked cross-entropy; for "vat" clean plus the divergence."""
        offset = perturb(
            self.model, ids, target, self.eps, self.method, self.steps, rng
        )
        z = self.model.logits(ids)
        attacked = self.model.logits(ids, offset)
        clean = ops.cross_entropy(z, target, reduction=reduction)
        if self.method == "vat":
            return clean + ops.kl_divergence(z.data, attacked, reduction)
        return clean + ops.cross_entropy(attacked, target, reduction=reduction)


def still_right(
    model: Classifier, ids: Array, labels: Array, eps: float, method: str = "pgd"
) -> np.ndarray:
    """Which sequences are still classified right under the attack (eps 0: clean)."""
    offset = perturb(model, ids, labels, eps, method)
    with no_grad():
        z = to_host(model.logits(ids, offset).data)
    return z.argmax(axis=1) == labels


def attacked_accuracy(
    model: Classifier, ids: Array, labels: Array, eps: float, method: str = "pgd"
) -> float:
    """Share of sequences still classified right under the attack (eps 0: clean)."""
    return float(still_right(model, ids, labels, eps, method).mean())
