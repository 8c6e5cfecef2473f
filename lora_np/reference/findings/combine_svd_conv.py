import torch
from peft import LoraConfig, get_peft_model
from torch import nn

bad = 0
for n, l in [
    ("conv1d", nn.Conv1d(3, 4, 2)),
    ("conv3d", nn.Conv3d(3, 4, 2)),
    ("conv2d 1x1 in=1", nn.Conv2d(1, 4, 1)),
    ("conv2d 1x1 out=1", nn.Conv2d(4, 1, 1)),
    ("linear out>in, svd_rank>in", nn.Linear(2, 6)),
    ("conv2d", nn.Conv2d(3, 4, 2)),
]:
    c = lambda: LoraConfig(
        r=1, lora_alpha=1, target_modules=["0"], init_lora_weights=False
    )
    p = get_peft_model(nn.Sequential(l), c(), "a")
    p.add_adapter("b", c())
    L = p.base_model.model[0]
    try:
        p.add_weighted_adapter(
            ["a", "b"],
            [1.0, 1.0],
            "c",
            combination_type="svd",
            svd_rank=4 if "svd_rank" in n else 2,
        )
        want = L.get_delta_weight("a") + L.get_delta_weight("b")
        got = L.get_delta_weight("c")
        ok = got.shape == want.shape and torch.allclose(got, want, atol=1e-4)
        print(n, "ok" if ok else "WRONG", got.shape, want.shape)
    except Exception as e:
        ok = False
        print(n, "CRASH", type(e).__name__, str(e)[:110])
    bad |= not ok
raise SystemExit(int(bad))
