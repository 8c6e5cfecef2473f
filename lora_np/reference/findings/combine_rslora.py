import torch
from peft import LoraConfig, get_peft_model
from torch import nn

m = nn.Sequential(nn.Linear(6, 6))
p = get_peft_model(
    m,
    LoraConfig(
        r=4,
        lora_alpha=4,
        use_rslora=True,
        target_modules=["0"],
        init_lora_weights=False,
    ),
    "a",
)
L = p.base_model.model[0]
p.add_weighted_adapter(["a"], [1.0], "c", combination_type="linear")
got = L.get_delta_weight("c").detach()
want = L.get_delta_weight("a").detach()
print("got/want ratio", (got / want).flatten()[:3])
raise SystemExit(int(not torch.allclose(got, want, atol=1e-5)))
