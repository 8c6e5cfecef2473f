import torch
from peft import LoraConfig, convert_to_lora, get_peft_model, set_peft_model_state_dict
from torch import nn

torch.manual_seed(0)
b = nn.Sequential(nn.Linear(4, 4))
import copy

b2 = copy.deepcopy(b)
p = get_peft_model(b, LoraConfig(r=2, use_dora=True, target_modules=["0"])).eval()
p.base_model.model[0].lora_magnitude_vector["default"].weight.data *= 3
x = torch.ones(1, 4)
want = p(x).detach()
cfg, sd = convert_to_lora(p, rank=4)
q = get_peft_model(b2, cfg).eval()
set_peft_model_state_dict(q, sd)
got = q(x).detach()
print("got", got, "want", want)
raise SystemExit(int(not torch.allclose(got, want, atol=1e-4)))
