import warnings

import torch
from peft import LoraConfig, get_peft_model
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
        tie_word_embeddings=True,
    )
)
p = get_peft_model(
    m,
    LoraConfig(
        r=2, lora_alpha=2, target_modules=["embed_tokens"], ensure_weight_tying=True
    ),
)
E = p.base_model.model.model.embed_tokens
E.lora_embedding_A["default"].data.fill_(1.0)
W = E.base_layer.weight.detach().clone()
d = E.get_delta_weight("default").detach().clone()
h = p.base_model.model.lm_head
print(
    "head delta equals embedding delta:",
    torch.allclose(h.get_delta_weight("default"), d),
)
with warnings.catch_warnings(record=True) as w:
    warnings.simplefilter("always")
    p.merge_adapter()
    print([str(i.message)[:110] for i in w])
got = (E.base_layer.weight - W).detach()
print("got/want", (got / d)[0])
raise SystemExit(int(not torch.allclose(got, d, atol=1e-4)))
