import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
m = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
)
p = get_peft_model(
    m,
    LoraConfig(
        r=2,
        target_modules=["q_proj", "v_proj"],
        layer_replication=[(0, 1), (0, 1)],
        init_lora_weights=False,
    ),
).eval()
x = torch.tensor([[1, 2, 3]])
with torch.no_grad():
    want = p(x).logits
    p.merge_adapter()
    got = p(x).logits
print("got", got[0, 0, :3], "want", want[0, 0, :3], "(or a ValueError)")
raise SystemExit(int(not torch.allclose(got, want, atol=1e-4)))
