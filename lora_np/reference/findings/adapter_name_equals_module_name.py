import tempfile
from collections import OrderedDict

from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from torch import nn

c = lambda: LoraConfig(r=2, target_modules=["lin", "q"], init_lora_weights=False)
d = tempfile.mkdtemp()
p = get_peft_model(
    nn.Sequential(OrderedDict(lin=nn.Linear(4, 4), q=nn.Linear(4, 4))), c(), "lin"
)
p.add_adapter("other", c())
p.save_pretrained(d)
got = list(safe_open(d + "/other/adapter_model.safetensors", "pt").keys())
print("tensors saved for adapter 'other': got", got, "want the factors of lin and q")
raise SystemExit(int(len(got) != 4))
