import torch
from peft import LoraConfig, get_peft_model
from torch import nn

torch.manual_seed(0)
p = get_peft_model(
    nn.Sequential(nn.Linear(2, 2)),
    LoraConfig(r=1, lora_alpha=1, lora_bias=True, target_modules=["0"]),
    "a",
)
p.add_adapter("b", LoraConfig(r=1, use_dora=True, target_modules=["0"]))
p.base_model.set_adapter(["a", "b"])
p.eval()
L = p.base_model.model[0]
L.lora_B["a"].bias.data.fill_(1.0)
L.lora_magnitude_vector["b"].weight.data *= 2
x = torch.ones(1, 2)
want = p(x).detach()
p.merge_adapter(adapter_names=["a", "b"])
got = p(x).detach()
print("merged", got, "forward", want)
raise SystemExit(int(not torch.allclose(got, want, atol=1e-4)))
