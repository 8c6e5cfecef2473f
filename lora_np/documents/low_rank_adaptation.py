"""D3's call, LowRankAdaptation(model).fit(ids, epochs=3), on our own transformer."""

from dataclasses import replace

import numpy as np

from lora_np.backend import to_host
from lora_np.functional.contract import expect_ids, expect_shape
from lora_np.graph import no_grad
from lora_np.models import GPT
from lora_np.nn import LoraConfig, attach_lora
from lora_np.training import AdamW, History, TrainOptions, train


class LowRankAdaptation:
    """LoRA on every linear layer of a GPT, trained to predict the next token.

    config: a LoraConfig (r 8, α 16, all linear layers when not given).

    >>> from lora_np.models import GPTConfig
    >>> model = GPT(GPTConfig(16, 8, 8, 1, 2), np.random.default_rng(0))
    >>> ids = np.arange(12).reshape(2, 6)
    >>> LowRankAdaptation(model).fit(ids, epochs=1).shape
    (2, 6, 8)
    """

    def __init__(
        self, model: GPT, config: LoraConfig | None = None, lr: float = 1e-2,
        batch_size: int = 8, seed: int = 0,
    ):  # fmt: skip
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more, got {batch_size}")
        config = config or LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
        self.model, self.batch_size, self.seed = model, batch_size, seed
        self.config = replace(config)
        attach_lora(model, self.config, np.random.default_rng(seed))
        self.optimizer = AdamW(
            list(model.trainable().values()), lr=lr, weight_decay=0.0
        )
        self.history = History()

    def fit(self, ids: np.ndarray, epochs: int = 3) -> np.ndarray:
        """Train on ids (N, T), each position predicting the next; then `hidden(ids)`.

        Returns hidden states (N, T, D). A second call goes on training. An epoch is one
        pass over the rows in a shuffled order; the last batch may be smaller.
        Raises ValueError for shapes or fewer than 2 positions, IndexError for ids
        outside the vocabulary.
        """
        expect_shape("ids", ids, (None, None), "ids[None] makes a batch of one")
        expect_ids("ids", ids, self.model.config.vocab_size)
        if ids.shape[0] < 1 or ids.shape[1] < 2 or epochs < 1:
            raise ValueError(
                "fit needs at least one row, two positions (the second is predicted "
                f"from the first) and one epoch, got ids {ids.shape}, epochs {epochs}"
            )
        batches = self._order(len(ids), epochs)
        start = self.optimizer.steps

        def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
            rows = ids[batches[self.optimizer.steps - start]]
            return rows[:, :-1], rows[:, 1:]

        options = TrainOptions(start + len(batches), seed=self.seed, label="fit")
        train(self.model, self.optimizer, draw, options, self.history)
        return self.hidden(ids)

    def _order(self, count: int, epochs: int) -> list[np.ndarray]:
        rng = np.random.default_rng([self.seed, self.optimizer.steps])
        size = self.batch_size
        orders = [rng.permutation(count) for _ in range(epochs)]
        return [o[i : i + size] for o in orders for i in range(0, count, size)]

    def hidden(self, ids: np.ndarray) -> np.ndarray:
        """Hidden states after the last norm, (N, T, D), in evaluation mode."""
        was_training = self.model.training
        self.model.eval()
        try:
            with no_grad():
                h = to_host(self.model.hidden(ids).data)
        finally:
            self.model.train(was_training)
        return h.reshape(*ids.shape, -1)
