import loralib as lora
import torch

torch.manual_seed(0)
c = lora.Conv2d(6, 6, 3, r=1, bias=False)
torch.nn.init.normal_(c.lora_B)
d = (c.lora_B @ c.lora_A).view(c.conv.weight.shape)
got = torch.linalg.matrix_rank(d.flatten(1)).item()
print(
    "rank of the change as (out, in*k*k): got",
    got,
    "want <= r =",
    1,
    "; of the (out*k, in*k) matrix:",
    torch.linalg.matrix_rank(c.lora_B @ c.lora_A).item(),
)
raise SystemExit(int(got > 1))
