import torch
from peft import LoraConfig, get_peft_model
from torch import nn

torch.manual_seed(0)
bad = 0
x = torch.ones(1, 4)
for init in ["pissa", "olora"]:
    m = nn.Sequential(nn.Linear(4, 4))
    p = get_peft_model(
        m,
        LoraConfig(r=2, lora_alpha=2, init_lora_weights=init, target_modules=["0"]),
        "a",
    )
    want = p(x).detach()
    p.add_weighted_adapter(["a"], [1.0], "c", combination_type="linear")
    got = p(x).detach()  # adapter a still active
    print(init, "adapter a after combining: got", got, "want", want)
    bad |= not torch.allclose(got, want, atol=1e-4)
raise SystemExit(int(bad))
