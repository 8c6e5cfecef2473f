from peft import LoraConfig, get_peft_model
from torch import nn

m = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 2))
p = get_peft_model(m, LoraConfig(r=1, lora_alpha=1, target_modules=["0", "1"]))
for l in p.base_model.model:
    l.scale_layer(3.0)
got = [l.scaling["default"] for l in p.base_model.model]
print("got", got, "want [3.0, 3.0]")
raise SystemExit(int(got != [3.0, 3.0]))
