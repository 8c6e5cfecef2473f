import loralib as lora
from torch import nn

m = nn.Sequential(
    lora.Linear(2, 2, r=0), lora.MergedLinear(2, 2, r=1, enable_lora=[False])
)
lora.mark_only_lora_as_trainable(m, bias="lora_only")
t = sorted(n for n, p in m.named_parameters() if p.requires_grad)
s = sorted(lora.lora_state_dict(m, bias="lora_only"))
print("trainable", t, "saved", s, "want equal")
raise SystemExit(int(t != s))
