import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.intruders import reduce_intruder_dimension as R
from torch import nn
from transformers.pytorch_utils import Conv1D

torch.manual_seed(0)
m = nn.Sequential(Conv1D(3, 3))
p = get_peft_model(
    m, LoraConfig(r=1, lora_alpha=1, target_modules=["0"], fan_in_fan_out=True)
)
L = p.base_model.model[0]
L.base_layer.weight.data = torch.diag(torch.tensor([3.0, 2, 1]))
L.lora_A.default.weight.data = torch.tensor([[1.0, 2, 3]])
L.lora_B.default.weight.data = torch.tensor([[9.0], [0], [-9]])
R(
    p, threshold_epsilon=0.95, mitigation_lambda=1.0, logging_sink=print
)  # lambda-1 = 0: the code subtracts nothing
got = L.get_delta_weight("intruder_reduced").detach()
want = L.get_delta_weight("default").detach()
print("got", got, "want", want)
raise SystemExit(int(not torch.allclose(got, want, atol=1e-4)))
