import torch
from peft import LoraConfig, get_peft_model
from torch import nn

c = lambda: LoraConfig(r=2, target_modules=["0"], init_lora_weights=False)
p = get_peft_model(nn.Sequential(nn.Linear(4, 4)), c(), "a")
p.add_adapter("b", c())
L = p.base_model.model[0]
try:
    p.add_weighted_adapter(["a", "b"], [1.0], "c", combination_type="cat")
except ValueError as e:
    print("refused", e)
    raise SystemExit(0)
got = L.get_delta_weight("c")
print(
    "equals a alone:",
    torch.allclose(got, L.get_delta_weight("a"), atol=1e-5),
    "want a ValueError",
)
raise SystemExit(1)
