import tempfile

import torch
from peft import LoraConfig, get_peft_model
from peft.utils.hotswap import hotswap_adapter
from torch import nn

d = tempfile.mkdtemp()
c = lambda: LoraConfig(r=2, target_modules=["emb"], init_lora_weights=False)


def M():
    m = nn.Sequential()
    m.add_module("emb", nn.Embedding(3, 4))
    return m


q = get_peft_model(M(), c())
q.save_pretrained(d, save_embedding_layers=False)
p = get_peft_model(M(), c())
try:
    hotswap_adapter(p, d, adapter_name="default", torch_device="cpu")
except AttributeError as e:
    print("got AttributeError:", e, "; want a swap, or a refusal in words")
    raise SystemExit(1)
got = p.base_model.model.emb.get_delta_weight("default").detach()
want = q.base_model.model.emb.get_delta_weight("default").detach()
print("got", got[0], "want", want[0])
raise SystemExit(int(not torch.allclose(got, want)))
