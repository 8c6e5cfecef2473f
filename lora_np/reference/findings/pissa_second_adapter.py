import warnings

import torch
from peft import LoraConfig, get_peft_model
from torch import nn

torch.manual_seed(0)
x = torch.ones(1, 4)
p = get_peft_model(
    nn.Sequential(nn.Linear(4, 4)),
    LoraConfig(r=2, lora_alpha=2, target_modules=["0"]),
    "a",
)
p.base_model.model[0].lora_B["a"].weight.data.fill_(1.0)
want = p(x).detach()
with warnings.catch_warnings(record=True) as w:
    warnings.simplefilter("always")
    p.add_adapter(
        "b",
        LoraConfig(r=2, lora_alpha=2, init_lora_weights="pissa", target_modules=["0"]),
    )
got = p(x).detach()  # active adapter is still a
with p.disable_adapter():
    z = p(x).detach()
print(
    "adapter a after adding b: got",
    got,
    "want",
    want,
    "active",
    p.active_adapters,
    "warnings",
    [str(i.message)[:60] for i in w],
)
raise SystemExit(int(not torch.allclose(got, want, atol=1e-4)))
