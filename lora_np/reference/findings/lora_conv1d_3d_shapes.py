import loralib as lora
import torch

bad = 0
for n, l, x in [
    ("Conv1d k=3", lora.Conv1d(2, 2, 3, r=1), torch.ones(1, 2, 5)),
    ("Conv3d k=2", lora.Conv3d(2, 2, 2, r=1), torch.ones(1, 2, 3, 3, 3)),
    ("Conv1d k=1", lora.Conv1d(2, 2, 1, r=1), torch.ones(1, 2, 5)),
    ("Conv2d groups=2", lora.Conv2d(4, 4, 3, r=1, groups=2), torch.ones(1, 4, 5, 5)),
]:
    try:
        l(x)
        print(n, "ok")
    except RuntimeError as e:
        print(n, "CRASH", e)
        bad = 1
raise SystemExit(bad)
