import torch
from peft import LoraConfig, get_peft_model

base = torch.nn.Linear(2, 2, bias=False)
base.weight.data = torch.tensor([[0.0, 0.0], [3.0, 4.0]])  # an output that is pruned
x = torch.ones(1, 2)
want = base(x).detach()
config = LoraConfig(r=1, target_modules=["0"], use_dora=True)
got = get_peft_model(torch.nn.Sequential(base), config)(x).detach()
print("got", got, "want", want)
raise SystemExit(int(not torch.equal(got, want)))
