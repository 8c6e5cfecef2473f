import loralib as lora
import torch

m = lora.MergedLinear(2, 2, r=1)
x = torch.ones(1, 2)  # enable_lora defaults to [False]
try:
    got = m(x)
    print("ok", got)
except AttributeError as e:
    print(
        "got AttributeError", e, "want", torch.nn.functional.linear(x, m.weight, m.bias)
    )
    raise SystemExit(1)
