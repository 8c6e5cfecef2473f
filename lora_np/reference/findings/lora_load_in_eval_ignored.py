import loralib as lora
import torch
from torch import nn

torch.manual_seed(0)
m = nn.Sequential(lora.Linear(2, 2, r=1, dtype=torch.float64))
W = m[0].weight.detach().clone()
sd = {"0.lora_A": torch.ones(1, 2).double(), "0.lora_B": torch.ones(2, 1).double()}
x = torch.ones(1, 2).double()
m.eval()
y0 = m(x)
m.load_state_dict(sd, strict=False)
got = m(x)
want = torch.nn.functional.linear(x, W + 1, m[0].bias)
m.train()
print(
    "eval output after loading LoRA weights: got",
    got.tolist(),
    "want",
    want.tolist(),
    "\nfrozen weight after train(): got",
    m[0].weight.tolist(),
    "want",
    W.tolist(),
)
raise SystemExit(
    int(not torch.allclose(got, want) or not torch.allclose(m[0].weight, W))
)
