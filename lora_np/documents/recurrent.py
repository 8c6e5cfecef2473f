"""LSTM models: a language model, an encoder, and the encoder-decoder that D0 wanted.

B batch · T time · S source length · D width · H hidden · V vocabulary.  The recurrence
and its backward through time are `functional.lstm` and `lora.lora_lstm`.
"""

import numpy as np

from lora_np.backend import Array
from lora_np.graph import no_grad
from lora_np.lora import init_lora, scaling
from lora_np.nn import ops
from lora_np.nn.layers import Embedding, Linear, Rng
from lora_np.nn.module import Module, Parameter
from lora_np.tape import Tensor


class LSTM(Module):
    """An LSTM layer; `add_lora` puts adapters beside both of its matrices.

    >>> layer = LSTM(3, 2, np.random.default_rng(0))
    >>> layer(Tensor(np.ones((5, 1, 3), np.float32)))[0].shape
    (5, 1, 2)
    """

    def __init__(self, inputs: int, hidden: int, rng: Rng):
        def draw(columns: int) -> Parameter:
            scale = 1.0 / np.sqrt(hidden)
            shape = (4 * hidden, columns)
            return Parameter(rng.uniform(-scale, scale, shape).astype(np.float32))

        self.hidden = hidden
        self.weight_ih, self.weight_hh = draw(inputs), draw(hidden)
        self.bias = Parameter(np.zeros(4 * hidden, np.float32))
        self.bias.data[hidden : 2 * hidden] = 1.0  # remember at first
        self.scaling: float | None = None

    def add_lora(self, r: int, lora_alpha: float, rng: Rng) -> None:
        """Freeze the layer; adapters of rank r on the input and recurrent weights."""
        self.freeze()
        self.scaling = scaling(lora_alpha, r)
        for name, W in (("ih", self.weight_ih), ("hh", self.weight_hh)):
            M, D = W.shape
            A, B = init_lora((r, D), (M, r), rng, True, W.dtype)
            setattr(self, f"lora_A_{name}", Parameter(A))
            setattr(self, f"lora_B_{name}", Parameter(B))

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """x (T, B, D) → (hidden states (T, B, H), last cell (B, H))."""
        zero = Tensor(np.zeros((x.shape[1], self.hidden), x.dtype))
        h, c = state or (zero, zero)
        weights = (self.weight_ih, self.weight_hh, self.bias)
        if self.scaling is None:
            return ops.lstm(x, h, c, *weights)
        factors = (self.lora_A_ih, self.lora_B_ih, self.lora_A_hh, self.lora_B_hh)  # type: ignore[attr-defined]
        return ops.lora_lstm(x, h, c, *weights, *factors, self.scaling)


class LSTMLanguageModel(Module):
    """Embedding, LSTM, output layer: the next byte from all bytes before.

    >>> model = LSTMLanguageModel(16, 4, 6, np.random.default_rng(0))
    >>> model.loss(np.zeros((2, 3), int), np.zeros((2, 3), int)).shape
    ()
    """

    def __init__(self, vocabulary: int, width: int, hidden: int, rng: Rng):
        self.embedding = Embedding(vocabulary, width, rng, std=1.0 / np.sqrt(width))
        self.lstm = LSTM(width, hidden, rng)
        self.head = Linear(hidden, vocabulary, rng)

    def logits(self, ids_BT: Array) -> Tensor:
        """Logits (T B, V), time first."""
        B, T = ids_BT.shape
        x = self.embedding(ids_BT.T.reshape(-1)).reshape(T, B, -1)
        hs, _ = self.lstm(x)
        return self.head(hs.reshape(T * B, -1))

    def loss(
        self, ids: Array, target: Array, reduction: str = "mean", rng: Rng | None = None
    ) -> Tensor:
        """Cross-entropy in nats of targets (B, T)."""
        return ops.cross_entropy(
            self.logits(ids), target.T.reshape(-1), reduction=reduction
        )


class EncoderDecoder(Module):
    """An LSTM reads the source; its last state starts the LSTM that writes the target.

    >>> model = EncoderDecoder(16, 4, 6, np.random.default_rng(0))
    >>> model.write(np.ones((2, 3), int), start=1, length=4).shape
    (2, 4)
    """

    def __init__(self, vocabulary: int, width: int, hidden: int, rng: Rng):
        std = 1.0 / np.sqrt(width)
        self.source = Embedding(vocabulary, width, rng, std=std)
        self.target = Embedding(vocabulary, width, rng, std=std)
        self.encoder, self.decoder = LSTM(width, hidden, rng), LSTM(width, hidden, rng)
        self.head = Linear(hidden, vocabulary, rng)

    def encode(self, source_BS: Array) -> tuple[Tensor, Tensor]:
        """The state (h, c) after the source; pad sources on the left."""
        B, S = source_BS.shape
        hs, c = self.encoder(self.source(source_BS.T.reshape(-1)).reshape(S, B, -1))
        return hs[S - 1], c

    def decode(self, state: tuple[Tensor, Tensor], ids_BT: Array) -> tuple:
        """(logits (T B, V), state after the last) of the target read so far."""
        B, T = ids_BT.shape
        x = self.target(ids_BT.T.reshape(-1)).reshape(T, B, -1)
        hs, c = self.decoder(x, state)
        return self.head(hs.reshape(T * B, -1)), (hs[T - 1], c)

    def loss(
        self, ids: tuple[Array, Array], target: Array, reduction: str = "mean",
        rng: Rng | None = None,
    ) -> Tensor:  # fmt: skip
        """Cross-entropy in nats; ids = (source (B, S), target so far (B, T))."""
        logits, _ = self.decode(self.encode(ids[0]), ids[1])
        return ops.cross_entropy(logits, target.T.reshape(-1), reduction=reduction)

    def write(self, source_BS: Array, start: int, length: int) -> np.ndarray:
        """The likeliest next character, `length` times, for each source (B, length)."""
        with no_grad():
            state = self.encode(source_BS)
            last, out = np.full(len(source_BS), start), []
            for _ in range(length):
                logits, state = self.decode(state, last[:, None])
                last = np.asarray(logits.data).argmax(axis=1)
                out.append(last)
        return np.stack(out, axis=1)
