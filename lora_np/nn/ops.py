"""The hand-derived pairs as operations on Tensors: one node each."""

from lora_np import functional as F
from lora_np import lora as L
from lora_np.tape import lift

linear = lift(F.linear, F.linear_backward)
embedding = lift(F.embedding, F.embedding_backward)
layer_norm = lift(F.layer_norm, F.layer_norm_backward)
rms_norm = lift(F.rms_norm, F.rms_norm_backward)
gelu = lift(F.gelu, F.gelu_backward)
gelu_tanh = lift(F.gelu_tanh, F.gelu_tanh_backward)
relu = lift(F.relu, F.relu_backward)
silu = lift(F.silu, F.silu_backward)
swiglu = lift(F.swiglu, F.swiglu_backward)
softmax = lift(F.softmax, F.softmax_backward)
cross_entropy = lift(F.cross_entropy, F.cross_entropy_backward)
linear_cross_entropy = lift(F.linear_cross_entropy, F.linear_cross_entropy_backward)
dropout = lift(F.dropout, F.dropout_backward)
rotary = lift(F.rotary, F.rotary_backward)
attention = lift(F.attention, F.attention_backward)
qkv_attention = lift(F.qkv_attention, F.qkv_attention_backward)
conv1d = lift(F.conv1d, F.conv1d_backward)
conv2d = lift(F.conv2d, F.conv2d_backward)
lstm_cell = lift(F.lstm_cell, F.lstm_cell_backward)
lstm = lift(F.lstm, F.lstm_backward)

lora_linear = lift(L.lora_linear, L.lora_linear_backward)
lora_embedding = lift(L.lora_embedding, L.lora_embedding_backward)
lora_tied = lift(L.lora_tied, L.lora_tied_backward)
lora_conv1d = lift(L.lora_conv1d, L.lora_conv1d_backward)
lora_conv2d = lift(L.lora_conv2d, L.lora_conv2d_backward)
lora_qkv = lift(L.lora_qkv, L.lora_qkv_backward)
lora_self_attention = lift(L.lora_self_attention, L.lora_self_attention_backward)
dora_linear = lift(L.dora_linear, L.dora_linear_backward)
