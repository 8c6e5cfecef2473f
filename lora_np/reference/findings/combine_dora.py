import torch
from peft import LoraConfig, get_peft_model
from torch import nn

torch.manual_seed(0)
m = nn.Sequential(nn.Linear(4, 4))
p = get_peft_model(
    m, LoraConfig(r=2, lora_alpha=2, use_dora=True, target_modules=["0"]), "a"
).eval()
L = p.base_model.model[0]
L.lora_magnitude_vector["a"].weight.data *= 3
x = torch.ones(1, 4)
want = p(x).detach()
p.add_weighted_adapter(["a"], [1.0], "c", combination_type="linear")
p.set_adapter("c")
got = p(x).detach()
print("got", got, "want", want)
raise SystemExit(int(not torch.allclose(got, want, atol=1e-5)))
