import torch
from peft import LoraConfig, get_peft_model
from torch import nn

p = get_peft_model(
    nn.Sequential(nn.Embedding(3, 4)),
    LoraConfig(r=2, lora_dropout=0.9, target_modules=["0"], init_lora_weights=False),
).train()
y = {round(p(torch.tensor([1])).sum().item(), 4) for _ in range(20)}
print("distinct training outputs under lora_dropout=0.9: got", len(y), "want > 1")
raise SystemExit(int(len(y) < 2))
