import copy
import tempfile
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
m = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=5,
        hidden_size=4,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
).eval()
m2 = copy.deepcopy(m)
x = torch.tensor([[1, 2]])
d = tempfile.mkdtemp()
p = get_peft_model(
    m, LoraConfig(r=2, lora_alpha=2, target_modules=["embed_tokens"])
).eval()
p.base_model.model.model.embed_tokens.lora_embedding_A["default"].data.fill_(1.0)
f = lambda q: q.base_model.model.model.embed_tokens(x).detach()
want = f(p)
p.merge_adapter()
with warnings.catch_warnings(record=True) as w:
    warnings.simplefilter("always")
    p.save_pretrained(d)
    print([str(i.message)[:160] for i in w])
got = f(PeftModel.from_pretrained(m2, d).eval())
print("got", got[0, 0], "want", want[0, 0])
raise SystemExit(int(not torch.allclose(got, want, atol=1e-4)))
