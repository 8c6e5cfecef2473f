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
# 07 · D1: what happens when W itself becomes a low-rank product?

The second article, 《大规模语言模型从理论到实践：LoRA》 (no author given), says in our words: factor
the pretrained weight as $W = R\,G$ with R of low rank and G Gaussian, got by an SVD; train R only; the
result keeps most of the performance, suits Transformers but not recurrent networks, and other
methods of adaptation must start from scratch. Seven interview questions follow, with answers.
"""

# %% [markdown]
r"""
## How much of W can rank r keep?

**Predict:** the first attention matrix of our base is 384 by 128. How much of its squared
norm do 8 of its 128 singular values hold? And what does the model still know if every linear layer is cut to
rank 8: old text at 1.18 nats a byte before, and after?
"""

# %%
import numpy as np

from lora_np.documents import d1
from lora_np.documents import experiments as ex
from lora_np.plots import kept_and_loss

# %matplotlib inline

W = ex.base().h[0].attn.c_attn.weight.data.astype(float)
energy = np.cumsum(np.linalg.svd(W, compute_uv=False) ** 2)
ranks = (1, 4, 8, 16, 32, 64, 128)
kept = [energy[r - 1] / energy[-1] for r in ranks]
losses = [d1.replaced_losses(r, "svd")[1] for r in ranks]
for r, k, loss in zip(ranks, kept, losses):
    print(f"r {r:>3}: {k:6.1%} of the squared norm, loss {loss:.2f}")
kept_and_loss(ranks, kept, losses, ex.base_losses()[1])

# %% [markdown]
r"""
Below half the full rank the model is ruined (not even steadily: between rank 4 and 16 it gets worse), and at
the full rank R and G together hold a third more
numbers than W. **These trained weights are not of low rank; LoRA assumes it of their *update* only**, and keeps W, so that
W need not be approximated.

## "Gaussian" and "by SVD" in one breath

The rows of an SVD's factor are orthonormal; those of a Gaussian matrix are not. The two
sentences exclude each other. But a frozen Gaussian factor in an *update* is a method people use
(LoRA-FA, VeRA). **Predict:** LoRA with A random and frozen trains a little more than half of the numbers. How far behind is it?
"""

# %% tags=["volatile"]
from lora_np.cli.documents import check_by_id, show

show(check_by_id("D1.2"))

# %% tags=["volatile"]
show(check_by_id("D1.3"))

# %% [markdown]
r"""
## Which methods need many parameters?

**Predict** the order by numbers trained: full fine-tuning, LoRA of rank 8, the output head,
biases only, eight prompt positions, eight prefix positions in every layer, bottleneck adapters,
distillation into half of the four blocks. Then the order by loss. (A *prompt* is trained vectors put before the
embedded text; a *prefix* trained keys and values before those of every attention layer; a *bottleneck adapter* two thin
layers after each sub-layer; *distillation* trains a smaller student to give a teacher's probabilities. Each is a few lines in
`documents/methods.py`.)
"""

# %% tags=["volatile"]
print(f"{'method':<34}{'trained':>9}  new text  old text")
for name, words in d1.METHODS.items():
    done = d1.method(name)
    print(f"{words:<34}{done.trainable:>9,}  {done.new:8.3f}  {done.old:8.3f}")
print(
    f"{'(base, untouched)':<34}{0:>9}  {ex.base_losses()[0]:8.3f}  "
    f"{ex.base_losses()[1]:8.3f}"
)

# %% [markdown]
r"""
All of them start from the trained base; five, LoRA of rank 1 among them, train fewer numbers than LoRA of rank 8.
Adapters, full fine-tuning and LoRA are equal within the drift between processors (0.02); prompt tuning learns
least. (Each ran thirty steps at its own best learning rate, found with another seed.)

## A recurrent network

The method needs a linear map. An LSTM has two, input to gates and state to gates. Here is LoRA on
both, backward through time by hand:
"""

# %%
import inspect

from lora_np.lora import lstm

print(inspect.getsource(lstm.lora_lstm_backward))

# %% tags=["volatile"]
show(check_by_id("D1.5"))

# %% [markdown]
r"""
## The seven questions, answered

The article's answers repeat the claims above, so each stands as far as they do. **Predict** how many of the seven stand as
printed. Then our answers:
"""

# %%
import textwrap

for verdict, numbers in d1.standing().items():
    print(f"{verdict}: {', '.join(map(str, numbers))}")
for number, (question, claims, answer) in enumerate(d1.QUESTIONS, start=1):
    print(f"{number}. {question}  ({', '.join(claims)})")
    print(textwrap.indent(textwrap.fill(answer, 80), "   "))

# %% [markdown]
r"""
## When someone quotes it in an interview

"Replacing W by R·G is compression: at rank r it is, in squared error, at best the truncated SVD, and the model
forgets what was cut off. LoRA keeps W and gives a low rank to the *change*. Nothing is decomposed; both
factors are trained from a start at which their product is zero."

## Three questions

1. With G frozen, which updates of W can training R reach?
2. BitFit trains a tenth of LoRA's numbers here. Why is "fewer parameters" alone no verdict?
3. Training the head alone is the cheapest of the larger methods. Why may it still be the wrong choice?

<details><summary>Answers</summary>

1. Those whose rows lie in the row space of G: at rank 8 of 128 a random update keeps about
   $\sqrt{8/128}$ of its norm, the rest is out of reach.
2. The loss after training is the other half of the table, and so is what was forgotten.
3. It cannot change the features: 2.03 against LoRA's 1.99 after the same steps.
</details>

Next: [many tasks on one base](08_d2_many_tasks.ipynb)
"""
