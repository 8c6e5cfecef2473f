import torch
from peft import LoraConfig, get_peft_model
from torch import nn

torch.manual_seed(0)
m = nn.Sequential(nn.Conv1d(1, 1, 3, padding="same", dilation=2, bias=False).double())
p = get_peft_model(m, LoraConfig(r=1, lora_alpha=1, target_modules=["0"]))
L = p.base_model.model[0]
L.base_layer.weight.data.zero_()
L.lora_A.default.weight.data = torch.tensor([[[1.0, 2, 3]]]).double()
L.lora_B.default.weight.data.fill_(1)
x = torch.tensor([[[1.0, 0, 0, 0, 0]]]).double()
got = p(x).detach()
p.merge_adapter()
want = p(x).detach()
print("forward", got, "merged", want)
raise SystemExit(int(not torch.allclose(got, want)))
