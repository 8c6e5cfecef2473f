import tempfile

import torch
from peft import LoraConfig, get_peft_model
from peft.utils.hotswap import hotswap_adapter
from torch import nn

c = lambda: LoraConfig(r=1, target_modules=["0"], init_lora_weights=False)
d = tempfile.mkdtemp()
get_peft_model(nn.Sequential(nn.Linear(2, 2)), c()).save_pretrained(d)
p = get_peft_model(nn.Sequential(nn.Linear(2, 2)), c())
p.add_adapter("default_2", c())
L = p.base_model.model[0]
want = L.get_delta_weight("default_2").detach().clone()
hotswap_adapter(p, d, adapter_name="default", torch_device="cpu")
got = L.get_delta_weight("default_2").detach()
print("other adapter after hotswap of 'default': got", got, "want", want)
raise SystemExit(int(not torch.equal(got, want)))
