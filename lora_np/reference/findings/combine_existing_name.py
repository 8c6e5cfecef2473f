import torch
from peft import LoraConfig, get_peft_model
from torch import nn

c = lambda: LoraConfig(r=2, target_modules=["0"], init_lora_weights=False)
p = get_peft_model(nn.Sequential(nn.Linear(4, 4)), c(), "a")
p.add_adapter("b", c())
p.add_adapter("c", c())
L = p.base_model.model[0]
before = L.get_delta_weight("c").detach().clone()
import warnings

with warnings.catch_warnings(record=True) as w:
    warnings.simplefilter("always")
    p.add_weighted_adapter(["a", "b"], [1.0, 1.0], "c", combination_type="cat")
got = L.get_delta_weight("c")
want = L.get_delta_weight("a") + L.get_delta_weight("b")
print(
    "unchanged:",
    torch.equal(got, before),
    "warnings:",
    len(w),
    "want the sum, an error or a warning",
)
raise SystemExit(int(not torch.allclose(got, want, atol=1e-4)))
