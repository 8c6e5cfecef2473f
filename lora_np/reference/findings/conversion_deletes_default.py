import tempfile

from peft import LoraConfig, get_peft_model
from torch import nn

d = tempfile.mkdtemp()
p = get_peft_model(
    nn.Sequential(nn.Linear(4, 4)),
    LoraConfig(r=1, init_lora_weights="pissa", target_modules=["0"]),
)
p.save_pretrained(d + "/default")
p.base_model.model[0].lora_B["default"].weight.data *= 2
try:
    p.save_pretrained(
        d + "/out", path_initial_model_for_weight_conversion=d + "/default"
    )
except Exception as e:
    print(type(e).__name__, e)
got = list(p.peft_config)
print("adapters after save_pretrained: got", got, "want ['default']")
raise SystemExit(int(got != ["default"]))
