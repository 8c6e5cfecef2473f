import tempfile

from peft import LoraConfig, get_peft_model
from peft.utils.hotswap import hotswap_adapter
from torch import nn

d = tempfile.mkdtemp()
c = lambda **k: LoraConfig(
    r=4, lora_alpha=4, target_modules=["0"], init_lora_weights=False, **k
)
q = get_peft_model(nn.Sequential(nn.Linear(4, 4)), c(rank_pattern={"0": 1}))
q.save_pretrained(d)
want = q.base_model.model[0].scaling["default"]
p = get_peft_model(nn.Sequential(nn.Linear(4, 4)), c())
hotswap_adapter(p, d, adapter_name="default", torch_device="cpu")
got = p.base_model.model[0].scaling["default"]
print("scaling after hotswap: got", got, "want", want)
raise SystemExit(int(got != want))
