import tempfile

import torch
from peft import LoraConfig, get_peft_model
from peft.utils.hotswap import hotswap_adapter
from torch import nn

torch.manual_seed(0)
d = tempfile.mkdtemp()
c = lambda: LoraConfig(r=1, target_modules=["0"], use_dora=True)
get_peft_model(nn.Sequential(nn.Linear(2, 2)), c()).save_pretrained(d)
p = get_peft_model(nn.Sequential(nn.Linear(2, 2)), c())
try:
    hotswap_adapter(p, d, adapter_name="default", torch_device="cpu")
    print("ok")
except KeyError as e:
    print("got KeyError", e, "want a swap (or a ValueError naming DoRA)")
    raise SystemExit(1)
