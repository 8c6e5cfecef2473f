import torch
from peft import LoraConfig, get_peft_model
from torch import nn

torch.manual_seed(0)
M = nn.Module()
base = nn.Sequential()
base.add_module("a", nn.MultiheadAttention(4, 1, batch_first=True, dtype=torch.float64))
W = base.a.out_proj.weight.detach().clone()
p = get_peft_model(base, LoraConfig(r=2, lora_alpha=2, target_modules=["a"]))
L = p.base_model.model.a
o = L.base_layer.out_proj
nn.init.ones_(o.lora_B["default"].weight)
d = o.get_delta_weight("default").detach()
p.merge_adapter()
got = o.base_layer.weight.detach() - W
print("got ", got[0])
print("want", d[0])
raise SystemExit(int(not torch.allclose(got, d)))
