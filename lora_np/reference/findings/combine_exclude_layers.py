from peft import LoraConfig, get_peft_model
from torch import nn

m = nn.Sequential()
m.add_module("l0", nn.Linear(4, 4))
m.add_module("l1", nn.Linear(4, 4))
p = get_peft_model(
    m,
    LoraConfig(
        r=2, target_modules=["l0"], exclude_modules=["l1"], init_lora_weights=False
    ),
    "a",
)
p.add_adapter("b", LoraConfig(r=2, target_modules=["l1"], init_lora_weights=False))
p.add_weighted_adapter(["a", "b"], [1.0, 1.0], "c", combination_type="cat")
got = "c" in p.base_model.model.l1.lora_A
print("l1 has the combination's factor: got", got, "want True")
raise SystemExit(int(not got))
