import torch
from peft import LoraConfig, get_peft_model
from torch import nn

bad = 0
for k in [1, (1, 1, 2)]:
    p = get_peft_model(
        nn.Sequential(nn.Conv3d(2, 3, k)),
        LoraConfig(r=4, target_modules=["0"], init_lora_weights=False),
    )
    x = torch.randn(1, 2, 2, 2, 2)
    want = p(x).detach()
    try:
        p.merge_adapter()
        ok = torch.allclose(p(x), want, atol=1e-4)
        print(k, "ok", ok)
    except Exception as e:
        ok = False
        print(k, "CRASH", type(e).__name__, e)
    bad |= not ok
raise SystemExit(int(bad))
