import torch
from peft import LoraConfig, get_peft_model
from torch import nn

torch.manual_seed(0)
p = get_peft_model(
    nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)),
    LoraConfig(r=1, target_modules=["0"], modules_to_save=["1"]),
    "a",
)
p.base_model.model[1].modules_to_save["a"].weight.data.fill_(5.0)
x = torch.ones(1, 4)
want = p(x).detach()
p.add_weighted_adapter(["a"], [1.0], "c")
p.set_adapter("c")
got = p(x).detach()
print("got", got, "want", want)
raise SystemExit(int(not torch.allclose(got, want, atol=1e-4)))
