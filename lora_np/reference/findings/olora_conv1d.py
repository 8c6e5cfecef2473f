import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

torch.manual_seed(0)
m = nn.Sequential(Conv1D(4, 4))
nn.init.normal_(m[0].weight)
x = torch.randn(1, 4)
want = m(x).detach()
got = get_peft_model(
    m,
    LoraConfig(
        r=2,
        lora_alpha=2,
        target_modules=["0"],
        init_lora_weights="olora",
        fan_in_fan_out=True,
    ),
)(x).detach()
print("got", got, "want", want)
raise SystemExit(int(not torch.allclose(got, want, atol=1e-4)))
