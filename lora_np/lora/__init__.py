"""The method: LoRA's layers by hand, initialisation, scale, merge, counts.

Read `linear.py` first; every other layer is the same three lines around another base.
`bare.py` is the method once more in under 60 lines, without a comment.
"""

from lora_np.lora.combine import combine
from lora_np.lora.conv import (
    lora_conv1d,
    lora_conv1d_backward,
    lora_conv2d,
    lora_conv2d_backward,
)
from lora_np.lora.counts import (
    Memory,
    full_step_flops,
    lora_parameters,
    lora_step_flops,
    memory,
)
from lora_np.lora.dora import dora_linear, dora_linear_backward, row_norm
from lora_np.lora.embedding import (
    lora_embedding,
    lora_embedding_backward,
    lora_tied,
    lora_tied_backward,
)
from lora_np.lora.init import (
    check_method,
    init_lora,
    init_lora_embedding,
    kaiming_uniform,
)
from lora_np.lora.linear import lora_linear, lora_linear_backward
from lora_np.lora.lstm import lora_lstm, lora_lstm_backward
from lora_np.lora.merge import (
    delta_weight,
    merge,
    merge_bound,
    round_trip_bound,
    unmerge,
)
from lora_np.lora.qkv import (
    lora_qkv,
    lora_qkv_backward,
    lora_self_attention,
    lora_self_attention_backward,
)
from lora_np.lora.scale import check_rank, scaling
from lora_np.lora.tasks import lora_linear_tasks, lora_linear_tasks_backward

__all__ = [name for name in dir() if not name.startswith("_")]
