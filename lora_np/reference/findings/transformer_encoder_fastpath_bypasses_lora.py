import torch
from peft import LoraConfig, get_peft_model
from torch import nn

torch.manual_seed(0)
m = nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True))
p = get_peft_model(
    m, LoraConfig(r=2, target_modules=["linear1", "linear2"], init_lora_weights=False)
)
x = torch.randn(1, 3, 4)
want = p.train()(x).detach()
got = p.eval()(x).detach()  # dropout is 0: train == eval
with p.disable_adapter():
    base = p(x).detach()
print(
    "eval", got.flatten()[:3], "train", want.flatten()[:3], "base", base.flatten()[:3]
)
raise SystemExit(int(not torch.allclose(got, want, atol=1e-4)))
