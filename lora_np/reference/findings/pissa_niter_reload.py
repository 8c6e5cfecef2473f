import copy
import tempfile
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

torch.manual_seed(0)
b = nn.Sequential(nn.Linear(20, 20))
b2 = copy.deepcopy(b)
d = tempfile.mkdtemp()
x = torch.ones(1, 20)
p = get_peft_model(
    b,
    LoraConfig(
        r=2, lora_alpha=2, init_lora_weights="pissa_niter_4", target_modules=["0"]
    ),
).eval()
want = p(x).detach()
p.save_pretrained(d)
with warnings.catch_warnings(record=True) as w:
    warnings.simplefilter("always")
    got = PeftModel.from_pretrained(b2, d)(x).detach()
print(
    "got", got[0, :3], "want", want[0, :3], "warnings", [str(i.message)[:60] for i in w]
)
raise SystemExit(int(not torch.allclose(got, want, atol=1e-4)))
