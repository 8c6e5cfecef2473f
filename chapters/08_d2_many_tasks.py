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
# 08 · D2: can a hundred tasks share one model?

The third article (its file begins without a title; no author is given) describes, in our words:
$W = W_{const} + W_1 W_2^\top$ with a low-rank matrix and a bias for every task and the constant part
shared; its gradients are "$\partial W/\partial W_1 = W_2$"; a PyTorch classifier follows.

The idea is right, and it is LoRA with $W_{const}$ the frozen weight, $W_1 = B$, $W_2 = A^\top$ (the scale s left out). We
build what it promises. The rest of its claims: `python -m lora_np documents --only D2`.
"""

# %% [markdown]
r"""
## One batch, three tasks

Every row of a batch names its task; the frozen product is one for all rows, only the thin ones
are grouped. Three tasks on one base: The Devil's Dictionary, the chemical elements, Genesis in
Spanish. **Predict:** how well does each adapter predict the *other* two texts, compared with the base?
"""

# %% tags=["volatile"]
from lora_np.documents import d2

losses = d2.task_losses()
print(
    f"{'text':<12}" + "".join(f"{a:>12}" for a in (*d2.TASKS, "base")) + "   (adapter)"
)
for text in d2.TASKS:
    print(
        f"{text:<12}" + "".join(f"{losses[text, a]:12.2f}" for a in (*d2.TASKS, "base"))
    )

# %% [markdown]
r"""
The diagonal is the best of every row. Of the six crossings most do better than the base, which has never seen such
text; the Spanish adapter hurts on the dictionary. The whole promise, with a mixed batch against row by row:

"""

# %% tags=["volatile"]
from lora_np.cli.documents import check_by_id, show

show(check_by_id("D2.2"))

# %% [markdown]
r"""
## What does a task cost on disk?

**Predict:** with rank 4 and a bias on all linear layers, how many tasks fit into the space of one more
copy of the model?
"""

# %%
from lora_np.documents import experiments as ex
from lora_np.documents.multitask import stored_bytes
from lora_np.plots import bytes_by_tasks

# %matplotlib inline

base = sum(p.data.nbytes for p in ex.base().parameters())
task = 4 * d2.task_numbers()
counts = list(range(1, 101))
formula, copies = zip(*(stored_bytes(base, task, n) for n in counts))
files = d2.bytes_on_disk()
measured = {n: base + files[n] for n in (1, 2, 5, 10, 20, 50, 100)}
print(f"base {base:,} bytes; a task {task:,} by formula, {files[1]:,} as a file")
print(
    f"100 tasks: {formula[-1] / 1e6:.1f} MB against {copies[-1] / 1e6:.0f} MB of copies"
)
bytes_by_tasks(counts, copies, formula, measured)

# %% [markdown]
r"""
Twenty-two by the formula, twenty-one as files: a file is a few per cent larger than its numbers (names and shapes).

## Is ∂W/∂W₁ equal to W₂?

**Predict** the shape of "the derivative of W (4, 3) with respect to $W_1$ (4, 2)".
"""

# %%
import inspect

import numpy as np

print(inspect.getsource(d2.jacobian_W1))
rng = np.random.default_rng(0)
W1, W2, dW = (rng.normal(size=s) for s in ((4, 2), (3, 2), (4, 3)))
J = d2.jacobian_W1(W1, W2)
print("shape of the Jacobian", J.shape, "- shape of W2", W2.shape)
contracted = np.einsum("ij,ijkl->kl", dW, J)
print(
    "contracted with dL/dW it is dL/dW W2:",
    np.allclose(contracted, dW @ W2, rtol=1e-12),
)

# %% [markdown]
r"""
Four indices, $\partial W_{ij}/\partial (W_1)_{kl} = \delta_{ik} (W_2)_{jl}$. Nobody stores
that; a backward pass contracts it with $dL/dW$ as it goes: $dL/dW_1 = (dL/dW)\,W_2$ and
$dL/dW_2 = (dL/dW)^\top W_1$. The printed lines ($\partial W/\partial W_1 = W_2$, $\partial W/\partial W_2 = W_1^\top$) are the rule for numbers, copied without checking
the shapes. The bias of a task gets the sum of its own rows' gradients.

## The classifier

**Predict** what cross-entropy does when a ten-class model is trained on fresh random labels for 300
steps.
"""

# %% tags=["volatile"]
show(check_by_id("D2.4"))

# %% [markdown]
r"""
Not below ln 10, because that is the entropy of the labels: no model can do better in expectation. The listing's own network,
mended, starts above it and is still there; the repaired one starts at it and stays.
A falling loss on the *same* random labels would be memory.

## Is it good for news, sentiment, translation?

On the committed texts, with the question that the article does not ask: is the prompt used at all?
"""

# %% tags=["volatile"]
show(check_by_id("D2.5"))

# %% [markdown]
r"""
Spanish verses become predictable, mostly because Spanish does: with another verse's English in front
the loss is hardly higher. A model of 0.8 million numbers learns the language and the form of the
answer, hardly the content.

## When someone quotes it in an interview

"One frozen base, one small adapter a task, switched per request or per row of a batch: yes, and
N tasks cost the base plus N adapters. The gradient is $dL/dB = s\,(dL/dW)A^\top$; a 'derivative of W
with respect to W₁' has four indices."

## Three questions

1. Two rows of a batch belong to different tasks. Why can the adapters not simply be merged first?
2. A colleague's classifier "learns": its loss on random labels falls to 1.9. What do you suspect?
3. Why is the bias of a task cheap and still worth having?

<details><summary>Answers</summary>

1. Merging makes one matrix for all rows; each row needs its own task's update, so the thin products stay
   apart and the frozen one is shared.
2. The labels are not fresh: the same few batches are seen again, and memorised.
3. It has M numbers against r (M + D), and shifts the output even where the input is zero.
</details>

Next: [compression, a fit() call, and ONNX](09_d3_compression.ipynb)
"""
