import copy
import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.hotswap import hotswap_adapter
from torch import nn

torch.manual_seed(0)
d, d2 = tempfile.mkdtemp(), tempfile.mkdtemp()
b = nn.Sequential(nn.Linear(4, 4))
c = lambda a: LoraConfig(
    r=2, lora_alpha=a, target_modules=["0"], init_lora_weights=False
)
x = torch.ones(1, 4)
get_peft_model(copy.deepcopy(b), c(8)).save_pretrained(d)
p = get_peft_model(copy.deepcopy(b), c(2))
hotswap_adapter(p, d, adapter_name="default", torch_device="cpu")
want = p(x).detach()
p.save_pretrained(d2)
got = PeftModel.from_pretrained(copy.deepcopy(b), d2)(x).detach()
print("reloaded", got, "want", want)
raise SystemExit(int(not torch.allclose(got, want, atol=1e-4)))
