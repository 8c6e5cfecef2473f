import torch
from peft import LoraConfig, get_peft_model
from torch import nn

torch.manual_seed(0)
c = lambda d: LoraConfig(r=1, use_dora=d, target_modules=["0"], init_lora_weights=True)
p = get_peft_model(nn.Sequential(nn.Linear(2, 2)), c(False), "a").eval()
L = p.base_model.model[0]
L.lora_B["a"].weight.data.fill_(3.0)
x = torch.ones(1, 2)
with p.disable_adapter():
    want = p(x).detach()
p.merge_adapter()
p.add_adapter("b", c(True))
p.unmerge_adapter()
p.set_adapter("b")
got = p(x).detach()
print("fresh DoRA adapter: got", got, "want base", want)
raise SystemExit(int(not torch.allclose(got, want, atol=1e-4)))
