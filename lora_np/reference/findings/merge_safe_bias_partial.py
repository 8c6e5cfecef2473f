import torch
from peft import LoraConfig, get_peft_model
from torch import nn

m = nn.Sequential(nn.Linear(2, 2, bias=False))
W = m[0].weight.detach().clone()
p = get_peft_model(
    m, LoraConfig(r=1, lora_bias=True, target_modules=["0"], init_lora_weights=False)
)
try:
    p.merge_adapter()
except RuntimeError as e:
    print(e)
L = p.base_model.model[0]
got = L.base_layer.weight.detach()
print(
    "base weight after the refused merge: got",
    got.tolist(),
    "want",
    W.tolist(),
    "merged_adapters",
    L.merged_adapters,
)
raise SystemExit(int(not torch.allclose(got, W)))
