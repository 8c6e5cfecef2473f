import torch
from peft import LoraConfig, get_peft_model
from torch import nn

torch.manual_seed(0)
m = nn.Sequential()
m.add_module("a", nn.MultiheadAttention(4, 1, dtype=torch.float64))
p = get_peft_model(m, LoraConfig(r=2, target_modules=["a"], lora_bias=True))
L = p.base_model.model.a
x = torch.randn(2, 1, 4).double()
y = L(x, x, x)[0].detach()
L.lora_B["default"].bias.data[8:] = 5.0  # value part
z = L(x, x, x)[0]
z.sum().backward()
print(
    "change of output",
    (z - y).abs().max().item(),
    "grad",
    L.lora_B["default"].bias.grad,
    "want both non-zero",
)
raise SystemExit(int(torch.equal(z, y)))
