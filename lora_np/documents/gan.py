"""A small GAN on a classifier's features: generated features as extra training data.

N rows · D feature width · Z noise width · C classes
"""

import numpy as np

from lora_np.backend import Array
from lora_np.nn import ops
from lora_np.nn.layers import Linear, Rng
from lora_np.nn.module import Module
from lora_np.tape import Tensor, concat
from lora_np.training import Adam


class Player(Module):
    """Two linear layers with a GELU between; input and class (one-hot) side by side."""

    def __init__(self, inputs: int, middle: int, outputs: int, classes: int, rng: Rng):
        self.classes = classes
        self.first = Linear(inputs + classes, middle, rng)
        self.second = Linear(middle, outputs, rng)

    def forward(self, x: Tensor, labels: Array) -> Tensor:
        """x (N, inputs), labels (N,) → (N, outputs)."""
        one_hot = np.eye(self.classes, dtype=x.dtype)[labels]
        both = concat([x, Tensor(one_hot)], axis=1)
        return self.second(ops.gelu_tanh(self.first(both)))


class FeatureGAN:
    """Generator and discriminator on features; `losses` holds (L_D, L_G) a step.

    It has a loop of its own: two players with an optimizer each take turns, and
    `training.train` knows one loss and one optimizer.

    Features are scaled to unit variance on the data given first.
    """

    def __init__(
        self, features: np.ndarray, labels: np.ndarray, classes: int, rng: Rng,
        noise: int = 16, middle: int = 64, lr: float = 2e-3, saturating: bool = False,
    ):  # fmt: skip
        D = features.shape[1]
        self.mean, self.std = features.mean(axis=0), features.std() + 1e-6
        self.real = ((features - self.mean) / self.std).astype(np.float32)
        self.labels, self.classes, self.noise, self.rng = labels, classes, noise, rng
        self.generator = Player(noise, middle, D, classes, rng)
        self.discriminator = Player(D, middle, 1, classes, rng)
        self.saturating, self.losses = saturating, []  # type: ignore[var-annotated]
        self._step_G = Adam(self.generator.parameters(), lr=lr, betas=(0.5, 0.99))
        self._step_D = Adam(self.discriminator.parameters(), lr=lr, betas=(0.5, 0.99))

    def _draw(self, labels: Array) -> Tensor:
        z = self.rng.normal(size=(len(labels), self.noise)).astype(np.float32)
        return self.generator(Tensor(z), labels)

    def _judge(self, x: Tensor, labels: Array) -> Tensor:
        return self.discriminator(x, labels).reshape(-1)

    def train(self, steps: int, batch: int = 64) -> None:
        """Alternate one step of each player, `steps` times."""
        for _ in range(steps):
            rows = self.rng.integers(0, len(self.real), batch)
            labels = self.labels[rows]
            fake = self._draw(labels)
            self._step_D.zero_grad()
            d_loss = ops.discriminator_loss(
                self._judge(Tensor(self.real[rows]), labels),
                self._judge(Tensor(fake.data), labels),
            )
            d_loss.backward()
            self._step_D.step()
            self._step_G.zero_grad()
            g_loss = ops.generator_loss(self._judge(fake, labels), self.saturating)
            g_loss.backward()
            self._step_G.step()
            self.losses.append((float(d_loss.data), float(g_loss.data)))

    def sample(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(features (count, D), labels): generated, in the scale of the real ones."""
        labels = self.rng.integers(0, self.classes, count)
        return self._draw(labels).data * self.std + self.mean, labels
