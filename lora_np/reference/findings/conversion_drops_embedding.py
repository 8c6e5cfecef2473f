import copy
import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

torch.manual_seed(0)
b = nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 4))
b2 = copy.deepcopy(b)
d = tempfile.mkdtemp()
p = (
    get_peft_model(
        b, LoraConfig(r=1, init_lora_weights="olora", target_modules=["0", "1"])
    )
    if 0
    else get_peft_model(
        b,
        LoraConfig(
            r=1,
            init_lora_weights="lora_ga",
            lora_ga_config=__import__("peft").LoraGAConfig(),
            target_modules=["0", "1"],
        ),
    )
)
p.save_pretrained(d + "/init")
p.base_model.model[0].lora_embedding_A["default"].data.fill_(5.0)
x = torch.tensor([1])
want = p(x).detach()
p.save_pretrained(d + "/out", path_initial_model_for_weight_conversion=d + "/init")
got = PeftModel.from_pretrained(b2, d + "/out")(x).detach()
print("got", got, "want", want)
raise SystemExit(int(not torch.allclose(got, want, atol=1e-3)))
