import copy
import tempfile
import warnings

import torch
from peft import LoraConfig, LoraGAConfig, PeftModel, get_peft_model
from peft.tuners.lora.loraga import preprocess_loraga
from torch import nn

torch.manual_seed(0)
b = nn.Sequential(nn.Linear(4, 4))
b2 = copy.deepcopy(b)
d = tempfile.mkdtemp()
x = torch.randn(8, 4)
c = LoraConfig(
    r=1,
    target_modules=["0"],
    init_lora_weights="lora_ga",
    lora_ga_config=LoraGAConfig(),
)
preprocess_loraga(b, c, lambda: b(x).square().sum().backward())
p = get_peft_model(b, c).eval()
want = p(x).detach()
p.save_pretrained(d)
with warnings.catch_warnings(record=True) as w:
    warnings.simplefilter("always")
    got = PeftModel.from_pretrained(b2, d)(x).detach()
print("got", got[0], "want", want[0], "warnings", [str(i.message)[:60] for i in w])
raise SystemExit(int(not torch.allclose(got, want, atol=1e-4)))
