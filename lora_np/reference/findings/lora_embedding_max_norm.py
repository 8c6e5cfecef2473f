import loralib as lora
import torch

e = lora.Embedding(2, 2, r=1, max_norm=1.0, dtype=torch.float64)
e.weight.data.fill_(0.5)
e.lora_A.data = torch.tensor([[5.0, 0]]).double()
e.lora_B.data.fill_(1)
i = torch.tensor([0])
try:
    y = e(i).detach()
except RuntimeError as ex:
    print("CRASH", ex)
    raise SystemExit(1)
e.eval()
z = e(i).detach()
print("train", y, "eval", z, "lora_A now", e.lora_A.tolist(), "want [[5,0]]")
raise SystemExit(int(e.lora_A.tolist() != [[5.0, 0.0]]))
