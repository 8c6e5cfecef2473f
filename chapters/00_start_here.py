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
# 00 · Start here: what does LoRA change, and what does it leave alone?

A trained neural network is mostly a pile of large matrices. *Fine-tuning* changes all of
their numbers. **LoRA** (low-rank adaptation, Hu et al. 2021, arXiv 2106.09685) leaves
every one of them alone, and puts beside a matrix $W$ a product of two thin ones:

$$y = x\,W^\top + s\,(x A^\top) B^\top$$

| symbol | shape | what it is |
|---|---|---|
| $x$ | (N, D) | N rows of D inputs |
| $W$ | (M, D) | the trained weight, frozen |
| $y$ | (N, M) | N rows of M outputs (a bias $b$ of shape (M,) may be added) |
| $A$ | (R, D) | goes down from D to R numbers, trained |
| $B$ | (M, R) | goes up from R to M, trained, starts at zero |
| $s$ | one number | the scale, $\alpha / R$, with $\alpha$ a number you choose (often 8 or 16) |

R, the *rank*, is small: 4 or 8, where D and M are hundreds or thousands.

You need NumPy and the chain rule. Everything else is introduced where it is used.
"""

# %% [markdown]
r"""
**Predict.** Take D = M = 768 and R = 8. What share of the numbers does LoRA train:
about 1/5, 1/50, or 1/500?
"""

# %%
from lora_np.lora import lora_parameters

full = 768 * 768
lora = lora_parameters([(768, 768)], r=8)
print(f"W has {full:,} numbers, A and B together {lora:,}: {lora / full:.1%}")

# %% [markdown]
r"""
About 1/50. The share falls as the matrices grow, because $W$ grows with D·M and the
factors only with D + M. For GPT-3, rank 8 on two matrices in each of 96 layers:
"""

# %%
gpt3 = lora_parameters([(12288, 12288)] * 2 * 96, r=8)
print(f"{gpt3:,} trained, of 175 billion: {gpt3 / 175e9:.4%}")

# %% [markdown]
r"""
## One layer, by hand

Here is the whole forward and backward of one layer, from the library itself: two
functions of a few lines. Chapter 01 derives them.
"""

# %%
import inspect

from lora_np.lora import bare

print(inspect.getsource(bare.forward))
print(inspect.getsource(bare.backward))

# %% [markdown]
r"""
`dy` is the gradient of the loss with respect to the layer's output `y`; `dA` is the
gradient with respect to `A`, and so on. **Predict:** which of `dA` and `dB` is zero at
the very first step, when $B = 0$?
"""

# %%
import numpy as np

rng = np.random.default_rng(0)
W, b = rng.normal(size=(5, 7)), np.zeros(5)
A, B = bare.init(5, 7, 2, rng)
x, dy = rng.normal(size=(4, 7)), rng.normal(size=(4, 5))
y, cache = bare.forward(x, W, b, A, B, s=2.0)
dx, dA, dB = bare.backward(dy, cache, W, A, B, s=2.0)
print("largest |dA|", np.abs(dA).max(), "  largest |dB|", np.abs(dB).max().round(3))
print("output changed by the untrained adapter:", np.abs(y - x @ W.T).max())

# %% [markdown]
r"""
`dA` contains a factor $B$, so it is zero; $B$ moves first, and from the second step on
both do. And because $B = 0$, the adapted layer begins as *exactly* the layer it adapts.

## A real model, adapted

The package carries a small transformer (about 840,000 numbers) that was trained on books
of the Bible, byte by byte. Given a line in the manner of a cynic's dictionary, it goes on
as a Bible would:
"""

# %%
from lora_np.cli.common import base_model
from lora_np.cli.job import sample

base = base_model()
print(sample(base, seed=0))

# %% [markdown]
r"""
Now thirty steps of LoRA on *The Devil's Dictionary* (Ambrose Bierce, 1911). **Predict:**
the loss on new text falls; what happens to the loss on the Bible, if not one number of
the base changes? (The loss is the mean of $-\ln$ of the probability that the model gave
to the byte that came, in *nats* a byte, on text that it was not trained on: *held out*.)
"""

# %%
from lora_np.cli.adapt import adapt

done = adapt("lora", lr=0.01, steps=30)
print("new text, nats a byte: {:.2f} before, {:.2f} after".format(*done.new_text))
print("old text, nats a byte: {:.2f} before, {:.2f} after".format(*done.old_text))

# %% tags=["volatile"]
print(sample(done.model, seed=0))

# %% [markdown]
r"""
It forgets part of the old text although $W$ is untouched: the *function* changed, the
base did not. Take the adapter away and the old model is back, bit for bit:
"""

# %%
from lora_np.cli.adapt import held_out_sets
from lora_np.nn import remove_lora
from lora_np.training import held_out_loss

remove_lora(done.model)
old = held_out_sets()["old"]
print(held_out_loss(done.model, old) == held_out_loss(base, old))

# %% [markdown]
r"""
## Where to go

* **Learning:** [01 LoRA by hand](01_lora_by_hand.ipynb), then onward in order.
* **Checking your own layer:** [02 Is the gradient right?](02_is_the_gradient_right.ipynb).
* **Reading the code:** `lora_np/lora/linear.py` first, then `lora_np/numerics.py`.

## Three questions

1. Why does the share of trained numbers fall when the matrices grow?
2. Why does only one of the factors start at zero?
3. The base is frozen, yet the loss on the old text rose. How can both be true?

<details><summary>Answers</summary>

1. $W$ has D·M numbers, the factors R·(D + M). For square matrices the share is 2R/D.
2. So that the model starts unchanged ($BA = 0$) and still learns: with both at zero, dA
   (which has a factor B) and dB (which has a factor A) would stay zero for ever.
3. The adapted model computes with $W + sBA$. $W$ is the same, the sum is not.
</details>

Next: [01 LoRA by hand](01_lora_by_hand.ipynb)
"""
