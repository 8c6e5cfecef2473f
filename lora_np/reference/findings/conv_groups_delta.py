import torch
from peft import LoraConfig, get_peft_model

base = torch.nn.Conv1d(2, 2, 1, groups=2, bias=False)
config = LoraConfig(r=2, lora_alpha=4, target_modules=["0"])
layer = get_peft_model(torch.nn.Sequential(base), config).base_model.model[0]
try:
    print("got", layer.get_delta_weight("default").shape, "want", base.weight.shape)
except RuntimeError as error:
    print("got RuntimeError:", error, "; want a refusal in words")
    raise SystemExit(1) from None
