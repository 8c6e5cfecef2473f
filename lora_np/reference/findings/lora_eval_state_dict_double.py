import loralib as lora
import torch

torch.manual_seed(0)
m = lora.Linear(2, 2, r=1, dtype=torch.float64)
m.lora_B.data.fill_(1.0)
m.eval()
x = torch.ones(1, 2).double()
want = m(x)
n = lora.Linear(2, 2, r=1, dtype=torch.float64)
n.load_state_dict(m.state_dict())
n.eval()
got = n(x)
print("got", got.tolist(), "want", want.tolist())
raise SystemExit(int(not torch.allclose(got, want)))
