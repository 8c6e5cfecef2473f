# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
r"""
# 04 · A tiny transformer: where do the matrices live that LoRA adapts?

The model of this package is a small GPT: it reads bytes and predicts the next one. We
follow one batch through it, shape by shape, and see which matrices there are to adapt.

| letter | meaning | here |
|---|---|---|
| B, T | sequences in a batch, positions in each | 2, 16 |
| N = B·T | rows: every position of every sequence | 32 |
| D | width of the model | 128 |
| H, K | heads, and the size of each (H·K = D) | 4, 32 |
| V | vocabulary: the 256 bytes | 256 |
"""

# %%
import inspect

import numpy as np

from lora_np.cli.common import base_model
from lora_np.data import decode, encode

model = base_model().eval()
text = "And the king said to the people,"
ids = encode(text).reshape(2, 16)
print(ids.shape, [decode(row) for row in ids])
for name, p in list(model.named_parameters())[:9]:
    print(f"{name:<24}{p.shape}")

# %% [markdown]
r"""
**Predict:** the model has about 840,000 parameters. Where are most of them: in the
embedding (256 × 128), in attention, or in the two-layer network behind it (the MLP)?
"""

# %%
groups = {"embeddings": 0, "attention": 0, "mlp": 0, "norms": 0}
for name, p in model.named_parameters():
    kind = (
        "attention"
        if ".attn." in name
        else "mlp"
        if ".mlp." in name
        else "norms"
        if "ln_" in name
        else "embeddings"
    )
    groups[kind] += p.data.size
total = sum(groups.values())
for kind, n in groups.items():
    print(f"{kind:<11}{n:>9,}  {n / total:.0%}")

# %% [markdown]
r"""
## One block

$x \leftarrow x + \mathrm{attention}(\mathrm{norm}(x))$, then
$x \leftarrow x + \mathrm{mlp}(\mathrm{norm}(x))$. Along the sums a gradient reaches the bottom
unchanged; the norm keeps the size of what each part sees.
"""

# %%
from lora_np.models.gpt import Block

print(inspect.getsource(Block.forward))

# %% [markdown]
r"""
## Attention

Each position asks a question (query $q$), offers a label (key $k$) and a content (value
$v$), all three linear maps of $x$, here fused into one matrix `c_attn`. For each head

$$o = \mathrm{softmax}\big(q k^\top / \sqrt{K} + \text{mask}\big)\, v$$

The mask is $-\infty$ where a position would look into the future, **before** the softmax.
**Predict:** what goes wrong if one zeroes the hidden entries *after* the softmax?
"""

# %%
from lora_np.functional import attention
from lora_np.reference import wrong

rng = np.random.default_rng(0)
q, k, v = (rng.normal(size=(1, 4, 1, 8)) for _ in range(3))
late = wrong("attention:mask_after_softmax").forward
weights_right = attention(q, k, v, causal=True)[1][3][0, 0, 0]
weights_wrong = late(q, k, v, causal=True)[1][3][0, 0, 0]
print("each row of weights sums to")
print("  mask before:", weights_right.sum(-1).round(3))
print("  mask after: ", weights_wrong.sum(-1).round(3))

# %% [markdown]
r"""
The future still takes its share of the sum, so early positions get less than their due,
and it leaks: their output depends on what comes later. Does ours leak?
"""

# %%
from lora_np.tape import no_grad

changed = ids.copy()
changed[:, 10:] = ord("x")
with no_grad():
    a = model.logits(ids).data.reshape(2, 16, 256)
    b = model.logits(changed).data.reshape(2, 16, 256)
print("positions 0-9 unchanged:", np.array_equal(a[:, :10], b[:, :10]))
print("positions 10-15 changed:", not np.allclose(a[:, 10:], b[:, 10:]))

# %% [markdown]
r"""
And $1/\sqrt{K}$: a sum of $K$ products of unit-size numbers has size $\sqrt K$. Without the
division the softmax saturates, and its gradient shrinks. **Predict** the trend:
"""

# %%
from lora_np.functional import softmax, softmax_backward

for K in (4, 64, 1024):
    row = []
    for scale in (1.0, 1 / np.sqrt(K)):
        z = scale * (rng.normal(size=(500, 8, K)) * rng.normal(size=(500, 1, K))).sum(
            -1
        )
        p, cache = softmax(z)
        dz = softmax_backward(rng.normal(size=p.shape), cache)[0]
        row.append(float(np.sqrt((dz**2).mean())))
    print(
        f"K = {K:>4}: gradient through the softmax {row[0]:.3f} without, {row[1]:.3f} with"
    )

# %% [markdown]
r"""
## The loss, without the logits

The head multiplies by the embedding matrix itself (*tied*). With a vocabulary of 50,257
the *logits* (the scores of all tokens before the softmax) of 1,024 positions are 206 MB, and their gradient as much again. The fused pair
works through pieces of 256 rows and forms the gradient on the way:
"""

# %%
from lora_np.functional import cross_entropy, linear_cross_entropy

h, head = rng.normal(size=(64, 16)), rng.normal(size=(100, 16))
target = rng.integers(0, 100, 64)
fused = linear_cross_entropy(h, head, target, piece=10)[0]
plain = cross_entropy(h @ head.T, target)[0]
print("difference below rounding:", abs(fused - plain) < 1e-13)

# %% [markdown]
r"""
What does the pretrained model know? A model without knowledge pays $\ln 256$ a byte;
one that knows how often each byte occurs pays less:
"""

# %%
from lora_np.cli.adapt import held_out_sets
from lora_np.data import split_ids
from lora_np.training import held_out_loss

training, held_out = split_ids("bible")
share = (np.bincount(training, minlength=256) + 1) / (len(training) + 256)
print(
    f"nothing {np.log(256):.2f}, byte frequencies {-np.log(share[held_out]).mean():.2f}, "
    f"this model {held_out_loss(model, held_out_sets()['old']):.2f} nats a byte"
)

# %% [markdown]
r"""
## Writing, with a memory

To write the next byte, only the newest position must be computed, if the keys and values
of all earlier ones are kept (the *key/value cache*). **Predict:** are the greedy bytes
(the likeliest at every step) with and without the cache the same?
"""

# %%
from lora_np.training import generate

prompt = encode("And it came to pass")
kept = generate(model, prompt, 40, rng, temperature=0, use_cache=True)
afresh = generate(model, prompt, 40, rng, temperature=0, use_cache=False)
print("same bytes:", np.array_equal(kept, afresh))

# %% tags=["volatile"]
print(decode(kept))

# %% [markdown]
r"""
## Three questions

1. Why must the mask come before the softmax?
2. Which of the model's matrices would you adapt first, with 65,000 numbers to spend?
3. Why are the keys and values kept, and not the queries?

<details><summary>Answers</summary>

1. So that hidden positions take no part in the sum; otherwise weights do not sum to 1 and
   earlier outputs depend on later inputs.
2. The LoRA paper adapts the attention matrices; two thirds of the numbers are in the
   MLP, and later work adapts all linear layers (QLoRA, 2305.14314), as chapter 05 does.
3. A new position's query is compared with all old keys and takes from all old values; an
   old query belongs to an output that has been written already.
</details>

Next: [05 Adapting with LoRA](05_adapting_with_lora.ipynb)
"""
