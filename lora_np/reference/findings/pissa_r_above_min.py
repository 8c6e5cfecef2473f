import tempfile

from peft import LoraConfig, get_peft_model
from torch import nn

d = tempfile.mkdtemp()
p = get_peft_model(
    nn.Sequential(nn.Linear(4, 4)),
    LoraConfig(r=8, lora_alpha=8, init_lora_weights="pissa", target_modules=["0"]),
)
L = p.base_model.model[0]
print(
    "layer.r",
    L.r,
    "A",
    tuple(L.lora_A.default.weight.shape),
    "lora_A.out_features",
    L.lora_A.default.out_features,
)
p.save_pretrained(d + "/init")
try:
    p.save_pretrained(d + "/out", path_initial_model_for_weight_conversion=d + "/init")
    print("ok")
except RuntimeError as e:
    print("CRASH", str(e)[:200])
    raise SystemExit(1)
