"""Hand-derived pairs f / f_backward on plain arrays, one family a file.

Every forward returns (y, cache), every backward (dy, cache) -> gradients in the order
of `f.wrt`. Nothing in this room knows the tape.
"""

from lora_np.functional.activation import (
    gelu,
    gelu_backward,
    gelu_tanh,
    gelu_tanh_backward,
    relu,
    relu_backward,
    sigmoid,
    silu,
    silu_backward,
    swiglu,
    swiglu_backward,
)
from lora_np.functional.adversarial import (
    discriminator_loss,
    discriminator_loss_backward,
    generator_loss,
    generator_loss_backward,
)
from lora_np.functional.attention import (
    attention,
    attention_backward,
)
from lora_np.functional.contract import ALL, differentiable
from lora_np.functional.conv import (
    conv1d,
    conv1d_backward,
    conv2d,
    conv2d_backward,
)
from lora_np.functional.cross_entropy import (
    cross_entropy,
    cross_entropy_backward,
    linear_cross_entropy,
    linear_cross_entropy_backward,
)
from lora_np.functional.divergence import kl_divergence, kl_divergence_backward
from lora_np.functional.dropout import dropout, dropout_backward
from lora_np.functional.embedding import embedding, embedding_backward
from lora_np.functional.linear import linear, linear_backward
from lora_np.functional.low_rank import (
    projection,
    projection_backward,
    truncated_svd,
    truncated_svd_backward,
)
from lora_np.functional.lstm import lstm, lstm_backward, lstm_cell, lstm_cell_backward
from lora_np.functional.norm import (
    layer_norm,
    layer_norm_backward,
    rms_norm,
    rms_norm_backward,
)
from lora_np.functional.qkv import qkv_attention, qkv_attention_backward
from lora_np.functional.rotary import rotary, rotary_backward
from lora_np.functional.softmax import softmax, softmax_backward

__all__ = [name for name in dir() if not name.startswith("_")]
