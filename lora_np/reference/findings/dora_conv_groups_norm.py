import torch
from peft import LoraConfig, get_peft_model
from torch import nn

torch.manual_seed(0)
p = get_peft_model(
    nn.Sequential(nn.Conv2d(2, 2, 1, groups=2, bias=False).double()),
    LoraConfig(r=2, lora_alpha=2, use_dora=True, target_modules=["0"]),
).eval()
L = p.base_model.model[0]
nn.init.normal_(L.lora_A.default.weight)
nn.init.normal_(L.lora_B.default.weight)
m = L.lora_magnitude_vector["default"].weight.flatten().detach()
eff = torch.stack(
    [p(torch.eye(2).double()[i].view(1, 2, 1, 1)).flatten().detach() for i in range(2)],
    1,
)  # (out,in) effective weight
print("row norms of the effective weight: got", eff.norm(dim=1), "want magnitude", m)
raise SystemExit(int(not torch.allclose(eff.norm(dim=1), m, atol=1e-6)))
