import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.intruders import reduce_intruder_dimension as R
from torch import nn

m = nn.Sequential(nn.Linear(3, 3, bias=False))
m[0].weight.data = torch.diag(torch.tensor([3.0, 2, 1]))
n = {}
for lam in [0.0, 1.0]:
    p = get_peft_model(
        nn.Sequential(nn.Linear(3, 3, bias=False)),
        LoraConfig(r=1, lora_alpha=1, target_modules=["0"]),
    )
    L = p.base_model.model[0]
    L.base_layer.weight.data = torch.diag(torch.tensor([3.0, 2, 1]))
    v = torch.tensor([[1.0, 1, 1]])
    L.lora_A.default.weight.data = v
    L.lora_B.default.weight.data = 9 * v.T
    R(p, threshold_epsilon=0.9, mitigation_lambda=lam, logging_sink=None)
    n[lam] = (
        (L.get_delta_weight("intruder_reduced") - L.get_delta_weight("default"))
        .norm()
        .item()
    )
print("amount subtracted:", n, "doc: higher lambda subtracts more")
raise SystemExit(int(n[1.0] <= n[0.0]))
