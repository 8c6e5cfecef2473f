import torch
from peft import LoraConfig, get_peft_model
from torch import nn

m = nn.Sequential(nn.Embedding(3, 2, max_norm=100.0, dtype=torch.float64))
m[0].max_norm = 1.0
m[0].weight.data.fill_(0.5)
p = get_peft_model(m, LoraConfig(r=1, lora_alpha=1, target_modules=["0"])).eval()
L = p.base_model.model[0]
L.lora_embedding_A.default.data = torch.tensor([[3.0, 4, 5]]).double()
L.lora_embedding_B.default.data.fill_(1)
with torch.no_grad():
    y = p(torch.tensor([0, 1]))
got = L.lora_embedding_A.default.data.tolist()
print("lora A after a forward:", got, "want [[3,4,5]]")
raise SystemExit(int(got != [[3.0, 4.0, 5.0]]))
