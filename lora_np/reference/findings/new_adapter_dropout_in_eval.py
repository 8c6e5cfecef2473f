import torch
from peft import LoraConfig, get_peft_model
from torch import nn

torch.manual_seed(0)
c = lambda: LoraConfig(
    r=2, lora_dropout=0.5, target_modules=["0"], init_lora_weights=False
)
p = get_peft_model(nn.Sequential(nn.Linear(4, 4)), c(), "a")
p.add_adapter("b", c())
p.eval()
x = torch.ones(1, 4)
p.add_weighted_adapter(["a", "b"], [0.5, 0.5], "c", combination_type="cat")
p.set_adapter("c")
y = [tuple(p(x)[0].tolist()) for _ in range(10)]
print("model.training", p.training, "distinct outputs: got", len(set(y)), "want 1")
raise SystemExit(int(len(set(y)) != 1))
