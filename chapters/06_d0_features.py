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
# 06 · D0: is LoRA "low-rank adversarial regularization"?

Five Chinese articles about LoRA gave this project its material; chapters 06 to 10 take one
each. The first, D0, is 《大规模语言模型从理论到实践：LoRA的变体》, signed AI天才研究员/AI
Genius Institute & 禅与计算机程序设计艺术. In our words it says: LoRA means *learning with
low-rank adversarial regularization*; embed the text, encode it, decompose the **features**
into a low-rank matrix, train against adversarial examples, decode.

That is not LoRA (Hu et al. 2021), which factors the **update of a weight**. But it is a
system, so we build it under an honest name and measure. Every statement of the article is an entry
of a *ledger*: code, a figure that it computes, and a verdict that the figure decides.
`python -m lora_np documents` runs all 46, `--only D0` those of this article: also its Keras listing, stop words
and stemming, F1, and its claims about cost.

Two texts occur throughout: the *old* one, 2 Kings (the base model read other books of the Bible), and the *new* one, The
Devil's Dictionary. Losses are in nats a byte on held-out windows of 64 bytes; chapter 05 had windows of 128, where
the base is at 2.32 and not 2.22 on the new text.
"""

# %% [markdown]
r"""
## What does a bottleneck on features cost before any training?

Take the pretrained base, and force each sequence's hidden states (64 positions by 128 numbers) to
rank k by a singular value decomposition: write the matrix as $U\Sigma V^\top$ with orthonormal
columns and singular values $\sigma_1 \ge \sigma_2 \dots$, keep the k largest. By Eckart and
Young no matrix of rank k is closer. **Predict:** the loss of the old text is 1.18 nats a byte.
What is it at k = 4, 16, 32? And what does attaching LoRA change?
"""

# %%
from lora_np.cli.documents import check_by_id, show

# %matplotlib inline

show(check_by_id("D0.2"))

# %% [markdown]
r"""
At rank 4 the loss has nearly doubled, before one step of training. LoRA with B = 0 changes
nothing, bit for bit. The last two figures are a trap: an SVD over the positions
of a sequence mixes them, so that an early position learns something of a later one. A loss measured
behind it is not a language model's loss, so the three above are, if anything, too low. (For generation we therefore use one fixed projection.)

## Can one differentiate through an SVD?

Yes, and by hand. The whole derivation is in the docstring:
"""

# %%
import inspect

from lora_np.functional import low_rank

print(inspect.getsource(low_rank.truncated_svd_backward))

# %% [markdown]
r"""
Look at the denominators: $\sigma_i^2 - \sigma_j^2$ occurs only between a *kept* and a
*dropped* value. **Predict:** which of these three has no derivative: singular values (3, 3, 1),
(3, 2, 2) or (3, 2, 1), cut to rank 2?
"""

# %%
import numpy as np

from lora_np.functional import truncated_svd, truncated_svd_backward

for sigma in ((3.0, 3.0, 1.0), (3.0, 2.0, 2.0), (3.0, 2.0, 1.0)):
    try:
        _, cache = truncated_svd(np.diag(sigma), 2)
        (dx,) = truncated_svd_backward(np.ones((3, 3)), cache)
        print(sigma, "largest entry of the gradient:", np.abs(dx).max().round(2))
    except ValueError as error:
        print(sigma, "->", error)

# %% [markdown]
r"""
Only the second. How is such a formula certified? The complex step, our sharpest tool, goes
through an SVD *silently wrong*, because the decomposition works with $|x|^2$. So this pair has a
second derivation that contains no SVD: the projector on the kept directions as a matrix sign
function, computed by a polynomial (Newton and Schulz), on the tape. And central differences.
"""

# %% tags=["volatile"]
show(check_by_id("D0.3"))

# %% [markdown]
r"""
## Does adversarial training protect?

An *adversarial example* is the input plus a small offset chosen to hurt. On text the offset goes on
the embedding. FGM takes one step along the gradient, PGD several; both get the same length ε. The
gradient with respect to the input is the same backward pass as ever, with the weights frozen.
(GAN: a *generator* makes features that a *discriminator* is trained to tell from real ones.)
*Adversarial training* adds the loss of the attacked input. We train against FGM and measure under PGD, the
stronger one. Task: which of three books is this window
of 48 bytes from (chance 1/3)? The encoder is an LSTM, a recurrent network that carries a state from
character to character (`functional.lstm`). **Predict** the accuracy under an attack of norm 0.5 for a
plainly trained LSTM classifier, for one whose features have rank 4, and for one trained against FGM.
"""

# %% tags=["volatile"]
from lora_np.documents import d0_runs as runs
from lora_np.plots import attacked_curves

eps = (0.0, 0.25, 0.5, 1.0)
kinds = {
    "plain": (None, ""),
    "features at rank 4": (4, ""),
    "trained against FGM": (None, "fgm"),
}
curves = {
    name: [runs.accuracy(e, "lstm", rank, "svd", method) for e in eps]
    for name, (rank, method) in kinds.items()
}
for name, values in curves.items():
    print(f"{name:<20}", "  ".join(f"ε {e}: {v:.2f}" for e, v in zip(eps, values)))
attacked_curves(eps, curves, 1 / 3)

# %% [markdown]
r"""
Training against the attack protects; the low rank by itself does not (its line lies on the plain one's). For
none of the attacks does the clean accuracy rise beyond what 240 windows can tell: "robustness yes, generalisation hardly" is D0.4's verdict,
with FGSM, PGD, virtual adversaries, a transformer and a GAN on the features in its table.

## And the next word after 我喜欢编程?

The article's example. A character model of the Tang poems can be asked; two of the five characters
occur too seldom in what it read: it cannot tell them from □, the unknown one. **Predict** what an eighth-century model says next.
"""

# %% tags=["volatile"]
show(check_by_id("D0.7"))

# %% [markdown]
r"""
A comma: the lines of these poems end after five characters or seven, and that much of the metre it has learnt. It
is hardly better than plain frequencies otherwise (5.81 against 5.97 nats), and it knows nothing of programming;
one sees so only by looking at the whole distribution, beside the frequencies.

## When someone quotes it in an interview

"LoRA is low-rank *adaptation*: the update of a frozen weight is $s\,BA$, and it starts at zero.
Putting the low rank on activations is another method, a bottleneck; it changes the model
before training, costs an SVD per sequence, and if the SVD runs over time it leaks the future.
Adversarial training buys robustness; the low rank does not."

## Three questions

1. Why does the gradient of a truncated SVD not care about equal singular values that are both kept?
2. Your bottlenecked language model has a *lower* training loss than the model without the bottleneck. What
   do you check first?
3. An attack leaves `p.grad` of the weights changed. What was forgotten?

<details><summary>Answers</summary>

1. A rotation among kept directions leaves the sum $\sum_i \sigma_i u_i v_i^\top$ as it is; only
   trading a kept for a dropped direction changes it, at a rate proportional to $1/(\sigma_i^2-\sigma_j^2)$.
2. Whether position t sees later ones: change the last token and look at earlier features.
3. To freeze them: the backward pass to the input runs through the weights and would add to their
   gradients (`documents.adversarial.frozen`).
</details>

Next: [the weight itself replaced](07_d1_replaced_weight.ipynb)
"""
