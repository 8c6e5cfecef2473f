import torch
from peft import LoraConfig, get_peft_model
from peft.helpers import rescale_adapter_scale
from torch import nn

torch.manual_seed(0)
m = nn.Sequential(nn.Linear(2, 2))
x = torch.ones(1, 2)
want = m(x).detach()
p = get_peft_model(m, LoraConfig(r=1, use_dora=True, target_modules=["0"])).eval()
p.base_model.model[0].lora_magnitude_vector["default"].weight.data *= 2
with rescale_adapter_scale(p, 0.0):
    got = p(x).detach()
print("scale 0: got", got, "want base", want)
raise SystemExit(int(not torch.allclose(got, want, atol=1e-5)))
