from peft import LoraConfig, get_peft_model
from torch import nn

p = get_peft_model(
    nn.Sequential(nn.Linear(2, 2)), LoraConfig(r=1, target_modules=["0"])
)
L = p.base_model.model[0]
s = L.scaling["default"]
L.scale_layer(0.0)
try:
    L.unscale_layer(0.0)
    print(L.scaling["default"], s)
except ZeroDivisionError as e:
    print("scale_layer(0); unscale_layer(0): ZeroDivisionError", e)
    raise SystemExit(1)
