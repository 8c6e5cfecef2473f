import torch
from peft import (
    LoraConfig,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from peft.helpers import DoraCaching
from torch import nn

torch.manual_seed(0)
p = get_peft_model(
    nn.Sequential(nn.Linear(2, 2)), LoraConfig(r=1, use_dora=True, target_modules=["0"])
).eval()
x = torch.ones(1, 2)
bad = 0
sd = {k: v.clone() * 3 + 1 for k, v in get_peft_model_state_dict(p).items()}
with DoraCaching():
    p(x)
    set_peft_model_state_dict(p, sd)
    got = p(x).detach()
p.train()
p.eval()
want = p(x).detach()
print("after loading new weights: got", got, "want", want)
bad |= not torch.allclose(got, want, atol=1e-4)
with DoraCaching():
    p(x)
    p.base_model.model[0].set_scale("default", 5.0)
    got = p(x).detach()
p.train()
p.eval()
want = p(x).detach()
print("after set_scale: got", got, "want", want)
bad |= not torch.allclose(got, want, atol=1e-4)
raise SystemExit(int(bad))
